// Lanes: order, wake-ups, what happens to work that never ran. Threads here use base's runtime.
#include <gtest/gtest.h>

#include "sim/clock.hpp"
#include "sluice/base/lane.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

TEST(LaneQueue, RunsInTheOrderPostedAlsoWhenJobsPost) {
  sim::SimClock clock;
  Lane lane(clock);
  std::vector<int> ran;
  lane.post([&] {
    ran.push_back(1);
    lane.post([&] { ran.push_back(3); });
    lane.post([&] { ran.push_back(4); });
  });
  lane.post([&] { ran.push_back(2); });
  while (lane.run_ready() > 0) {
  }
  EXPECT_EQ(ran, (std::vector{1, 2, 3, 4}));
}

TEST(LaneQueue, ALimitLeavesTheRestForTheNextTurn) {
  sim::SimClock clock;
  Lane lane(clock);
  int ran = 0;
  for (int i = 0; i < 10; ++i) lane.post([&] { ++ran; });
  EXPECT_EQ(lane.run_ready(4), 4u);
  EXPECT_EQ(ran, 4);
  EXPECT_FALSE(lane.prepare_to_sleep());
  EXPECT_EQ(lane.run_ready(100), 6u);
  EXPECT_TRUE(lane.prepare_to_sleep());
}

TEST(LaneQueue, AJobThatPostsItselfForEverDoesNotStarveOthers) {
  sim::SimClock clock;
  Lane lane(clock);
  int turns = 0;
  bool other = false;
  std::function<void()> again = [&] {
    ++turns;
    lane.post([&] { again(); });
  };
  lane.post([&] { again(); });
  lane.run_ready(16);
  lane.post([&] { other = true; });
  lane.run_ready(16);
  EXPECT_TRUE(other);
  EXPECT_EQ(turns, 31);
}

TEST(LaneQueue, CurrentIsTheLaneOnlyWhileItRuns) {
  sim::SimClock clock;
  Lane outer(clock), inner(clock);
  std::vector<Lane*> seen;
  inner.post([&] { seen.push_back(Lane::current()); });
  outer.post([&] {
    inner.run_ready();
    seen.push_back(Lane::current());
  });
  outer.run_ready();
  seen.push_back(Lane::current());
  EXPECT_EQ(seen, (std::vector<Lane*>{&inner, &outer, nullptr}));
}

TEST(LaneQueue, DestroyedItDropsCallablesAndLeavesIntrusiveJobsAlone) {
  sim::SimClock clock;
  auto held = std::make_shared<int>(1);
  auto job = std::make_unique<Job>();
  job->run = [](Job*) noexcept { FAIL() << "a destroyed lane ran a job"; };
  {
    Lane lane(clock);
    lane.post([held] {});
    lane.post(*job);
    lane.post([held] {});
    job.reset();  // as when a task is destroyed with its answer on the way
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(LaneQueue, ThePosterWakesASleeperExactlyOnce) {
  struct Counter final : Waker {
    std::atomic<int> wakes{0};
    void wake() noexcept override { ++wakes; }
  } counter;
  sim::SimClock clock;
  Lane lane(clock);
  lane.set_waker(&counter);
  lane.post([] {});
  EXPECT_EQ(counter.wakes, 0);
  EXPECT_FALSE(lane.prepare_to_sleep());
  lane.run_ready();
  EXPECT_TRUE(lane.prepare_to_sleep());
  lane.post([] {});
  lane.post([] {});
  EXPECT_EQ(counter.wakes, 1);
}

// Interleaving stress: the driver goes to sleep as often as it can, posters post one at a time and
// wait for the answer, so any lost wake-up ends the test by timeout.
TEST(LaneQueue, NoWakeIsLostBetweenGoingToSleepAndPosting) {
  constexpr int kPosters = 2, kRounds = 10'000;
  RealClock clock;
  LaneThread lane(clock);
  lane.start();
  std::atomic<int> lost{0};
  {
    std::vector<Thread> posters;
    for (int poster = 0; poster < kPosters; ++poster)
      posters.emplace_back("poster", [&] {
        struct Call : Job {
          Parker done;
        } call;
        call.run = [](Job* job) noexcept { static_cast<Call*>(job)->done.wake(); };
        for (int i = 0; i < kRounds && lost == 0; ++i) {
          lane.lane().post(call);
          if (!call.done.park(seconds(20))) ++lost;
        }
      });
  }
  EXPECT_EQ(lost, 0);
}

}  // namespace
}  // namespace sluice
