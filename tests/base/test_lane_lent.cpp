// A lane whose driver sleeps is run by whoever posts: one at a time, nothing forgotten, and its
// driver has it back in time for timers, for its own wish and from jobs that never end.
#include <gtest/gtest.h>

#include "sim/clock.hpp"
#include "sluice/base/lane.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

struct Counter final : Waker {
  std::atomic<int> wakes{0};
  void wake() noexcept override { ++wakes; }
};

struct Call : Job {
  explicit Call(std::function<void()> w) : work(std::move(w)) {
    run = [](Job* job) noexcept { static_cast<Call*>(job)->work(); };
  }
  std::function<void()> work;
};

struct LaneLent : ::testing::Test {
  sim::SimClock clock;
  Lane lane{clock};
  Counter waker;
  int ran = 0;
  Call count{[this] { ++ran; }};
  void SetUp() override { lane.set_waker(&waker); }
};

TEST_F(LaneLent, WhoPostsRunsItHereAndWakesNobody) {
  ASSERT_TRUE(lane.lend(kNever));
  Lane* seen = nullptr;
  Call look([&] { seen = Lane::current(); });
  lane.post_or_run(look);
  EXPECT_EQ(seen, &lane);
  EXPECT_EQ(Lane::current(), nullptr);
  lane.post_or_run(count);
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(waker.wakes, 0);
}

TEST_F(LaneLent, UnlessItsDriverIsAwakeOrLendsNothing) {
  lane.post_or_run(count);
  EXPECT_EQ(ran, 0);
  EXPECT_FALSE(lane.lend(kNever)) << "a job waits";
  while (lane.run_ready() > 0) {
  }
  ASSERT_TRUE(lane.prepare_to_sleep());
  lane.post_or_run(count);
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(waker.wakes, 1);
}

TEST_F(LaneLent, NotFromAnotherLaneWhichWouldWaitForIt) {
  ASSERT_TRUE(lane.lend(kNever));
  Lane other(clock);
  other.post([&] { lane.post_or_run(count); });
  other.run_ready();
  EXPECT_EQ(ran, 0);
  EXPECT_EQ(waker.wakes, 1);
  ASSERT_TRUE(lane.take_back());
  lane.run_ready();
  EXPECT_EQ(ran, 1);
}

TEST_F(LaneLent, WhatOthersPostMeanwhileIsRunToo) {
  ASSERT_TRUE(lane.lend(kNever));
  Call busy([&] { Thread("other", [&] { lane.post_or_run(count); }).join(); });
  lane.post_or_run(busy);
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(waker.wakes, 0);
}

TEST_F(LaneLent, ATimerThatIsDueRunsAndAnEarlierOneWakesTheDriver) {
  Timer first, second;
  first.arm(lane, clock.now() + milliseconds(5), [](void* n) noexcept { ++*static_cast<int*>(n); }, &ran);
  const Instant until = lane.next_timer();
  ASSERT_TRUE(lane.lend(until));
  clock.advance(milliseconds(6));
  Call arm([&] {
    second.arm(lane, clock.now() + milliseconds(1), [](void* n) noexcept { ++*static_cast<int*>(n); }, &ran);
  });
  lane.post_or_run(arm);
  EXPECT_EQ(ran, 1);
  EXPECT_EQ(waker.wakes, 0) << "its driver wakes at the first timer's time anyway";
  ASSERT_TRUE(lane.take_back());
  while (lane.run_ready() > 0) {
  }
  ASSERT_TRUE(lane.lend(kNever)) << "a driver that would sleep too long";
  lane.post_or_run(count);
  EXPECT_EQ(waker.wakes, 1);
  ASSERT_TRUE(lane.take_back());
  clock.advance(milliseconds(2));
  lane.run_ready();
  EXPECT_EQ(ran, 3);
}

TEST_F(LaneLent, ADriverThatWantsItBackIsTold) {
  ASSERT_TRUE(lane.lend(kNever));
  bool at_once = true;
  Call driver_wakes([&] { at_once = lane.take_back(); });
  lane.post_or_run(driver_wakes);
  EXPECT_FALSE(at_once);
  EXPECT_EQ(waker.wakes, 1);
  lane.post_or_run(count);
  EXPECT_EQ(ran, 0) << "it is the driver's";
  ASSERT_TRUE(lane.take_back());
  lane.run_ready();
  EXPECT_EQ(ran, 1);
}

TEST_F(LaneLent, JobsThatNeverEndGoBackToTheDriver) {
  ASSERT_TRUE(lane.lend(kNever));
  Call again([] {});
  again.work = [&] {
    ++ran;
    lane.post(again);
  };
  lane.post_or_run(again);
  EXPECT_EQ(waker.wakes, 1);
  EXPECT_LT(ran, 10'000);
  EXPECT_TRUE(lane.take_back());
}

// Stress: posters that run the lane, posters that only post, and timers that call its driver back.
// `inside` is no atomic: two at once would be a race, a lost job ends the test by timeout.
TEST(LaneLentStress, OneAtATimeAndNothingForgotten) {
  constexpr int kPosters = 3, kRounds = 10'000;
  RealClock clock;
  LaneThread lane(clock);
  lane.start();
  int inside = 0, bad = 0, fired = 0;
  std::atomic<int> lost{0};
  {
    std::vector<Thread> posters;
    for (int poster = 0; poster < kPosters; ++poster)
      posters.emplace_back("poster", [&, poster] {
        Parker done;
        Timer timer;
        Call call([&] {
          if (inside++ != 0) ++bad;
          --inside;
          if (poster == 2) {
            timer.arm(lane.lane(), clock.now(), [](void* p) noexcept { static_cast<Parker*>(p)->wake(); }, &done);
            ++fired;
          } else {
            done.wake();
          }
        });
        const int rounds = poster == 2 ? kRounds / 10 : kRounds;
        for (int i = 0; i < rounds && lost == 0; ++i) {
          if (poster == 1)
            lane.lane().post(call);
          else
            lane.lane().post_or_run(call);
          if (!done.park(seconds(20))) ++lost;
        }
      });
  }
  lane.stop();
  lane.join();
  EXPECT_EQ(lost, 0);
  EXPECT_EQ(bad, 0);
  EXPECT_EQ(fired, kRounds / 10);
}

}  // namespace
}  // namespace sluice
