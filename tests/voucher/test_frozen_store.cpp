// While the store does not answer, the lane that asked it serves others: no command of the three services
// stands still on it.
#include "apps/voucher/app.hpp"
#include "apps/voucher/code_service.hpp"
#include "apps/voucher/user_service.hpp"
#include "voucher/batch_fixture.hpp"
#include "voucher/slow_store.hpp"

namespace sluice::voucher {
namespace {

constexpr const char* kBatch = "voucher.ss.distribution.batch_distribute_voucher";

class FrozenStore : public VoucherBatchTest {
 protected:
  SlowStore slow{*world.store};
  Metrics metrics;
  flow::Flows flows;
  resilience::Guards guards{world.clock, world.random};
  std::map<std::string, server::ChannelConfig> channels;
  idempotency::Keys slow_keys{world.clock, &slow};
  rpc::Registry services{slow, slow_keys, ids};
  server::AppContext context{services, flows, slow, slow_keys, world.clock, world.random, ids, {&lane}, null_logger(), metrics, guards, channels, {}};
  std::vector<std::unique_ptr<server::App>> apps;

  void SetUp() override {
    VoucherBatchTest::SetUp();
    apps.push_back(make_app());
    apps.push_back(make_code_service());
    apps.push_back(make_user_service({}));
    for (auto& app : apps) ASSERT_TRUE(app->install(context));
    rpc::CommandSpec ping;
    ping.name = "ping";
    ping.idempotency = rpc::KeyUse::none;
    ping.handler = [](rpc::Invocation& i) { i.finish(rpc::Answer::of(Reply::ok("{}"))); };
    ASSERT_TRUE(services.add(std::move(ping)));
  }
  std::unique_ptr<Call> ask(const std::string& command, const std::string& payload, bool key = true) {
    auto call = prepared("key of " + command, payload, command.c_str());
    if (!key) call->command.idempotency_key.reset();
    auto* raw = call.get();
    lane.post([this, raw] { services.dispatch(*raw); });
    drive();
    return call;
  }
};

TEST_F(FrozenStore, VOUCHER_8_no_command_of_the_services_holds_up_its_lane) {
  open_voucher("v1", 10, 10);
  add_user("ann");
  slow.holding = true;
  std::vector<std::pair<std::string, std::unique_ptr<Call>>> calls;
  const auto begin = [&](const std::string& command, const std::string& payload, bool key = true) {
    calls.emplace_back(command, ask(command, payload, key));
  };
  begin(kBatch, batch("r1", {{"ann", "v1"}}));
  begin("voucher.catalogue.restock", R"({"voucher":"v1","stock":5})");
  begin("voucher.catalogue.get", R"({"voucher":"v1"})", false);
  begin(std::string(kGetCodes), R"({"owner":"shop","vouchers":["v1"],"count":5})");
  begin(std::string(kUserExists), R"({"users":["ann"]})", false);
  // Each answer lets one step go on; between any two of them the lane is free.
  for (int step = 0; step < 50 && !(slow.queries.empty() && slow.commits.empty()); ++step) {
    const auto ping = ask("ping", "{}", false);
    ASSERT_TRUE(ping->answer) << "step " << step;
    slow.answer();
    drive();
  }
  EXPECT_EQ(slow.blocked, 0) << "a stage asked the store and let nobody else run";
  for (auto& [command, call] : calls) {
    ASSERT_TRUE(call->answer) << command;
    EXPECT_FALSE(call->answer->failure) << command << ": " << call->answer->failure->to_string();
  }
  EXPECT_EQ(said(*calls[0].second)["results"][0]["status"], "issued") << said(*calls[0].second).dump();
  EXPECT_EQ(said(*calls[3].second)["segments"][0]["codes"].size(), 5u) << said(*calls[3].second).dump();
}

TEST_F(FrozenStore, VOUCHER_6_a_code_of_an_item_that_was_told_pending_is_held_by_nobody_once_that_is_over) {
  open_voucher("v1", 10, 2, 10);
  add_user("ann");
  Node node(world, 2, slow);
  const auto late = start_on(node, "k", batch("r1", {{"ann", "v1"}}));
  late->command.deadline = world.clock.now() + seconds(1);
  slow.hold_commits = true;
  drive();
  ASSERT_EQ(slow.commits.size(), 1u);
  world.clock.advance(seconds(2));
  drive();
  ASSERT_EQ(said(*late)["results"][0]["reason"], "pending") << said(*late).dump();
  // Another node takes the code meanwhile: the item would have to run again, and its time is over.
  ASSERT_EQ(send("k2", batch("r2", {{"ann", "v1"}}))["results"][0]["status"], "issued");
  slow.hold_commits = false;
  slow.answer();
  drive();
  const auto told = [&](const std::string& id) {
    const auto call = start_on(node, id, batch(id, {{"ann", "v1"}}));
    drive();
    return said(*call)["results"][0];
  };
  EXPECT_EQ(told("r3")["status"], "issued");
  EXPECT_EQ(told("r4").value("reason", ""), "no_code") << "none is left, and none is held";
  EXPECT_EQ(world.books().issued, 2);
}

TEST_F(FrozenStore, VOUCHER_6_the_codes_of_a_voucher_are_read_once_for_all_who_wait_for_them) {
  open_voucher("v1", 10, 10, 10);
  for (const char* user : {"ann", "ben", "cat"}) add_user(user);
  slow.holding = true;
  const auto call = ask(kBatch, batch("r1", {{"ann", "v1"}, {"ben", "v1"}, {"cat", "v1"}}));
  int reads = 0;
  for (int step = 0; step < 50 && !(slow.queries.empty() && slow.commits.empty()); ++step) {
    for (const auto* query : slow.queries)
      if (const auto* list = std::get_if<store::ListRows>(&query->query)) reads += list->collection == kAssigned;
    slow.answer();
    drive();
  }
  EXPECT_EQ(reads, 1);
  const Json results = said(*call)["results"];
  for (const auto& one : results) EXPECT_EQ(one["status"], "issued") << results.dump();
}

}  // namespace
}  // namespace sluice::voucher
