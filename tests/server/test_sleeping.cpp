// FLOW-21: what sleeps until an answer from outside holds no thread and no permit, and keeps its turn.
#include <gtest/gtest.h>

#include <deque>

#include "server/gatekeeper.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/flow.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "support/any_store.hpp"

namespace sluice::server {
namespace {

class Sleeping : public testing::Test {
 protected:
  Sleeping() {
    registry.set_gatekeeper(&gate);
    flow::FlowOptions options;
    options.store = store.get();
    asks = std::make_unique<flow::Flow>("asks", std::move(options));
    asks->group("main", {flow::await_answer("host", flow::Effect::store,
                                            {.ask = [this](flow::Exchange& x) -> Status {
                                               asked.push_back(x.token());
                                               return {};
                                             },
                                             .answer = [](flow::Exchange&, ByteView) -> Result<flow::Vote> { return flow::Vote(); },
                                             .commit = {},
                                             .abort = {},
                                             .timeout = std::chrono::minutes(10)})});
    add("host.ask", rpc::flow_handler(*asks));
    add("plain", [this](rpc::Invocation& invocation) {
      ++plain_ran;
      invocation.finish(rpc::Answer::of(Reply::ok("{}")));
    });
  }
  ~Sleeping() override {
    settle();
    store->close();
    registry.set_gatekeeper(nullptr);
  }
  void add(std::string name, rpc::Handler handler) {
    rpc::CommandSpec spec;
    spec.name = std::move(name);
    spec.app = "shop";
    spec.idempotency = rpc::KeyUse::none;
    spec.anonymous = true;
    spec.ordering_key = [](const rpc::Command& command) { return command.payload; };
    spec.handler = std::move(handler);
    EXPECT_TRUE(registry.add(std::move(spec)));
  }
  /// True once it is answered.
  bool& send(std::string name, std::string ordering_key) {
    auto& invocation = invocations.emplace_back();
    invocation.command.name = std::move(name);
    invocation.command.ns = Namespace("shop");
    invocation.command.payload = std::move(ordering_key);
    invocation.lane = &lane;
    bool& done = answered.emplace_back(false);
    invocation.owner = &done;
    invocation.done = [](rpc::Invocation& i, rpc::Answer answer) noexcept {
      EXPECT_EQ(answer.kind, rpc::Answer::Kind::reply);
      *static_cast<bool*>(i.owner) = true;
    };
    registry.dispatch(invocation);
    settle();
    return done;
  }
  void settle() {
    while (lane.run_ready() != 0) {
    }
  }
  void wake(std::string token) {
    struct Asking : flow::PendingWake {};
    Asking asking;
    asking.ns = Namespace("shop");
    asking.token = std::move(token);
    asking.lane = &lane;
    asking.run = [](Job*) noexcept {};
    asks->wake(asking);
    settle();
    EXPECT_TRUE(asking.answer);
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  idempotency::Keys keys{clock, store.get()};
  IdSource ids{clock, 1};
  rpc::Registry registry{*store, keys, ids};
  GateLimits limits = [] {
    GateLimits one;
    one.permits = 1;
    return one;
  }();
  RegistryGate gate{limits, clock, nullptr};
  std::unique_ptr<flow::Flow> asks;
  std::vector<std::string> asked;
  std::deque<rpc::Invocation> invocations;
  std::deque<bool> answered;
  int plain_ran = 0;
};

TEST_F(Sleeping, FLOW_21_who_sleeps_gives_its_permit_and_its_thread_to_others_and_keeps_its_turn) {
  std::vector<bool*> sleepers;
  for (int i = 0; i < 100; ++i) sleepers.push_back(&send("host.ask", "order-" + std::to_string(i)));
  EXPECT_EQ(asked.size(), 100u) << "through one permit, because each gave it back";
  EXPECT_TRUE(send("plain", "another")) << "the one thread is free, and so is the permit";
  bool& behind = send("plain", "order-7");
  EXPECT_FALSE(behind) << "the one before it in its key is not over";
  EXPECT_EQ(plain_ran, 1);
  wake(asked[7]);
  EXPECT_TRUE(*sleepers[7]);
  EXPECT_TRUE(behind) << "its turn has come";
  for (int i = 0; i < 100; ++i)
    if (i != 7) wake(asked[static_cast<std::size_t>(i)]);
  for (const bool* one : sleepers) EXPECT_TRUE(*one);
  EXPECT_TRUE(send("plain", "order-7")) << "nothing is held when all is over";
}

}  // namespace
}  // namespace sluice::server
