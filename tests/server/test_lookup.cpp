// Every id that a reply has shown can be asked for: state, command, time, audit.
#include <nlohmann/json.hpp>

#include "server/running.hpp"
#include "server/transaction_queries.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "support/temp_folder.hpp"
#include "support/any_store.hpp"

namespace sluice::server {
namespace {

using Json = nlohmann::json;

/// A flow in memory, and one that declines; both say what they are.
class PlainApp final : public App {
 public:
  std::string_view name() const noexcept override { return "plain"; }
  Status install(AppContext& context) override {
    memory_ = std::make_unique<flow::Flow>("plain.memory");
    memory_->group("main", {flow::func("go", [](flow::Exchange& x) -> Result<flow::Vote> {
                     x.respond(Reply::ok("{}"));
                     return flow::Vote();
                   })});
    flow::FlowOptions options;
    options.store = &context.store;
    declining_ = std::make_unique<flow::Flow>("plain.declining", std::move(options));
    declining_->group("main", {flow::func("go", [](flow::Exchange& x) -> Result<flow::Vote> {
                        x.respond(Reply::from(Failure(FailureKind::rejected, "no_thanks", "")));
                        x.abort("no_thanks");
                        return flow::Vote();
                      })});
    for (flow::Flow* flow : {memory_.get(), declining_.get()}) {
      rpc::CommandSpec spec;
      spec.name = flow->name();
      spec.app = "shop";
      spec.idempotency = rpc::KeyUse::optional;
      spec.handler = rpc::flow_handler(*flow);
      SLUICE_TRY(context.registry.add(std::move(spec)));
    }
    return {};
  }

 private:
  std::unique_ptr<flow::Flow> memory_, declining_;
};

struct Plain {
  explicit Plain(bool durable) {
    Config config;
    config.store_kind = durable ? "sqlite" : "memory";
    config.sqlite.path = folder.file("plain.db");
    config.http.port = 0;
    ServerParts parts;
    parts.logger = &null_logger();
    parts.apps.push_back(std::make_unique<PlainApp>());
    parts.first_token = [this](const std::string& token) { bearer = "Authorization: Bearer " + token + "\r\n"; };
    server = std::move(*Server::open(std::move(config), std::move(parts)));
    EXPECT_TRUE(server->start());
  }
  test::HttpResponse ask(const std::string& text) {
    test::HttpClient client(server->port());
    return client.ask(text).value_or(test::HttpResponse{});
  }
  Json get(const std::string& target) {
    return Json::parse(ask("GET " + target + " HTTP/1.1\r\nHost: x\r\n" + bearer + "\r\n").body);
  }
  testing_support::TempFolder folder;
  std::string bearer;
  std::unique_ptr<Server> server;
};

TEST(Lookup, FLOW_27_every_id_that_a_reply_has_shown_answers) {
  struct Case {
    std::string command, body, key, outcome;
  };
  const std::vector<Case> cases{{"kv.add", R"({"collection":"c","key":"k","delta":1})", "a", "committed"},
                                {"kv.add", R"({"collection":"c","key":"k","delta":-9,"floor":0})", "b", ""},
                                {"sluice.echo", R"({"x":1})", "", "committed"},
                                {"plain.memory", "{}", "", "committed"},
                                {"plain.memory", "{}", "c", "committed"},
                                {"plain.declining", "{}", "", "aborted"},
                                {"plain.declining", "{}", "d", "aborted"}};
  for (const bool durable : {false, true}) {
    SCOPED_TRACE(durable ? "sqlite" : "memory");
    Plain plain(durable);
    std::vector<std::string> with_key;
    for (const auto& one : cases) {
      SCOPED_TRACE(one.command + " " + one.key);
      const std::string key = one.key.empty() ? "" : "Idempotency-Key: " + one.key + "\r\n";
      for (const bool again : {false, true}) {
        if (again && key.empty()) continue;
        const auto reply = plain.ask(test::post(one.command, one.body, plain.bearer + key));
        const auto shown = reply.headers.find("x-sluice-transaction");
        if (shown == reply.headers.end()) continue;
        const Json tx = plain.get("/v1/transactions/" + shown->second);
        EXPECT_EQ(tx.value("id", ""), shown->second) << tx << reply.body;
        EXPECT_EQ(tx.value("command", ""), one.command);
        if (!one.outcome.empty()) EXPECT_EQ(tx.value("outcome", ""), one.outcome);
        EXPECT_GT(tx.value("began_ms", std::int64_t{0}), 0);
        ASSERT_TRUE(tx.contains("audit")) << tx;
        EXPECT_EQ(tx["audit"].value("outcome", ""), one.outcome == "aborted" ? "error" : tx["audit"].value("outcome", ""));
        if (!key.empty() && !again) with_key.push_back(shown->second);
      }
    }
    EXPECT_GE(with_key.size(), 3u);
    std::vector<std::string> listed;
    const auto all = plain.get("/v1/transactions?limit=50");
    for (const auto& tx : all["transactions"]) {
      listed.push_back(tx["id"]);
      EXPECT_NE(tx["command"], "sluice.token.create");
    }
    for (const auto& id : with_key) EXPECT_EQ(std::count(listed.begin(), listed.end(), id), 1) << id;
    EXPECT_TRUE(std::is_sorted(listed.rbegin(), listed.rend())) << "newest first";
    // Page by page it is the same list.
    std::vector<std::string> paged;
    std::string before;
    for (std::size_t page = 0; page < listed.size() + 1; ++page) {
      const Json rows = plain.get("/v1/transactions?limit=2" + before)["transactions"];
      for (const auto& tx : rows) paged.push_back(tx["id"]);
      if (rows.empty()) break;
      before = "&before=" + paged.back();
    }
    EXPECT_EQ(paged, listed);
    EXPECT_EQ(plain.get("/v1/transactions/0000000000001")["code"], "no_transaction");
  }
}

TEST(Lookup, FLOW_27_what_is_not_over_is_chosen_by_app_before_it_is_counted_and_comes_in_pages) {
  sim::SimClock clock;
  sim::SimRandom random{1};
  const auto store = store::make_memory_store(clock, random);
  idempotency::Keys keys(clock, store.get());
  IdSource ids(clock, 1);
  rpc::Registry registry(*store, keys, ids);
  const flow::Flows flows;
  Lane reader(clock);
  TransactionQueries queries(*store, flows, registry, clock, reader);
  Lane lane(clock);
  store::Commit commit;
  for (std::uint64_t i = 1; i <= 9; ++i) {
    store::OpenPut put;
    put.row.exchange = {i};
    put.row.ns = i == 1 || i > 7 ? "shop" : "bank";
    put.row.state = store::OpenState::in_doubt;
    commit.then.emplace_back(std::move(put));
  }
  ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
  const auto listed = [&](std::uint64_t before) {
    transport::TransactionQuery query;
    query.state = "in_doubt";
    query.limit = 2;
    query.before = {before};
    query.principal = std::make_shared<rpc::Principal>(rpc::Principal{"shop", {"shop:*"}, false});
    query.lane = &lane;
    std::string body;
    queries.answer(query, [&body](Result<std::string> json) { body = json ? *json : json.error().to_string(); });
    while (reader.run_ready() + lane.run_ready() != 0) {
    }
    std::vector<std::string> found;
    for (const auto& tx : Json::parse(body)["transactions"]) found.push_back(tx["id"]);
    return found;
  };
  using Ids = std::vector<std::string>;
  EXPECT_EQ(listed(0), (Ids{id_to_text(9), id_to_text(8)}));
  EXPECT_EQ(listed(8), (Ids{id_to_text(1)}));
  store->close();
}

// An exchange that no flow of this server knows: found at the start, in doubt after the sweep.
TEST(Readiness, FLOW_24_what_is_left_to_recover_is_told) {
  Config config;
  config.http.port = 0;
  testing_support::TempFolder folder;
  config.sqlite.path = folder.file("open.db");
  {
    RealClock clock;
    RealRandom random;
    RealExecutor executor{clock};
    auto store = std::move(*open_store(config, clock, random, executor));
    store::Commit commit;
    for (const std::uint64_t id : {7u, 8u, 9u})
      commit.then.push_back(store::OpenPut{{.exchange = ExchangeId{id}, .ns = "shop", .flow = "gone"}});
    ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
    store->close();
  }
  ServerParts parts;
  parts.logger = &null_logger();
  auto server = std::move(*Server::open(std::move(config), std::move(parts)));
  ASSERT_TRUE(server->start());
  const auto get = [&](const char* target) {
    test::HttpClient client(server->port());
    const auto answer = client.ask("GET " + std::string(target) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return answer ? answer->body : std::string();
  };
  const auto recovery = [&] { return Json::parse(get("/readyz"))["recovery"]; };
  EXPECT_EQ(recovery()["found"], 3);
  EXPECT_TRUE(wait_until([&] { return recovery()["left"] == 0 && recovery()["in_doubt"] == 3; })) << recovery();
  EXPECT_NE(get("/metrics").find("sluice_recovery_in_doubt 3"), std::string::npos);
  EXPECT_NE(get("/metrics").find("sluice_recovery_left 0"), std::string::npos);
}

// Among very many others, by its time; and when the clock was set back in between.
TEST(Lookup, FLOW_27_an_audit_row_is_found_among_many) {
  sim::SimClock clock;
  sim::SimRandom random(1);
  auto store = testing_support::make_any_store(clock, random);
  IdSource ids(clock, 1);
  std::vector<ExchangeId> made;
  for (int i = 0; i < 6000; ++i) {
    if (i == 3000) clock.advance(seconds(60));
    if (i == 5500) clock.step_wall(-std::chrono::hours(1));
    made.push_back(ids.exchange());
    store::Commit commit;
    commit.then = {store::AuditAppend{{.ns = "shop", .command = "c", .exchange = made.back()}}};
    ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
    if (i % 10 == 0) clock.advance(milliseconds(7));
  }
  for (const int i : {0, 1, 2999, 3000, 4242, 5501, 5999}) {
    const auto row = flow::audit_of(*store, made[static_cast<std::size_t>(i)]);
    ASSERT_TRUE(row && *row) << i;
    EXPECT_EQ((*row)->exchange, made[static_cast<std::size_t>(i)]);
  }
  const auto none = flow::audit_of(*store, ids.exchange());
  EXPECT_TRUE(none && !*none);
  const auto page = flow::list_transactions(*store, made[3000], 5);
  ASSERT_TRUE(page);
  ASSERT_EQ(page->size(), 5u);
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ((*page)[i].exchange, made[2999 - i]);
}

}  // namespace
}  // namespace sluice::server
