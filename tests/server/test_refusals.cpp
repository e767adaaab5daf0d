// What is refused: counted by its code, in the audit trail where it was a command, and told with the key of the
// configuration that refuses it.
#include <gmock/gmock.h>

#include "running.hpp"
#include "support/temp_folder.hpp"

namespace sluice::server {
namespace {

using test::get;
using test::post;
using testing::HasSubstr;

class Refusals : public testing::Test {
 protected:
  Refusals() {
    config.http.max_body_bytes = 100;
    config.http.max_json_depth = 3;
  }
  static bool counted(RunningServer& running, const std::string& code, int times) {
    return running.metric("sluice_requests_refused_total{code=\"" + code + "\",traffic=\"live\"} " + std::to_string(times) + "\n");
  }
  static std::optional<store::AuditRow> row(RunningServer& running, const std::string& detail) {
    std::optional<store::AuditRow> found;
    wait_until([&] {
      const auto rows = store::ask_now(running.server->context().store, store::ListAudit{});
      if (rows)
        for (const auto& one : *rows)
          if (one.detail.starts_with(detail)) found = one;
      return found.has_value();
    });
    return found;
  }
  Config config;
};

TEST_F(Refusals, CONSOLE_10_every_refusal_counts_by_its_code) {
  RunningServer running(config);
  EXPECT_EQ(running.ask(get("/nothing")).status, 404);
  EXPECT_EQ(running.ask(get("/v1/commands/probe.count", running.bearer())).status, 405);
  EXPECT_EQ(running.ask(post("probe.count", "{}", running.keyed("a"))).status, 200);
  EXPECT_EQ(running.ask(post("probe.count", "{\"n\":1}", running.keyed("a"))).status, 422);
  EXPECT_EQ(running.ask("nonsense\r\n\r\n").status, 400);
  for (const char* code : {"unknown_route", "method_not_allowed", "fingerprint_mismatch", "bad_http"})
    EXPECT_TRUE(counted(running, code, 1)) << code;
  ASSERT_TRUE(row(running, "fingerprint_mismatch"));
  EXPECT_FALSE(row(running, "fingerprint_mismatch")->exchange) << "nothing of it can be looked up";
}

TEST_F(Refusals, CONSOLE_6_a_command_that_is_too_long_is_counted_and_in_the_audit_trail) {
  RunningServer running(config);
  const std::string body = "\"" + std::string(200, 'x') + "\"";
  const auto long_one = running.ask(post("probe.count", body, running.bearer()));
  EXPECT_EQ(long_one.status, 413);
  EXPECT_THAT(long_one.body, HasSubstr("http.max_body_bytes"));
  EXPECT_TRUE(counted(running, "body_too_large", 1));
  const auto audited = row(running, "body_too_large");
  ASSERT_TRUE(audited);
  EXPECT_EQ(audited->command, "probe.count");
  EXPECT_EQ(audited->principal, "admin");
  EXPECT_EQ(audited->outcome, store::AuditOutcome::error);
  EXPECT_EQ(running.ask(post("probe.count", body)).status, 401) << "who asks comes before what";
  EXPECT_EQ(running.ask(post("probe.count", body, "Authorization: Bearer slc_none\r\n")).status, 401);
  EXPECT_EQ(running.ask("POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 200\r\n\r\n").status, 413) << "no command";
  EXPECT_TRUE(counted(running, "body_too_large", 2));
}

TEST_F(Refusals, CONSOLE_9_nesting_past_the_bound_is_told_with_its_key) {
  RunningServer running(config);
  EXPECT_THAT(running.ask(post("probe.count", "[[[[1]]]]", running.bearer())).body, HasSubstr("http.max_json_depth"));
}

TEST_F(Refusals, CONSOLE_1_who_asks_for_transactions_comes_before_what) {
  RunningServer running(config);
  for (const char* target : {"/v1/transactions?limit=x", "/v1/transactions?before=x", "/v1/transactions/x"})
    EXPECT_EQ(running.ask(get(target)).status, 401) << target;
  EXPECT_EQ(running.ask(get("/v1/transactions?limit=x", running.bearer())).status, 400);
  EXPECT_TRUE(counted(running, "bad_limit", 1));
  EXPECT_EQ(row(running, "bad_limit")->command, "GET /v1/transactions");
}

TEST_F(Refusals, CORE_2_a_store_full_of_keys_says_what_to_do_and_is_counted) {
  testing_support::TempFolder folder;
  config.store_kind = "sqlite";
  config.sqlite.path = folder.file("full.db");
  config.sqlite.max_live_keys = 1;
  RunningServer running(config);
  EXPECT_EQ(running.ask(post("probe.count", "{}", running.keyed("a"))).status, 200);
  const auto full = running.ask(post("probe.count", "{}", running.keyed("b")));
  EXPECT_EQ(full.status, 503) << full.body;
  EXPECT_THAT(full.body, HasSubstr("store.max_live_keys"));
  EXPECT_TRUE(full.headers.contains("retry-after"));
  EXPECT_TRUE(counted(running, "too_many_keys", 1));
  EXPECT_EQ(running.runs(), 1);
}

// Its second phase fails once, which is as often as it is tried.
class DoubtApp final : public App {
 public:
  std::string_view name() const noexcept override { return "doubt"; }
  Status install(AppContext& context) override {
    struct Fails final : flow::Stage {
      std::string_view name() const noexcept override { return "outside"; }
      flow::Effect effect() const noexcept override { return flow::Effect::external; }
      bool has_commit() const noexcept override { return true; }
      Result<flow::Vote> prepare(flow::Exchange&) override { return flow::Vote(); }
      Status commit(flow::Exchange&) override { return fail(FailureKind::unavailable, "down", ""); }
    };
    flow::FlowOptions options;
    options.store = &context.store;
    options.second_phase.attempts = 1;
    flow_ = std::make_unique<flow::Flow>("doubt", std::move(options));
    flow_->group("main", {std::make_shared<Fails>()});
    context.flows.add(*flow_);
    rpc::CommandSpec spec;
    spec.name = "doubt";
    spec.app = "shop";
    spec.idempotency = rpc::KeyUse::none;
    spec.handler = rpc::flow_handler(*flow_);
    return context.registry.add(std::move(spec));
  }

 private:
  std::unique_ptr<flow::Flow> flow_;
};

TEST_F(Refusals, CONSOLE_6_a_settlement_leaves_one_row_with_its_reason) {
  std::string bearer;
  config.store_kind = "memory";
  config.http.port = 0;
  ServerParts parts;
  parts.logger = &null_logger();
  parts.apps.push_back(std::make_unique<DoubtApp>());
  parts.first_token = [&](const std::string& token) { bearer = "Authorization: Bearer " + token + "\r\n"; };
  auto server = std::move(*Server::open(std::move(config), std::move(parts)));
  ASSERT_TRUE(server->start());
  const auto ask = [&](const std::string& text) {
    test::HttpClient client(server->port());
    return client.ask(text).value_or(test::HttpResponse{});
  };
  const auto doubt = ask(post("doubt", "{}", bearer));
  ASSERT_EQ(doubt.status, 202) << doubt.body;
  const std::string id = doubt.body.substr(doubt.body.find("\"transaction\":\"") + 15, 13);
  const std::string payload = R"({"id":")" + id + R"(","outcome":"committed","reason":"by phone"})";
  ASSERT_EQ(ask(post("sluice.tx.settle", payload, bearer)).status, 200);
  EXPECT_EQ(ask(post("sluice.tx.settle", payload, bearer)).status, 409) << "refused, and so a row of its own";
  const auto rows_of_settling = [&] {
    std::vector<std::string> found;
    for (const auto& one : *store::ask_now(server->context().store, store::ListAudit{}))
      if (one.command == "sluice.tx.settle") found.push_back(one.detail);
    return found;
  };
  EXPECT_TRUE(wait_until([&] { return rows_of_settling().size() >= 2; }));
  EXPECT_THAT(rows_of_settling(), testing::ElementsAre("not_in_doubt", "by phone"));
}

}  // namespace
}  // namespace sluice::server
