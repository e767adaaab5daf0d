// The batch command through the registry, on a lane, over a store in memory (or the one that is asked for).
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "apps/voucher/batch.hpp"
#include "sluice/base/text.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "voucher/world.hpp"

namespace sluice::voucher {

using Json = nlohmann::json;

/// Another node of the same store, or this one after a restart.
struct Node {
  Node(World& world, std::uint16_t number, store::Store& on) : Node(world.clock, number, on) {}
  Node(Clock& clock, std::uint16_t number, store::Store& on, Downstream* downstream = nullptr)
      : ids(clock, number), keys(clock, &on), distribution(on, clock, ids, downstream), registry(on, keys, ids) {
    ids.advance_past(on.largest_id());
    rpc::CommandSpec spec;
    spec.name = "batch";
    spec.app = "voucher";
    spec.handler = [this](rpc::Invocation& i) { distribute_batch(i, distribution); };
    EXPECT_TRUE(registry.add(std::move(spec)));
  }
  IdSource ids;
  idempotency::Keys keys;
  Distribution distribution;
  rpc::Registry registry;
};

class VoucherBatchTest : public testing::Test {
 protected:
  World world;
  Lane lane{world.clock};
  IdSource ids{world.clock, 1};
  idempotency::Keys keys{world.clock, world.store.get()};
  std::unique_ptr<Distribution> distribution = std::make_unique<Distribution>(*world.store, world.clock, ids);
  rpc::Registry registry{*world.store, keys, ids};
  std::shared_ptr<rpc::Principal> admin = std::make_shared<rpc::Principal>();

  void SetUp() override {
    admin->id = "admin";
    admin->permissions = {"*:*"};
    rpc::CommandSpec spec;
    spec.name = "batch";
    spec.app = "voucher";
    spec.handler = [this](rpc::Invocation& i) { distribute_batch(i, *distribution); };
    ASSERT_TRUE(registry.add(std::move(spec)));
    rpc::CommandSpec restock;
    restock.name = "restock";
    restock.app = "voucher";
    restock.handler = rpc::flow_handler(distribution->restock());
    ASSERT_TRUE(registry.add(std::move(restock)));
  }

  void open_voucher(const std::string& id, std::int64_t stock, std::int64_t codes, std::int64_t user_quota = 1,
                    std::string region = "ALL", const std::function<void(Voucher&)>& adjust = {}) {
    Voucher v;
    v.id = id;
    v.name = id;
    v.region = std::move(region);
    v.from = world.clock.wall() - std::chrono::hours(1);
    v.to = world.clock.wall() + std::chrono::hours(1);
    v.value_minor = 500;
    v.currency = "EUR";
    v.stock = stock;
    v.user_quota = user_quota;
    v.day_quota = 1'000'000;
    v.budget_minor = 500 * 1'000'000;
    if (adjust) adjust(v);
    store::Commit commit;
    const std::string ns = "voucher";
    commit.then = {store::KvPut{voucher_key(ns, id), encode(v), {}}, store::KvPut{stock_key(ns, id), "", v.stock},
                   store::KvPut{budget_key(ns, id), "", v.budget_minor}, store::KvPut{pool_key(ns, id), "", codes}};
    for (std::int64_t n = 0; n < codes; ++n)
      commit.then.push_back(store::KvPut{code_key(ns, id, n), id + "-CODE-" + std::to_string(n), {}});
    ASSERT_TRUE(store::commit_and_wait(*world.store, std::move(commit)));
  }
  void add_user(const std::string& id) {
    User user;
    user.id = id;
    user.region = "DE";
    store::Commit commit;
    commit.then = {store::KvPut{user_key("voucher", id), encode(user), {}}};
    ASSERT_TRUE(store::commit_and_wait(*world.store, std::move(commit)));
  }

  struct Call : rpc::Invocation {
    std::optional<rpc::Answer> answer;
  };
  std::unique_ptr<Call> prepared(const std::string& key, const std::string& payload, const char* name = "batch") {
    auto call = std::make_unique<Call>();
    call->command.name = name;
    call->command.ns = Namespace("voucher");
    call->command.principal = admin;
    call->command.idempotency_key = key;
    call->command.payload = payload;
    call->lane = &lane;
    call->done = [](rpc::Invocation& i, rpc::Answer answer) noexcept { static_cast<Call&>(i).answer = std::move(answer); };
    return call;
  }
  std::unique_ptr<Call> start(const std::string& key, const std::string& payload, const char* name = "batch") {
    auto call = prepared(key, payload, name);
    auto* raw = call.get();
    lane.post([this, raw] { registry.dispatch(*raw); });
    return call;
  }
  void drive() {
    for (int quiet = 0; quiet < 3;) quiet = lane.run_ready() == 0 ? quiet + 1 : 0;
  }
  template <class T>
  T finish(Task<T> task) {
    CancelScope scope;
    TaskContext context{&lane, &scope, kNever};
    bool done = false;
    if (task.start(context, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &done)) done = true;
    drive();
    EXPECT_TRUE(done);
    return task.take();
  }
  Json send(const std::string& key, const std::string& payload, const char* name = "batch") {
    auto call = start(key, payload, name);
    drive();
    return said(*call);
  }
  std::unique_ptr<Call> start_on(Node& node, const std::string& key, const std::string& payload) {
    auto call = prepared(key, payload);
    auto* raw = call.get();
    lane.post([&node, raw] { node.registry.dispatch(*raw); });
    return call;
  }
  // The reply, or the code of what was told instead.
  Json said(const Call& call) {
    EXPECT_TRUE(call.answer);
    if (!call.answer || !call.answer->reply) return call.answer ? Json(std::string(call.answer->failure->code())) : Json();
    last_ = *call.answer->reply;
    auto reply = Reply::decode(last_);
    EXPECT_TRUE(reply);
    return reply->kind == FailureKind::none ? Json::parse(reply->body) : Json(reply->code);
  }
  static std::string batch(const std::string& id, const std::vector<std::pair<std::string, std::string>>& items,
                           const std::string& region = "DE") {
    Json json{{"request_id", id}, {"region", region}, {"items", Json::array()}};
    for (const auto& [user, voucher] : items) json["items"].push_back({{"user", user}, {"voucher", voucher}});
    return json.dump();
  }
  Bytes last_;
};

}  // namespace sluice::voucher
