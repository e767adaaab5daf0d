// The whole wiring on a free port, with the memory store.
#include <gtest/gtest.h>

#include "sluice/base/runtime.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "sluice/server/server.hpp"
#include "support/http_client.hpp"

namespace sluice::server {
namespace {

class EchoApp final : public App {
 public:
  std::string_view name() const noexcept override { return "echo"; }
  Status install(AppContext& context) override {
    flow_ = std::make_unique<flow::Flow>("echo", [&] {
      flow::FlowOptions options;
      options.store = &context.store;
      options.keys = &context.keys;
      options.ids = &context.ids;
      return options;
    }());
    flow_->group("main", {flow::func("count", [](flow::Exchange& exchange) -> Result<flow::Vote> {
                   exchange.draft().add({"shop", "n", "runs"}, 1);
                   exchange.respond(Reply::ok("{\"ran\":true}"));
                   return flow::Vote();
                 })});
    context.flows.add(*flow_);
    rpc::CommandSpec spec;
    spec.name = "echo.run";
    spec.app = "shop";
    spec.handler = rpc::flow_handler(*flow_);
    return context.registry.add(std::move(spec));
  }

 private:
  std::unique_ptr<flow::Flow> flow_;
};

struct Running {
  explicit Running(Config config = {}) {
    config.store_kind = "memory";
    config.http.port = 0;
    ServerParts parts;
    parts.logger = &null_logger();
    parts.apps.push_back(std::make_unique<EchoApp>());
    parts.first_token = [this](const std::string& token) { admin = token; };
    auto opened = Server::open(std::move(config), std::move(parts));
    if (!opened) {
      failure = opened.error();
      return;
    }
    server = std::move(*opened);
    if (const auto started = server->start(); !started) failure = started.error();
  }
  test::HttpResponse ask(std::string_view text) {
    test::HttpClient client(server->port());
    auto response = client.ask(text);
    return response ? *response : test::HttpResponse{};
  }
  std::string bearer() const { return "Authorization: Bearer " + admin + "\r\n"; }
  std::string admin;
  std::optional<Failure> failure;
  std::unique_ptr<Server> server;
};

TEST(Server, CONSOLE_4_the_first_start_makes_an_admin_token_that_works) {
  Running running;
  ASSERT_FALSE(running.failure);
  EXPECT_EQ(running.admin.size(), 4u + 64u);
  const auto body = test::post("echo.run", "{}", running.bearer() + "Idempotency-Key: a\r\n");
  const auto first = running.ask(body);
  EXPECT_EQ(first.status, 200) << first.body;
  const auto again = running.ask(body);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.headers.at("idempotency-replayed"), "true");
  const auto rows =
      store::ask_now(running.server->context().store, store::GetRows{{{"shop", "n", "runs"}}});
  ASSERT_TRUE(rows && (*rows)[0]);
  EXPECT_EQ((*rows)[0]->number, 1) << "twice asked, once done";
  EXPECT_TRUE(running.server->stop());
}

TEST(Server, CONSOLE_4_tokens_are_made_and_revoked_while_it_runs) {
  Running running;
  ASSERT_FALSE(running.failure);
  const auto made = running.ask(test::post(
      "sluice.token.create", R"({"name":"shop","permissions":["shop:echo.*"]})", running.bearer()));
  ASSERT_EQ(made.status, 200) << made.body;
  const auto at = made.body.find("slc_");
  ASSERT_NE(at, std::string::npos);
  const std::string shop = "Authorization: Bearer " + made.body.substr(at, 68) + "\r\n";
  EXPECT_EQ(running.ask(test::post("echo.run", "{}", shop + "Idempotency-Key: a\r\n")).status, 200);
  EXPECT_EQ(running.ask(test::post("sluice.token.list", "{}", shop)).status, 403);
  const std::string id = made.body.substr(made.body.find("\"id\":\"") + 6, 16);
  EXPECT_EQ(
      running.ask(test::post("sluice.token.revoke", "{\"id\":\"" + id + "\"}", running.bearer())).status,
      200);
  const auto refused = running.ask(test::post("echo.run", "{}", shop + "Idempotency-Key: a\r\n"));
  EXPECT_EQ(refused.status, 401);
  EXPECT_TRUE(refused.has("revoked_token"));
  EXPECT_EQ(running.ask(test::post("sluice.token.create", "{}", running.bearer())).status, 400);
}

TEST(Server, CONSOLE_5_a_token_of_one_app_neither_runs_the_servers_own_commands_nor_reads_another_app) {
  Running running;
  ASSERT_FALSE(running.failure);
  const auto token_for = [&](const std::string& permission) {
    const auto made = running.ask(test::post(
        "sluice.token.create", R"({"name":"t-)" + permission.substr(0, 4) + R"(","permissions":[")" + permission + "\"]}",
        running.bearer()));
    const auto at = made.body.find("slc_");
    EXPECT_NE(at, std::string::npos) << made.body;
    return "Authorization: Bearer " + made.body.substr(at, 68) + "\r\n";
  };
  const auto done = running.ask(test::post("echo.run", "{}", running.bearer() + "Idempotency-Key: a\r\n"));
  ASSERT_EQ(done.status, 200) << done.body;
  const std::string id = done.headers.at("x-sluice-transaction");

  // Naming one's own app makes a command of the server none of that app.
  const std::string bank = token_for("bank:*") + "X-Sluice-App: bank\r\n";
  const auto made = running.ask(
      test::post("sluice.token.create", R"({"name":"root","permissions":["*:*"]})", bank));
  EXPECT_EQ(made.status, 403) << made.body;
  for (const char* command : {"sluice.token.list", "sluice.token.revoke", "sluice.tx.settle", "sluice.idempotency.show",
                              "sluice.breakers.list", "sluice.tx.graph"})
    EXPECT_NE(running.ask(test::post(command, "{}", bank)).status / 100, 2) << command;
  EXPECT_EQ(running.ask(test::post("sluice.token.list", "{}", bank)).status, 403);
  EXPECT_EQ(running.ask(test::get("/v1/transactions/" + id, bank)).status, 403);
  EXPECT_FALSE(running.ask(test::get("/v1/transactions", bank)).has(id));

  const std::string shop = token_for("shop:transactions.read") + "X-Sluice-App: shop\r\n";
  EXPECT_EQ(running.ask(test::get("/v1/transactions/" + id, shop)).status, 200);
  EXPECT_TRUE(running.ask(test::get("/v1/transactions", shop)).has(id));
  EXPECT_TRUE(running.ask(test::get("/v1/transactions", running.bearer())).has(id));
  EXPECT_TRUE(running.server->stop());
}

TEST(Server, CONSOLE_4_a_token_lives_as_long_as_was_meant_or_is_not_made) {
  Running running;
  ASSERT_FALSE(running.failure);
  const auto make = [&](const std::string& rest, const char* name = "shop") {
    return running.ask(test::post("sluice.token.create", std::string(R"({"name":")") + name + R"(","permissions":["shop:*"],)" + rest + "}",
                                  running.bearer()));
  };
  // Half a second is not for ever; a misspelt end is no end; one past the clock is not one in the past.
  for (const char* bad : {R"("ttl_seconds":0.5)", R"("ttl_seconds":1e300)", R"("ttl_second":60)", R"("ttl_seconds":"60")",
                          R"("ttl_seconds":9223372036854775)", R"("ttl_seconds":9223372036854775807)",
                          R"("ttl_seconds":-1)"}) {
    const auto made = make(bad);
    EXPECT_EQ(made.status, 400) << bad << made.body;
  }
  EXPECT_EQ(make(R"("ttl_seconds":0)").status, 200);
  const auto century = make(R"("ttl_seconds":3153600000)", "till");
  ASSERT_EQ(century.status, 200) << century.body;
  const auto at = century.body.find("slc_");
  EXPECT_EQ(running.ask(test::get("/v1/commands", "Authorization: Bearer " + century.body.substr(at, 68) + "\r\n")).status, 200);
  EXPECT_EQ(running.ask(test::post("sluice.token.create", R"({"name":"a\nb"})", running.bearer())).status, 400);
  EXPECT_TRUE(running.server->stop());
}

TEST(Server, CONSOLE_6_a_key_used_for_another_request_is_audited) {
  Running running;
  ASSERT_FALSE(running.failure);
  const std::string key = running.bearer() + "Idempotency-Key: a\r\n";
  EXPECT_EQ(running.ask(test::post("echo.run", "{}", key)).status, 200);
  EXPECT_EQ(running.ask(test::post("echo.run", "[1]", key)).status, 422);
  auto& store = running.server->context().store;
  std::size_t found = 0;
  for (int batch = 0; batch < 3 && found == 0; ++batch) {
    ASSERT_TRUE(store::commit_and_wait(store, {}));  // what waits to be written is before it
    const auto rows = store::ask_now(store, store::ListAudit{});
    for (const auto& row : *rows)
      found += row.detail == "fingerprint_mismatch" && row.principal == "admin" ? 1u : 0u;
  }
  EXPECT_EQ(found, 1u);
  EXPECT_TRUE(running.server->stop());
}

TEST(Server, CONSOLE_1_transactions_and_health_are_served) {
  Running running;
  ASSERT_FALSE(running.failure);
  EXPECT_EQ(running.ask(test::get("/healthz")).status, 200);
  EXPECT_EQ(running.ask(test::get("/v1/transactions", running.bearer())).status, 200);
  EXPECT_EQ(running.ask(test::get("/v1/transactions/" + id_to_text(1), running.bearer())).status,
            404);
  EXPECT_TRUE(running.ask(test::get("/metrics")).has("sluice_http_responses_total"));
}

TEST(Server, CORE_11_a_running_server_purges_its_store) {
  Config config;
  config.purge.interval = milliseconds(1);
  Running running(config);
  ASSERT_FALSE(running.failure);
  bool purged = false;
  for (int i = 0; i < 10'000 && !purged; ++i)
    purged = !running.ask(test::get("/metrics")).has("sluice_purge_batches_total 0");
  EXPECT_TRUE(purged);
  EXPECT_TRUE(running.server->stop());
}

TEST(Server, CONSOLE_4_beyond_the_loopback_needs_an_explicit_word) {
  Config config;
  config.http.address = "0.0.0.0";
  Running running(config);
  ASSERT_TRUE(running.failure);
  EXPECT_EQ(running.failure->code(), "remote_not_allowed");
}

TEST(Server, CONSOLE_9_a_taken_port_fails_the_start) {
  Running first;
  ASSERT_FALSE(first.failure);
  Config config;
  config.store_kind = "memory";
  config.http.port = first.server->port();
  ServerParts parts;
  parts.logger = &null_logger();
  auto second = Server::open(config, std::move(parts));
  ASSERT_TRUE(second);
  const auto started = (*second)->start();
  ASSERT_FALSE(started);
  EXPECT_NE(started.error().detail().find("another process has this port"), std::string::npos);
}

}  // namespace
}  // namespace sluice::server
