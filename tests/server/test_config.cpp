#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <sstream>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/server/config.hpp"
#include "sluice/server/tokens.hpp"
#include "sluice/store/memory.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::server {
namespace {

std::string problem(std::string_view text, const Environment& env = {}) {
  const auto config = parse_config(text, "s.toml", env);
  return config ? "" : std::string(config.error().detail());
}

std::string warning(const Environment& env) {
  const auto config = parse_config("", "s.toml", env);
  EXPECT_TRUE(config);
  return config && !config->warnings.empty() ? config->warnings.front() : "";
}

TEST(Config, CONSOLE_9_each_mistake_is_named_with_line_key_expected_and_got) {
  EXPECT_EQ(problem("[http]\nport = \"x\"\n"),
            "s.toml:2: key 'http.port': expected integer from 0 to 65535, got text \"x\"");
  EXPECT_EQ(problem("[http]\nport = 70000\n"),
            "s.toml:2: key 'http.port': expected integer from 0 to 65535, got integer 70000");
  EXPECT_EQ(problem("[http]\naddress = \"nonsense\"\n"),
            "s.toml:2: key 'http.address': expected an IPv4 or IPv6 address, got text \"nonsense\"");
  EXPECT_EQ(problem("[grpc]\nlisten = \"abc\"\n"),
            "s.toml:2: key 'grpc.listen': expected host:port with a port from 0 to 65535, got text \"abc\"");
  EXPECT_EQ(problem("port = 1\n"), "s.toml:1: unknown key 'port'; did you mean 'http.port'?");
  EXPECT_EQ(problem("[log]\nlevel = \"loud\"\n"),
            "s.toml:2: key 'log.level': expected one of trace, debug, info, warn, error, off, got "
            "text \"loud\"");
  EXPECT_EQ(problem("http = 5\n"), "s.toml:1: 'http': expected a table ([http] on a line of its own), got integer 5");
  EXPECT_EQ(problem("channels = [1]\n"), "s.toml:1: 'channels': expected a table ([channels] on a line of its own), got a list");
  EXPECT_EQ(problem("[channels]\ncodes = \"codes:9090\"\n"),
            "s.toml:2: 'channels.codes': expected a table ([channels.codes] on a line of its own), got text \"codes:9090\"");
  EXPECT_EQ(problem("[http.port]\nat = 1\n"), "s.toml:1: key 'http.port': expected integer from 0 to 65535, got a table");
  EXPECT_EQ(problem("[http]\nport = 1.5\n"),
            "s.toml:2: key 'http.port': expected integer from 0 to 65535, got a number with a point");
  EXPECT_EQ(problem("[http]\nprot = 1\n"), "s.toml:2: unknown key 'http.prot'; did you mean 'http.port'?");
  EXPECT_TRUE(problem("[http\n").starts_with("s.toml:1: not TOML"));
  const auto two = problem("a = 1\nb = 2\n");
  EXPECT_NE(two.find("s.toml:1"), std::string::npos);
  EXPECT_NE(two.find("s.toml:2"), std::string::npos);
}

TEST(Config, RES_1_channels_to_other_services_have_names_of_their_own) {
  const std::string text =
      "[channels.codes]\ntarget = \"codes:9090\"\ntls_ca = \"ca.pem\"\nkeepalive_ms = 20000\n"
      "[channels.user-store]\ntarget = \"users:1\"\n";
  const auto config = parse_config(text, "s.toml", {{"SLUICE_CHANNELS_CODES_TARGET", "here:1"},
                                                    {"SLUICE_CHANNELS_USER_STORE_TLS_CERT", "own.pem"},
                                                    {"SLUICE_CHANNELS_NEW_TLS_SERVER_NAME", "new.example"}});
  ASSERT_TRUE(config) << config.error().to_string();
  ASSERT_EQ(config->channels.size(), 3u);
  const auto& codes = config->channels.at("codes").options;
  EXPECT_EQ(codes.target, "here:1");
  EXPECT_EQ(codes.tls_ca, "ca.pem");
  EXPECT_EQ(codes.keepalive, seconds(20));
  EXPECT_EQ(config->channels.at("user-store").options.tls_cert, "own.pem");
  EXPECT_EQ(config->channels.at("new").options.tls_server_name, "new.example");
  const auto again = parse_config(show_config(*config), "shown", {});
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(show_config(*again), show_config(*config));
  EXPECT_EQ(problem("[channels.codes]\ntarget = 1\n"),
            "s.toml:2: key 'channels.codes.target': expected text, got integer 1");
  EXPECT_EQ(problem("[channels.codes]\nkeepalive_ms = 5\n"),
            "s.toml:2: key 'channels.codes.keepalive_ms': expected integer from 10000 to 86400000, got integer 5");
  EXPECT_TRUE(problem("[channels.codes]\ntlsca = \"x\"\n").starts_with("s.toml:2: unknown key 'channels.codes.tlsca'"));
  EXPECT_TRUE(problem("[channels.NAME]\ntarget = \"x\"\n").starts_with("s.toml:2: unknown key"));
  EXPECT_TRUE(problem("[channels.\"a b\"]\ntarget = \"x\"\n").starts_with("s.toml:2: unknown key"));
  EXPECT_EQ(problem("", {{"SLUICE_CHANNELS_CODES_BALANCING", "best"}}),
            "environment: SLUICE_CHANNELS_CODES_BALANCING: expected one of round_robin, pick_first, got 'best'");
  EXPECT_EQ(warning({{"SLUICE_CHANNELS_TARGET", "x"}}),
            "environment: unknown variable 'SLUICE_CHANNELS_TARGET', which changes nothing; docs/reference.md lists all");
  EXPECT_EQ(problem("", {{"SLUICE_APPS", "codes"}, {"SLUICE_CODE_TOKEN", "t"}}), "") << "options of the command";
}

TEST(Config, CONSOLE_9_a_table_that_begins_with_no_key_is_told_with_its_line) {
  const auto config = parse_config("[http]\nport = 0\n[`store]\nkind = 1\n", "f.toml", {});
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().to_string(),
              testing::AllOf(testing::HasSubstr("f.toml:3"), testing::HasSubstr("not TOML")));
}

TEST(Config, CONSOLE_9_the_environment_wins_and_is_checked) {
  const auto config = parse_config("[http]\nport = 1\n", "s", {{"SLUICE_HTTP_PORT", "2"}});
  ASSERT_TRUE(config);
  EXPECT_EQ(config->http.port, 2);
  EXPECT_EQ(problem("", {{"SLUICE_HTTP_PORT", "two"}}),
            "environment: SLUICE_HTTP_PORT: expected integer from 0 to 65535, got 'two'");
  // Not a mistake that keeps a server from starting: an orchestrator sets SLUICE_SERVICE_HOST of itself.
  EXPECT_EQ(warning({{"SLUICE_HTP_PORT", "2"}}),
            "environment: unknown variable 'SLUICE_HTP_PORT', which changes nothing; did you mean 'SLUICE_HTTP_PORT'?");
  EXPECT_EQ(warning({{"SLUICE_TOKEN", "t"}, {"SLUICE_HTTP_PORT", "2"}}), "");
  EXPECT_EQ(problem("", {{"SLUICE_TOKEN", "t"}}), "");
}

TEST(Config, CONSOLE_9_what_is_shown_reads_back_the_same) {
  Config config;
  config.http.port = 4711;
  config.sqlite.path = "a \"b\" \\c";
  config.allow_remote = true;
  const auto again = parse_config(show_config(config), "shown", {});
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(show_config(*again), show_config(config));
  EXPECT_EQ(again->sqlite.path, config.sqlite.path);
}

TEST(Config, STREAM_2_streams_are_configured_and_what_goes_together_stays_together) {
  const auto config = parse_config("[streams]\ncapacity = 2000\npolicy = \"soft_allow\"\nqueue_messages = 50000\nattempts = 1\n",
                                   "s", {});
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_TRUE(stream::check(config->grpc.stream)) << "the server could not start with it";
  EXPECT_EQ(config->grpc.stream.backpressure.policy, admission::AtCapacity::soft_allow);
  EXPECT_EQ(config->grpc.stream.ordering.capacity, 50'000u);
  EXPECT_EQ(problem("[streams]\npolicy = \"drop\"\n", {}),
            "s.toml:2: key 'streams.policy': expected one of queue, hard_reject, soft_allow, soft_allow_with_signal, got text \"drop\"");
  for (const char* zero : {"capacity", "queue_messages", "queue_bytes", "credit_messages", "credit_bytes", "attempts"})
    EXPECT_NE(problem(std::string("[streams]\n") + zero + " = 0\n", {}), "") << zero << ": zero is never unlimited";
  for (const char* least : {"capacity = 1", "queue_messages = 1", "queue_bytes = 1024", "credit_messages = 1", "credit_messages = 65536"}) {
    const auto one = parse_config(std::string("[streams]\n") + least + "\n", "s", {});
    ASSERT_TRUE(one) << least;
    EXPECT_TRUE(stream::check(one->grpc.stream)) << least;
  }
}

TEST(Config, the_reference_page_is_the_table) {
  std::ifstream file(std::string(SLUICE_SOURCE_DIR) + "/docs/reference.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_NE(text.str().find(config_reference()), std::string::npos)
      << "docs/reference.md is stale; put this there:\n"
      << config_reference();
}

struct TokensTest : ::testing::Test {
  ~TokensTest() override { store->close(); }
  sim::SimClock clock;
  sim::SimRandom random{3};
  std::unique_ptr<store::Store> store = store::make_memory_store(clock, random);
  Tokens tokens{*store, random};
};

TEST_F(TokensTest, CONSOLE_4_tokens_are_stored_hashed_expire_and_are_revoked) {
  const auto made = tokens.create({"ann", {"shop:*"}, false, seconds(60)});
  ASSERT_TRUE(made);
  const auto principal = tokens.authenticate(made->token);
  ASSERT_TRUE(principal);
  EXPECT_EQ((*principal)->id, "ann");
  EXPECT_TRUE((*principal)->may("shop", "order"));
  EXPECT_FALSE((*principal)->may("bank", "order"));
  store::ListRows query;
  query.ns = "sluice";
  query.collection = "tokens";
  const auto rows = store::ask_now(*store, query);
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].row.value.find(made->token.substr(4)), std::string::npos);
  EXPECT_EQ((*rows)[0].key.key.find(made->token.substr(4)), std::string::npos);

  clock.advance(seconds(60));
  EXPECT_EQ(tokens.authenticate(made->token).error().code(), "expired_token");
  const auto other = tokens.create({"bob", {}, false, {}});
  EXPECT_TRUE(tokens.revoke(other->info.id));
  Tokens restarted(*store, random);
  ASSERT_TRUE(restarted.load());
  EXPECT_EQ(restarted.authenticate(other->token).error().code(), "revoked_token");
  EXPECT_EQ(restarted.authenticate("slc_nothing").error().code(), "unknown_token");
  EXPECT_EQ(restarted.revoke("none").error().kind(), FailureKind::not_found);
  EXPECT_EQ(tokens.create({"", {}, false, {}}).error().code(), "bad_token_name");
  EXPECT_EQ(tokens.create({"x", {"nocolon"}, false, {}}).error().code(), "bad_permission");
}

// Between reading the rows and making them known something else happens.
class BetweenStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  std::function<void()> after_listing;
  bool ask(store::PendingQuery& pending) override {
    const bool listing = std::holds_alternative<store::ListRows>(pending.query);
    const bool answered = inner_.ask(pending);
    if (const auto happens = listing ? std::exchange(after_listing, {}) : nullptr) happens();
    return answered;
  }
  void close() override { inner_.close(); }
};

TEST_F(TokensTest, CONSOLE_4_NODE_3_a_revocation_is_not_undone_by_what_was_read_before_it) {
  BetweenStore between(*store);
  Tokens shared(between, random);
  const auto made = shared.create({"ann", {"shop:*"}, false, {}});
  ASSERT_TRUE(made);
  between.after_listing = [&] { EXPECT_TRUE(shared.revoke(made->info.id)); };
  ASSERT_TRUE(shared.load());
  const auto found = shared.authenticate(made->token);
  ASSERT_FALSE(found) << "good again, until the next reading";
  EXPECT_EQ(found.error().code(), "revoked_token");
}

}  // namespace
}  // namespace sluice::server
