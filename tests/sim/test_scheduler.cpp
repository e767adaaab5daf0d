#ifndef SLUICE_PROBES
#define SLUICE_PROBES
#endif
#include <gtest/gtest.h>

#include <set>

#include "sim/scheduler.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::sim {
namespace {

Task<int> count_to(int n, Duration pause) {
  int sum = 0;
  for (int i = 0; i < n; ++i) {
    co_await sleep_for(pause);
    ++sum;
  }
  co_return sum;
}

struct Way {
  std::uint64_t hash = 0;
  std::vector<std::string> order;
};

// Two lanes, a worker and events that talk to each other.
Way play(std::uint64_t seed) {
  Way run;
  SimClock clock;
  History history;
  SimScheduler scheduler(clock, seed, &history);
  Lane& a = scheduler.add_lane("a");
  Lane& b = scheduler.add_lane("b");
  int worked = 0;
  auto worker = scheduler.start("worker", [&]() noexcept {
    run.order.push_back("worker");
    if (++worked < 10) b.post([&] { run.order.push_back("b"); });
    return worked < 10 ? clock.now() + milliseconds(3) : kNever;
  });
  for (int i = 0; i < 10; ++i) {
    a.post([&] {
      run.order.push_back("a");
      worker->wake();
    });
    scheduler.after(milliseconds(i), [&] { run.order.push_back("event"); });
  }
  EXPECT_TRUE(scheduler.run_to(clock.now() + seconds(5), 10'000));
  run.hash = history.hash();
  return run;
}

TEST(SimScheduler, TheSameSeedTakesTheSameWayAndOthersTakeOthers) {
  std::set<std::uint64_t> ways;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const Way once = play(seed), again = play(seed);
    ASSERT_EQ(once.hash, again.hash);
    ASSERT_EQ(once.order, again.order);
    ways.insert(once.hash);
  }
  EXPECT_EQ(ways.size(), 50u);
}

TEST(SimScheduler, HoursOfSleepTakeNoTimeAtAll) {
  SimClock clock;
  SimScheduler scheduler(clock, 1);
  Lane& lane = scheduler.add_lane("lane");
  const Instant begin = clock.now();
  EXPECT_EQ(run_task(scheduler, lane, count_to(48, std::chrono::hours(1))), 48);
  EXPECT_GE(clock.now() - begin, std::chrono::hours(48));
  EXPECT_LT(scheduler.steps(), 2000u);
}

TEST(SimScheduler, WorkersAreStoppedByDestructionAndWakesAreRemembered) {
  SimClock clock;
  SimScheduler scheduler(clock, 1);
  int steps = 0;
  std::unique_ptr<Worker> worker;
  worker = scheduler.start("w", [&]() noexcept {
    if (++steps == 1) worker->wake();
    return kNever;
  });
  while (scheduler.step()) {
  }
  EXPECT_EQ(steps, 2);
  worker->wake();
  worker.reset();
  EXPECT_FALSE(scheduler.step());
  EXPECT_EQ(steps, 2);
}

TEST(SimScheduler, ABoundOfStepsEndsWhatWouldRunForEver) {
  SimClock clock;
  SimScheduler scheduler(clock, 1);
  auto spinner = scheduler.start("spin", [&]() noexcept { return Instant(); });
  EXPECT_FALSE(scheduler.run_until([] { return false; }, 1000));
}

TEST(Probes, CountTheirHitsUnderTheirName) {
  EXPECT_FALSE(probe_hits().contains("test.rare"));
  for (int i = 0; i < 3; ++i) SLUICE_PROBE("test.rare");
  SLUICE_PROBE("test.rare");
  EXPECT_EQ(probe_hits().at("test.rare"), 4u);
}

}  // namespace
}  // namespace sluice::sim
