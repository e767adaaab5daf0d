// The breaker's sentences one by one, under virtual time and fixed randomness.
#include "sim/random.hpp"
#include "sluice/resilience/breaker.hpp"

namespace sluice::resilience {
namespace {

struct NoJitter final : Random {
  std::uint64_t next() noexcept override { return 0; }
  void secret(std::byte*, std::size_t) noexcept override {}
};

BreakerOptions small() {
  BreakerOptions options;
  options.window = BreakerWindow::count;
  options.window_calls = 10;
  options.minimum_calls = 4;
  options.isolation = seconds(1);
  options.isolation_max = seconds(5);
  options.trials = 3;
  return options;
}

struct BreakerTest : testing::Test {
  NoJitter random;
  Instant now{seconds(100)};

  void call(Breaker& breaker, Outcome outcome, Duration latency = milliseconds(1)) {
    auto permit = breaker.try_enter(now);
    ASSERT_TRUE(permit);
    permit->complete(outcome, latency, now);
  }
  void trip(Breaker& breaker) {
    for (int i = 0; i < 4; ++i) call(breaker, Outcome::failure);
    ASSERT_EQ(breaker.state(), BreakerState::open);
  }
};

TEST_F(BreakerTest, RES_10_below_the_minimum_it_never_trips_and_equality_trips) {
  Breaker breaker(small(), random);
  for (int i = 0; i < 3; ++i) call(breaker, Outcome::failure);
  EXPECT_EQ(breaker.state(), BreakerState::closed);
  Breaker equal(small(), random);
  for (const Outcome o : {Outcome::success, Outcome::success, Outcome::failure}) call(equal, o);
  EXPECT_EQ(equal.state(), BreakerState::closed);
  call(equal, Outcome::failure);
  EXPECT_EQ(equal.state(), BreakerState::open) << "2 of 4 is the ratio of 0.5";
}

// The guide says so: what counts is the window, not what the last call in it came to.
TEST_F(BreakerTest, RES_10_a_success_that_completes_the_minimum_is_judged_too) {
  Breaker breaker(small(), random);
  for (const Outcome o : {Outcome::failure, Outcome::failure, Outcome::success}) call(breaker, o);
  EXPECT_EQ(breaker.state(), BreakerState::closed);
  call(breaker, Outcome::success);
  EXPECT_EQ(breaker.state(), BreakerState::open);
}

TEST_F(BreakerTest, RES_10_slow_ratio_failure_count_and_consecutive_trip) {
  BreakerOptions slow = small();
  slow.failure_ratio = 0;
  slow.slow_ratio = 0.5;
  slow.slow_after = milliseconds(100);
  Breaker by_slow(slow, random);
  for (int i = 0; i < 2; ++i) call(by_slow, Outcome::success, milliseconds(99));
  for (int i = 0; i < 2; ++i) call(by_slow, Outcome::success, milliseconds(100));
  EXPECT_EQ(by_slow.state(), BreakerState::open);
  BreakerOptions count = small();
  count.failure_ratio = 0;
  count.failures = 3;
  Breaker by_count(count, random);
  for (int i = 0; i < 5; ++i) call(by_count, Outcome::success);
  for (int i = 0; i < 3; ++i) call(by_count, Outcome::failure);
  EXPECT_EQ(by_count.state(), BreakerState::open);
  BreakerOptions row = small();
  row.failure_ratio = 0;
  row.consecutive = 4;
  Breaker by_row(row, random);
  for (int i = 0; i < 3; ++i) call(by_row, Outcome::failure);
  call(by_row, Outcome::success);
  for (int i = 0; i < 3; ++i) call(by_row, Outcome::failure);
  EXPECT_EQ(by_row.state(), BreakerState::closed);
  call(by_row, Outcome::failure);
  EXPECT_EQ(by_row.state(), BreakerState::open);
}

TEST_F(BreakerTest, RES_10_count_window_forgets_the_oldest) {
  Breaker breaker(small(), random);
  for (int i = 0; i < 10; ++i) call(breaker, i == 0 ? Outcome::failure : Outcome::success);
  EXPECT_EQ(breaker.snapshot(now).window.failures, 1u);
  call(breaker, Outcome::success);
  EXPECT_EQ(breaker.snapshot(now).window.failures, 0u);
  EXPECT_EQ(breaker.snapshot(now).window.calls, 10u);
}

TEST_F(BreakerTest, RES_17_a_gap_longer_than_the_window_clears_it) {
  BreakerOptions options = small();
  options.window = BreakerWindow::time;
  options.window_time = seconds(10);
  Breaker breaker(options, random);
  for (int i = 0; i < 3; ++i) call(breaker, Outcome::failure);
  now += seconds(10);
  call(breaker, Outcome::failure);
  EXPECT_EQ(breaker.state(), BreakerState::closed);
  EXPECT_EQ(breaker.snapshot(now).window.calls, 1u);
  now -= seconds(9);  // a clock read late on another thread
  call(breaker, Outcome::failure);
  EXPECT_EQ(breaker.snapshot(now + seconds(9)).window.calls, 2u) << "counted in the newest slot";
}

TEST_F(BreakerTest, RES_10_time_window_slides_by_slots) {
  BreakerOptions options = small();
  options.window = BreakerWindow::time;
  options.window_time = seconds(10);
  Breaker breaker(options, random);
  for (int i = 0; i < 3; ++i) {
    call(breaker, Outcome::failure);
    now += seconds(4);
  }
  EXPECT_EQ(breaker.snapshot(now).window.calls, 2u) << "the first is 12 s old";
}

TEST_F(BreakerTest, RES_3_a_block_says_why_and_when_to_come_back) {
  Breaker breaker(small(), random);
  trip(breaker);
  now += milliseconds(400);
  const auto refused = breaker.try_enter(now);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().policy, Policy::breaker);
  EXPECT_EQ(refused.error().observed, 1.0);
  EXPECT_EQ(refused.error().threshold, 0.5);
  EXPECT_EQ(refused.error().retry_after, milliseconds(600));
  const Failure failure = to_failure(refused.error());
  EXPECT_EQ(failure.kind(), FailureKind::unavailable);
  EXPECT_EQ(failure.retry_after(), milliseconds(600));
}

TEST_F(BreakerTest, RES_11_half_open_admits_exactly_its_trials) {
  Breaker breaker(small(), random);
  trip(breaker);
  for (int round = 0; round < 2; ++round) {
    now += seconds(10);
    std::vector<Breaker::Permit> trials;
    for (int i = 0; i < 10; ++i) {
      auto permit = breaker.try_enter(now);
      ASSERT_EQ(permit.has_value(), i < 3) << i;
      if (permit) trials.push_back(std::move(*permit));
    }
    EXPECT_EQ(breaker.state(), BreakerState::half_open);
    trials[0].complete(Outcome::success, {}, now);
    EXPECT_FALSE(breaker.try_enter(now)) << "in total, not only at once";
    trials[1].complete(Outcome::failure, {}, now);
    trials[2].complete(Outcome::failure, {}, now);
    EXPECT_EQ(breaker.state(), BreakerState::open) << "entering it again restores the trials";
  }
  EXPECT_EQ(breaker.snapshot(now).blocked, 16u);
}

TEST_F(BreakerTest, RES_12_decides_as_soon_as_the_verdict_is_certain) {
  Breaker good(small(), random);
  trip(good);
  now += seconds(10);
  auto a = good.try_enter(now), b = good.try_enter(now), c = good.try_enter(now);
  a->complete(Outcome::success, {}, now);
  EXPECT_EQ(good.state(), BreakerState::half_open);
  b->complete(Outcome::success, {}, now);
  EXPECT_EQ(good.state(), BreakerState::closed) << "one failure left cannot make two of three";
  EXPECT_EQ(good.snapshot(now).window.calls, 0u);
  c->complete(Outcome::failure, {}, now);
  EXPECT_EQ(good.snapshot(now).window.calls, 0u) << "RES-14: of an earlier generation";
  EXPECT_EQ(good.snapshot(now).stale, 1u);
}

TEST_F(BreakerTest, RES_12_isolation_doubles_to_its_cap_and_starts_over_after_quiet) {
  Breaker breaker(small(), random);
  trip(breaker);
  for (const auto expected : {1, 2, 4, 5, 5}) {
    EXPECT_EQ(breaker.snapshot(now).open_until - now, seconds(expected));
    now += seconds(expected);
    auto a = breaker.try_enter(now), b = breaker.try_enter(now);
    a->complete(Outcome::failure, {}, now);
    b->complete(Outcome::failure, {}, now);
  }
  now += seconds(5);
  for (int i = 0; i < 2; ++i) call(breaker, Outcome::success);
  ASSERT_EQ(breaker.state(), BreakerState::closed);
  now += seconds(61);
  trip(breaker);
  EXPECT_EQ(breaker.snapshot(now).open_until - now, seconds(1));
}

TEST_F(BreakerTest, RES_12_jitter_only_shortens) {
  sim::SimRandom some(5);
  BreakerOptions options = small();
  options.isolation_jitter = 0.5;
  Duration shortest = seconds(9);
  for (int i = 0; i < 50; ++i) {
    Breaker breaker(options, some);
    trip(breaker);
    const Duration isolation = breaker.snapshot(now).transitions.back().isolation;
    EXPECT_LE(isolation, seconds(1));
    EXPECT_GE(isolation, milliseconds(500));
    shortest = std::min(shortest, isolation);
  }
  EXPECT_LT(shortest, milliseconds(700));
}

TEST_F(BreakerTest, RES_13_lost_trials_give_their_place_back) {
  Breaker breaker(small(), random);
  trip(breaker);
  now += seconds(10);
  {
    auto dropped = breaker.try_enter(now);
  }
  std::vector<std::expected<Breaker::Permit, Block>> hung;
  for (int i = 0; i < 3; ++i) hung.push_back(breaker.try_enter(now));
  EXPECT_TRUE(hung[2]) << "the dropped one gave its place back";
  EXPECT_FALSE(breaker.try_enter(now));
  now += seconds(30);
  auto after = breaker.try_enter(now);
  EXPECT_TRUE(after) << "hung trials expired";
  hung[0]->complete(Outcome::failure, {}, now);
  EXPECT_EQ(breaker.snapshot(now).trials_failed, 0u);
  EXPECT_EQ(breaker.snapshot(now).trials_running, 1u);
}

TEST_F(BreakerTest, RES_14_results_of_an_earlier_generation_count_for_nothing) {
  Breaker breaker(small(), random);
  auto early = breaker.try_enter(now), forgotten = breaker.try_enter(now);
  trip(breaker);
  now += seconds(1);
  auto trial = breaker.try_enter(now);
  early->complete(Outcome::failure, {}, now);
  forgotten->cancel();
  const BreakerSnapshot shown = breaker.snapshot(now);
  EXPECT_EQ(shown.trials_failed, 0u);
  EXPECT_EQ(shown.trials_running, 1u) << "and gives back no trial that is not its own";
  EXPECT_EQ(shown.stale, 1u);
  auto second = breaker.try_enter(now), third = breaker.try_enter(now);
  EXPECT_TRUE(second && third);
  EXPECT_FALSE(breaker.try_enter(now)) << "it minted none either";
}

TEST_F(BreakerTest, RES_15_cancelled_is_nothing_and_overloaded_is_not_consecutive) {
  BreakerOptions options = small();
  options.failure_ratio = 1.0;
  options.consecutive = 2;
  Breaker breaker(options, random);
  for (int i = 0; i < 5; ++i) call(breaker, Outcome::cancelled);
  EXPECT_EQ(breaker.snapshot(now).window.calls, 0u);
  for (int i = 0; i < 3; ++i) call(breaker, Outcome::success);
  call(breaker, Outcome::failure);
  call(breaker, Outcome::overloaded);
  EXPECT_EQ(breaker.snapshot(now).consecutive, 1u);
  EXPECT_EQ(breaker.snapshot(now).window.failures, 2u);
  call(breaker, Outcome::failure);
  EXPECT_EQ(breaker.state(), BreakerState::open);
}

TEST_F(BreakerTest, RES_16_forced_states_and_illegal_transitions) {
  Breaker breaker(small(), random);
  EXPECT_FALSE(breaker.force(BreakerState::half_open, now));
  EXPECT_FALSE(breaker.force(BreakerState::open, now));
  EXPECT_FALSE(breaker.force(BreakerState::closed, now));
  EXPECT_TRUE(breaker.force(BreakerState::forced_open, now));
  now += std::chrono::hours(24);
  EXPECT_FALSE(breaker.try_enter(now));
  EXPECT_TRUE(breaker.force(BreakerState::half_open, now));
  EXPECT_TRUE(breaker.try_enter(now));
  for (const auto passing : {BreakerState::forced_closed, BreakerState::metrics_only}) {
    EXPECT_TRUE(breaker.force(passing, now));
    for (int i = 0; i < 10; ++i) call(breaker, Outcome::failure);
    EXPECT_EQ(breaker.state(), passing);
    EXPECT_EQ(breaker.snapshot(now).window.failures, 10u);
  }
  EXPECT_TRUE(breaker.force(BreakerState::disabled, now));
  call(breaker, Outcome::success);
  EXPECT_EQ(breaker.snapshot(now).window.failures, 10u);
  EXPECT_TRUE(breaker.force(BreakerState::closed, now));
  EXPECT_EQ(breaker.snapshot(now).window.calls, 0u);
}

TEST_F(BreakerTest, RES_16_listeners_run_outside_the_lock_and_may_ask_the_breaker) {
  Breaker* self = nullptr;
  std::vector<BreakerTransition> seen;
  Breaker breaker(small(), random, [&](const BreakerTransition& t) {
    seen.push_back(t);
    EXPECT_EQ(self->snapshot(now).state, t.to);
    EXPECT_EQ(self->state(), t.to);
  });
  self = &breaker;
  trip(breaker);
  now += seconds(1);
  for (int i = 0; i < 2; ++i) call(breaker, Outcome::success);
  ASSERT_EQ(seen.size(), 3u);
  EXPECT_EQ(seen[0].reason, BreakerReason::failure_ratio);
  EXPECT_EQ(seen[1].reason, BreakerReason::isolation_over);
  EXPECT_EQ(seen[2].reason, BreakerReason::trials_passed);
  EXPECT_EQ(breaker.snapshot(now).transitions.size(), 3u);
}

TEST_F(BreakerTest, RES_40_reconfiguring_keeps_window_and_state) {
  Breaker breaker(small(), random);
  for (int i = 0; i < 3; ++i) call(breaker, Outcome::failure);
  BreakerOptions options = small();
  options.window_calls = 5;
  options.isolation = seconds(3);
  EXPECT_TRUE(breaker.reconfigure(options, now));
  EXPECT_EQ(breaker.snapshot(now).window.failures, 3u);
  call(breaker, Outcome::failure);
  EXPECT_EQ(breaker.state(), BreakerState::open);
  EXPECT_TRUE(breaker.reconfigure(small(), now));
  EXPECT_EQ(breaker.state(), BreakerState::open);
  EXPECT_EQ(breaker.snapshot(now).open_until - now, seconds(3));
  options.window = BreakerWindow::time;
  EXPECT_FALSE(breaker.reconfigure(options, now)) << "another kind of window starts empty";
}

TEST_F(BreakerTest, RES_13_fewer_trials_by_reload_do_not_wedge_half_open) {
  BreakerOptions many = small();
  many.trials = 8;
  Breaker breaker(many, random);
  trip(breaker);
  now += seconds(1);
  for (int i = 0; i < 3; ++i) call(breaker, Outcome::success);
  ASSERT_EQ(breaker.state(), BreakerState::half_open);
  breaker.reconfigure(small(), now);
  EXPECT_EQ(breaker.state(), BreakerState::closed);
}

}  // namespace
}  // namespace sluice::resilience
