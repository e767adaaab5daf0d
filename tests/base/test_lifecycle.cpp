// STREAM-12: running, draining, grace, cancel, closed; bounded, idempotent, observable. Virtual
// time, so that hours of grace cost nothing.
#include <gtest/gtest.h>

#include "sim/scheduler.hpp"
#include "sluice/base/lifecycle.hpp"

namespace sluice {
namespace {

struct Fake final : Component {
  Fake(std::string n, std::vector<std::string>& l) : text(std::move(n)), log(l) {}
  std::string_view name() const noexcept override { return text; }
  Status start() override {
    log.push_back("start " + text);
    if (fails) return fail(FailureKind::unavailable, "port_in_use", "port 80 is taken");
    return {};
  }
  void drain() noexcept override { log.push_back("drain " + text); }
  bool drained() noexcept override { return in_flight == 0; }
  void cancel() noexcept override {
    log.push_back("cancel " + text);
    if (!stubborn) in_flight = 0;
  }
  void stop() noexcept override { log.push_back("stop " + text); }
  std::string text;
  std::vector<std::string>& log;
  int in_flight = 0;
  bool fails = false;
  bool stubborn = false;
};

struct LifecycleTest : testing::Test {
  std::vector<std::string> log;
  Fake store{"store", log}, gate{"gate", log}, server{"server", log};
  sim::SimClock clock;
  sim::SimScheduler scheduler{clock, 1};
  Lane& lane = scheduler.add_lane("main");
  Lifecycle lifecycle{LifecycleOptions{.grace = seconds(10), .cancel_grace = seconds(2)}};
  void SetUp() override {
    for (Fake* fake : {&store, &gate, &server}) lifecycle.add(*fake);
  }
  Status shutdown() { return sim::run_task(scheduler, lane, lifecycle.shutdown()); }
};

TEST_F(LifecycleTest, StartsInOrderAndStopsInReverse) {
  EXPECT_EQ(lifecycle.state(), LifecycleState::created);
  ASSERT_TRUE(lifecycle.start());
  EXPECT_TRUE(lifecycle.accepting());
  EXPECT_TRUE(shutdown());
  EXPECT_EQ(lifecycle.state(), LifecycleState::stopped);
  EXPECT_EQ(log, (std::vector<std::string>{"start store", "start gate", "start server",
                                           "drain server", "stop server", "drain gate", "stop gate",
                                           "drain store", "stop store"}));
}

TEST_F(LifecycleTest, AFailedStartStopsWhatHadStartedAndNamesTheCulprit) {
  server.fails = true;
  const Status started = lifecycle.start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().detail(), "starting server: port 80 is taken");
  EXPECT_EQ(lifecycle.state(), LifecycleState::failed);
  EXPECT_EQ(log.back(), "stop store");
  EXPECT_EQ(std::ranges::count(log, "stop server"), 0);
  EXPECT_TRUE(shutdown());
}

TEST_F(LifecycleTest, STREAM_12_WorkInFlightGetsItsGrace) {
  ASSERT_TRUE(lifecycle.start());
  gate.in_flight = 1;
  scheduler.after(seconds(9), [&] {
    EXPECT_EQ(lifecycle.state(), LifecycleState::draining);
    EXPECT_EQ(lifecycle.busy_with(), "gate");
    gate.in_flight = 0;
  });
  EXPECT_TRUE(shutdown());
  EXPECT_EQ(std::ranges::count(log, "cancel gate"), 0);
}

TEST_F(LifecycleTest, STREAM_12_AfterTheGraceItIsCancelledWithinTheBound) {
  ASSERT_TRUE(lifecycle.start());
  server.in_flight = gate.in_flight = store.in_flight = 1;
  store.stubborn = true;
  const Instant begin = clock.now();
  const Status ended = shutdown();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().kind(), FailureKind::timeout);
  EXPECT_NE(ended.error().detail().find("server, gate, store"), std::string::npos);
  EXPECT_LE(clock.now() - begin, seconds(12) + milliseconds(200));
  EXPECT_EQ(log.back(), "stop store");
  EXPECT_EQ(lifecycle.state(), LifecycleState::stopped);
}

TEST_F(LifecycleTest, STREAM_12_ShutdownIsIdempotentAndLaterCallsWaitForTheFirst) {
  ASSERT_TRUE(lifecycle.start());
  gate.in_flight = 1;
  scheduler.after(seconds(5), [&] { gate.in_flight = 0; });
  const auto twice = [&]() -> Task<bool> {
    auto first = lifecycle.shutdown();
    auto second = lifecycle.shutdown();
    TaskContext& context = co_await current_context();
    TaskContext other = context;
    first.start(other, [](void*) noexcept {}, nullptr);
    const Status ended = co_await second;
    co_return ended.has_value() && first.done();
  };
  EXPECT_TRUE(sim::run_task(scheduler, lane, twice()));
  EXPECT_EQ(std::ranges::count(log, "drain gate"), 1);
  EXPECT_TRUE(shutdown());
  EXPECT_EQ(std::ranges::count(log, "stop store"), 1);
}

TEST_F(LifecycleTest, StoppedBeforeItStartedDoesNothing) {
  EXPECT_TRUE(shutdown());
  EXPECT_TRUE(log.empty());
  EXPECT_EQ(lifecycle.state(), LifecycleState::stopped);
}

}  // namespace
}  // namespace sluice
