// Two servers on one PostgreSQL: what a client is told must not depend on which of them it asks.
#include "server/running.hpp"
#include "support/private_postgres.hpp"
#include "support/temp_folder.hpp"

namespace sluice::server {
namespace {

using testing_support::PrivatePostgres;

class PostgresServer : public testing::Test {
 protected:
  PrivatePostgres& database = PrivatePostgres::shared();
  const std::string name = database.new_database();
  Config config() {
    Config c;
    c.postgres.url = database.socket_url(name);
    c.postgres.lease = milliseconds(1500);
    return c;
  }
  // Until the node has read the token that another has made.
  static bool knows(RunningServer& server, const std::string& token) {
    for (int i = 0; i < 200; ++i) {
      if (server.server->tokens().authenticate(token)) return true;
      Parker().park(milliseconds(50));
    }
    return false;
  }
  static std::string run(const std::string& key, const std::string& token) {
    return test::post("probe.count", "{}", "Authorization: Bearer " + token + "\r\nIdempotency-Key: " + key + "\r\n");
  }
};

TEST_F(PostgresServer, NODE_1_G1_a_key_has_one_reply_on_all_nodes_byte_for_byte) {
  RunningServer one(config()), two(config());
  ASSERT_NE(one.server->config().node, two.server->config().node);
  EXPECT_TRUE(two.admin.empty()) << "the first node has made the first token";
  ASSERT_TRUE(knows(two, one.admin)) << "a token made on one node is good on the other";
  const auto first = one.ask(run("k1", one.admin));
  ASSERT_EQ(first.status, 200) << first.body;
  const auto again = two.ask(run("k1", one.admin));
  EXPECT_EQ(again.status, 200);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.headers.count("idempotency-replayed"), 1u);
  EXPECT_EQ(one.runs(), 1);
  EXPECT_EQ(two.runs(), 1);
}

TEST_F(PostgresServer, NODE_3_CONSOLE_4_tokens_made_and_revoked_on_one_node_are_so_on_the_other_within_seconds) {
  RunningServer one(config()), two(config());
  ASSERT_TRUE(knows(two, one.admin));
  RealClock clock;
  const auto seconds_until = [&](RunningServer& server, const std::string& token, int status) {
    const Instant begun = clock.now();
    while (server.ask(run("t", token)).status != status && clock.now() - begun < seconds(20)) Parker().park(milliseconds(20));
    return std::chrono::duration<double>(clock.now() - begun).count();
  };
  const auto made = one.ask(test::post("sluice.token.create", R"({"name":"till","permissions":["*:*"]})", "Authorization: Bearer " + one.admin + "\r\n"));
  ASSERT_EQ(made.status, 200) << made.body;
  const auto text = [&](const std::string& field) {
    const auto at = made.body.find("\"" + field + "\":\"") + field.size() + 4;
    return made.body.substr(at, made.body.find('"', at) - at);
  };
  EXPECT_EQ(one.ask(run("t", text("token"))).status, 200) << "at once where it was made";
  EXPECT_LT(seconds_until(two, text("token"), 200), 4.0) << "it reads every two seconds";
  ASSERT_EQ(two.ask(test::post("sluice.token.revoke", "{\"id\":\"" + text("id") + "\"}", "Authorization: Bearer " + one.admin + "\r\n")).status, 200);
  EXPECT_EQ(two.ask(run("t", text("token"))).status, 401) << "at once where it was revoked";
  EXPECT_LT(seconds_until(one, text("token"), 401), 4.0);
}

// An id says when: its audit row is looked for there, and its journal is kept from then on.
TEST_F(PostgresServer, NODE_3_CONSOLE_5_ids_have_the_databases_time_at_nodes_whose_clocks_are_days_off) {
  struct Off final : Clock {
    explicit Off(milliseconds by) : by_(by) {}
    Instant now() noexcept override { return real_.now(); }
    WallTime wall() noexcept override { return real_.wall() + by_; }
    RealClock real_;
    const milliseconds by_;
  };
  Off ahead(std::chrono::hours(48)), behind(std::chrono::hours(-48));
  RunningServer one(config(), null_logger(), &behind), two(config(), null_logger(), &ahead);
  ASSERT_TRUE(knows(two, one.admin));
  for (RunningServer* node : {&one, &two}) {
    const auto done = node->ask(test::post("probe.count", "{}", one.bearer()));
    ASSERT_EQ(done.status, 200) << done.body;
    const auto id = id_from_text(done.headers.at("x-sluice-transaction"));
    ASSERT_TRUE(id);
    const milliseconds off = IdSource::time_of(*id) - node->server->context().store.now();
    EXPECT_LT(std::chrono::abs(off), seconds(60));
  }
}

TEST_F(PostgresServer, IDEM_3_duplicates_on_two_nodes_at_once_take_effect_once) {
  RunningServer one(config()), two(config());
  ASSERT_TRUE(knows(two, one.admin));
  std::atomic<int> good{0};
  std::vector<Thread> clients;
  for (int c = 0; c < 8; ++c)
    clients.emplace_back("client", [&, c] {
      for (int i = 0; i < 25; ++i) {
        auto& server = (c + i) % 2 == 0 ? one : two;
        for (int attempt = 0; attempt < 100; ++attempt) {
          const auto response = server.ask(run("d" + std::to_string(i), one.admin));
          if (response.status == 200) {
            ++good;
            break;
          }
          Parker().park(milliseconds(20));
        }
      }
    });
  clients.clear();
  EXPECT_EQ(good, 200);
  EXPECT_EQ(one.runs(), 25);
}

TEST_F(PostgresServer, NODE_6_readyz_says_that_the_database_is_gone_and_that_it_is_back) {
  PrivatePostgres own;
  own.sql("CREATE DATABASE d", "template1");
  Config c;
  c.postgres.url = own.socket_url("d");
  RunningServer server(c);
  const auto ready = [&] { return server.ask(test::get("/readyz")).status; };
  for (int i = 0; i < 200 && ready() != 200; ++i) Parker().park(milliseconds(50));
  EXPECT_EQ(ready(), 200);
  own.stop(SIGQUIT);
  const auto refused = server.ask(run("k", server.admin));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  const std::string metrics = server.ask(test::get("/metrics")).body;
  EXPECT_NE(metrics.find("sluice_requests_refused_total{code=\"database_"), std::string::npos) << metrics;
  for (int i = 0; i < 200 && ready() == 200; ++i) Parker().park(milliseconds(50));
  EXPECT_EQ(ready(), 503);
  own.restart();
  for (int i = 0; i < 200 && ready() != 200; ++i) Parker().park(milliseconds(50));
  EXPECT_EQ(ready(), 200);
  EXPECT_EQ(server.ask(run("k", server.admin)).status, 200);
  EXPECT_EQ(server.runs(), 1);
}

// Without keys, whose replay would hide a lie.
TEST_F(PostgresServer, G3_whatever_sessions_the_database_ends_what_is_told_is_what_was_applied) {
  RunningServer server(config());
  std::atomic<int> good{0}, later{0}, other{0};
  std::atomic<bool> enough{false};
  std::vector<Thread> clients;
  for (int c = 0; c < 4; ++c)
    clients.emplace_back("client", [&] {
      while (!enough) {
        const int status = server.ask(test::post("probe.count", "{}", server.bearer())).status;
        ++(status == 200 ? good : status == 503 ? later : other);
      }
    });
  int ended = 0;
  for (int looks = 0; looks < 2000 && (ended <= 10 || good == 0); ++looks, Parker().park(milliseconds(15)))
    ended += std::stoi(database.sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND "
                                    "pid <> pg_backend_pid() AND query = 'COMMIT'", name));
  enough = true;
  for (auto& client : clients) client.join();
  EXPECT_GT(ended, 10);
  EXPECT_GT(good, 0);
  EXPECT_EQ(other, 0) << "the database was there all the time";
  EXPECT_EQ(server.runs(), good) << later << " were told that nothing took effect";
  EXPECT_EQ(database.sql("SELECT count(*) FROM sluice.audit WHERE command = 'probe.count' AND outcome = 1", name), std::to_string(good));
}

TEST_F(PostgresServer, NODE_6_a_right_that_was_revoked_is_503_to_callers_and_probes_until_it_is_granted_again) {
  Config c = config();
  database.sql("CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE " + name + " TO plain", name);
  c.postgres.url.replace(c.postgres.url.find("sluice@"), 7, "plain@");
  RunningServer server(c);
  const auto status = [&](const char* path) { return server.ask(test::get(path)).status; };
  database.sql("REVOKE SELECT, INSERT ON sluice.keys FROM plain", name);
  const auto refused = server.ask(run("k", server.admin));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_EQ(refused.headers.count("retry-after"), 1u);
  EXPECT_NE(refused.body.find("database_rights"), std::string::npos) << refused.body;
  EXPECT_EQ(status("/readyz"), 503);
  EXPECT_EQ(status("/healthz"), 200) << "to start it again grants nothing";
  database.sql("GRANT SELECT, INSERT ON sluice.keys TO plain", name);
  for (int i = 0; i < 200 && status("/readyz") != 200; ++i) Parker().park(milliseconds(50));
  EXPECT_EQ(status("/readyz"), 200);
  EXPECT_EQ(server.ask(run("k", server.admin)).status, 200);
  EXPECT_EQ(server.runs(), 1);
}

TEST_F(PostgresServer, NODE_8_a_database_that_went_back_is_an_error_in_the_log_and_nobody_restarts_the_node) {
  struct Lines final : LogSink {
    std::mutex mutex;
    std::vector<std::string> lines;
    void write(LogLevel, std::string_view line) override {
      const std::scoped_lock lock(mutex);
      lines.emplace_back(line);
    }
    std::size_t count(std::string_view words) {
      const std::scoped_lock lock(mutex);
      std::size_t n = 0;
      for (const auto& line : lines) n += line.find(words) != line.npos ? 1 : 0;
      return n;
    }
  };
  RealClock clock;
  const auto lines = std::make_shared<Lines>();
  const auto logger = make_logger(clock, lines, {});
  RunningServer server(config(), *logger);
  ASSERT_EQ(server.ask(run("k", server.admin)).status, 200);
  database.sql("UPDATE sluice.writers SET last = 0", name);  // as a restore to an earlier point leaves it
  database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()", name);
  // Nobody asks /readyz.
  const std::string_view words = "error the store has closed itself; do not start the server again before you know what was lost failure=\"unavailable/database_went_back";
  for (int i = 0; i < 400 && lines->count(words) == 0; ++i) Parker().park(milliseconds(25));
  EXPECT_EQ(lines->count(words), 1u);
  EXPECT_EQ(lines->count(" error "), 1u);
  EXPECT_EQ(server.ask(test::get("/readyz")).status, 503);
  EXPECT_EQ(server.ask(test::get("/healthz")).status, 200) << "started again it would serve without knowing what was lost";
}

TEST(PostgresConfig, a_password_is_neither_shown_nor_taken_from_a_wrong_address) {
  const auto config = parse_config("[store]\nurl = \"postgres://u:hunter2@h/d\"\n", "f", {});
  ASSERT_TRUE(config) << config.error().to_string();
  EXPECT_EQ(config->postgres.url, "postgres://u:hunter2@h/d");
  EXPECT_EQ(show_config(*config).find("hunter2"), std::string::npos);
  EXPECT_NE(show_config(*config).find("postgres://u:***@h/d"), std::string::npos);
  const auto wrong = parse_config("[store]\nurl = \"mysql://u:hunter2@h/d\"\n", "f", {});
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().to_string().find("hunter2"), std::string::npos) << wrong.error().to_string();
}

}  // namespace
}  // namespace sluice::server
