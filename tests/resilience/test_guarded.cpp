// Whole guarded calls under the deterministic scheduler: waits, timeouts,
// retries within one budget, a hung dependency, and that nothing is kept by calls that end badly.
#include <list>

#include "resilience/guarded_fixture.hpp"

namespace sluice::resilience {
namespace {

TEST_F(GuardedTest, RES_30_retries_only_with_a_key_or_where_the_rule_says_safe) {
  load("[guard.a.retry]\nattempts = 3\nbase = \"1ms\"\nbudget_tokens = 1000\n");
  EXPECT_FALSE(run(guard({}, FailureKind::unavailable)));
  EXPECT_EQ(calls, 1);
  EXPECT_FALSE(run(guard({}, FailureKind::unavailable, with_key())));
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(shown().retries, 2u);
  EXPECT_EQ(shown().hedges, 0u);
  load("[guard.a.retry]\nattempts = 3\nbase = \"1ms\"\nsafe = true\nbudget_tokens = 1000\n");
  EXPECT_FALSE(run(guard({}, FailureKind::unavailable)));
  EXPECT_EQ(calls, 7);
}

TEST_F(GuardedTest, RES_32_timeout_cuts_each_attempt_and_counts_as_failure) {
  load(std::string(kGuardedBreaker) + "[guard.a.timeout]\ntimeout = \"50ms\"\nmargin = \"5ms\"\n");
  const Instant start = clock.now();
  const auto late = run(guard(seconds(9)));
  EXPECT_EQ(late.error().kind(), FailureKind::timeout);
  EXPECT_LT(clock.now() - start, milliseconds(55));
  EXPECT_EQ(told_deadline, start + milliseconds(45));
  EXPECT_EQ(shown().breaker->window.failures, 1u);
  EXPECT_EQ(running, 0);
}

TEST_F(GuardedTest, RES_7_an_observed_timeout_is_counted_and_cuts_nothing) {
  load("[guard.a.timeout]\nmode = \"observe\"\ntimeout = \"50ms\"\n");
  EXPECT_TRUE(run(guard(milliseconds(80))));
  EXPECT_EQ(shown().policies[0].would_block, 1u);
}

TEST_F(GuardedTest, RES_13_throwing_and_cancelled_trials_give_their_places_back) {
  load(std::string(kGuardedBreaker) + "[guard.a.bulkhead]\nlimit = 2\n");
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(run(guard({}, FailureKind::unavailable)));
  clock.advance(seconds(2));
  for (int i = 0; i < 5; ++i)
    EXPECT_THROW((void)run(guard(milliseconds(1), {}, {}, true)), std::runtime_error);
  for (int i = 0; i < 5; ++i) {
    CancelScope scope;
    scheduler.after(milliseconds(3), [&] { lane.post([&] { scope.cancel(); }); });
    EXPECT_EQ(run(guard(seconds(5)), &scope).error().kind(), FailureKind::cancelled);
  }
  EXPECT_EQ(shown().breaker->state, BreakerState::half_open);
  EXPECT_EQ(shown().breaker->trials_running, 0u);
  EXPECT_EQ(shown().bulkhead->in_flight, 0u);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(run(guard()));
  EXPECT_EQ(shown().breaker->state, BreakerState::closed);
}

TEST_F(GuardedTest, RES_15_a_declared_benign_failure_is_a_success) {
  load(kGuardedBreaker);
  GuardedCall call;
  call.outcome = [](const Failure&) { return Outcome::success; };
  for (int i = 0; i < 8; ++i) EXPECT_FALSE(run(guard({}, FailureKind::unavailable, call)));
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(run(guard({}, FailureKind::not_found)));
  EXPECT_EQ(shown().breaker->window.failures, 0u);
}

TEST_F(GuardedTest, RES_20_pacing_waits_on_the_lane) {
  load("[guard.a.pacing]\nlimit = 100\nmax_wait = \"1s\"\n");
  const Instant start = clock.now();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(run(guard()));
  EXPECT_GE(clock.now() - start, milliseconds(20));
  Task<Result<int>> hurried = with_deadline(guard(), clock.now() + milliseconds(5));
  const auto refused = run(std::move(hurried));
  EXPECT_EQ(refused.error().code(), "blocked_by_pacing") << "no wait past the deadline";
}

TEST_F(GuardedTest, RES_21_a_turn_that_would_come_too_late_takes_nothing) {
  load("[guard.a.pacing]\nlimit = 100\nmax_wait = \"1s\"\n[guard.a.rate]\nlimit = 5\nperiod = \"1h\"\n"
       "[guard.a.hot_keys]\nlimit = 5\nperiod = \"1h\"\n");
  GuardedCall call;
  call.hot_key = "k";
  const Instant start = clock.now();
  EXPECT_TRUE(run(guard({}, {}, call)));
  for (int i = 0; i < 20; ++i) {
    Task<Result<int>> hurried = with_deadline(guard({}, {}, call), clock.now() + milliseconds(5));
    EXPECT_EQ(run(std::move(hurried)).error().code(), "blocked_by_pacing");
  }
  EXPECT_EQ(shown().tokens, 4u) << "a refusal kept tokens";
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(run(guard({}, {}, call))) << "a refusal kept the key's quota";
  EXPECT_EQ(clock.now() - start, milliseconds(40)) << "a refusal kept a turn";
  EXPECT_EQ(counts_of(Policy::pacing), 20u);
}

TEST_F(GuardedTest, RES_20_a_turn_is_not_waited_for_again_after_the_queue) {
  load("[guard.a.pacing]\nlimit = 10\nmax_wait = \"1s\"\n[guard.a.bulkhead]\nlimit = 1\nmax_queue = 2\nmax_wait = \"1s\"\n");
  const Instant start = clock.now();
  Instant began_second{};
  Task<Result<int>> first = guard(milliseconds(80));
  Task<Result<int>> second = guarded(protector, GuardedCall{}, random, [&](AttemptNote&) {
    began_second = clock.now();
    return work({}, {});
  });
  const TaskContext context{&lane, nullptr, kNever};
  bool one = false, two = false;
  const auto done = [](void* flag) noexcept { *static_cast<bool*>(flag) = true; };
  TaskContext contexts[] = {context, context};
  one = first.start(contexts[0], done, &one);
  two = second.start(contexts[1], done, &two);
  ASSERT_TRUE(scheduler.run_until([&] { return one && two; }, 10'000));
  EXPECT_TRUE(first.take());
  EXPECT_TRUE(second.take());
  EXPECT_EQ(began_second - start, milliseconds(100));
}

TEST_F(GuardedTest, RES_4_who_leaves_while_waiting_for_a_turn_gives_back_turn_and_tokens) {
  load("[guard.a.pacing]\nlimit = 1\nmax_wait = \"5s\"\n[guard.a.rate]\nlimit = 2\nperiod = \"1h\"\n"
       "[guard.a.hot_keys]\nlimit = 2\nperiod = \"1h\"\n");
  GuardedCall call;
  call.hot_key = "v";
  EXPECT_TRUE(run(guard({}, {}, call)));
  CancelScope scope;
  scheduler.after(milliseconds(10), [&] { lane.post([&] { scope.cancel(); }); });
  EXPECT_EQ(run(guard({}, {}, call), &scope).error().kind(), FailureKind::cancelled);
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(shown().tokens, 1u) << "it was not called";
  const Instant before = clock.now();
  EXPECT_TRUE(run(guard({}, {}, call))) << "nor are the value's calls used up";
  EXPECT_LE(clock.now() - before, seconds(1)) << "its turn is the next one's";
}

TEST_F(GuardedTest, RES_16_forced_open_stops_also_those_who_wait_for_their_turn) {
  load("[guard.a.breaker]\n[guard.a.pacing]\nlimit = 1\nmax_wait = \"5s\"\n[guard.a.bulkhead]\nlimit = 10\n");
  EXPECT_TRUE(run(guard()));
  scheduler.after(milliseconds(10), [&] { ASSERT_TRUE(guards.force("a", false, BreakerState::forced_open, "ann", "stop it")); });
  const auto refused = run(guard());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "blocked_by_breaker");
  EXPECT_EQ(calls, 1) << "the dependency was called after the order";
  EXPECT_EQ(counts_of(Policy::breaker), 1u);
  EXPECT_EQ(shown().bulkhead->in_flight, 0u);
}

// RES-22 and the hung dependency: 40 callers, 3 places, a queue of 10; all are answered in time.
TEST_F(GuardedTest, RES_22_a_hung_dependency_holds_callers_only_for_a_bounded_time) {
  load(
      "[guard.a.bulkhead]\nlimit = 3\nmax_queue = 10\nmax_wait = \"100ms\"\n"
      "[guard.a.timeout]\ntimeout = \"60ms\"\n");
  struct Caller {
    Task<Result<int>> task;
    TaskContext context;
    std::optional<FailureKind> answer;
    static void done(void* self) noexcept {
      auto* caller = static_cast<Caller*>(self);
      const auto result = caller->task.take();
      caller->answer = result ? FailureKind::none : result.error().kind();
    }
  };
  std::list<Caller> callers;
  const Instant start = clock.now();
  for (int i = 0; i < 40; ++i) {
    Caller& caller = callers.emplace_back();
    caller.context = {&lane, nullptr, kNever};
    caller.task = guard(std::chrono::hours(1));
    if (caller.task.start(caller.context, &Caller::done, &caller)) Caller::done(&caller);
  }
  ASSERT_TRUE(scheduler.run_until(
      [&] { return std::ranges::all_of(callers, [](auto& c) { return c.answer.has_value(); }); },
      100'000));
  EXPECT_LT(clock.now() - start, milliseconds(180));
  int refused = 0;
  for (const Caller& caller : callers) refused += caller.answer == FailureKind::overloaded;
  EXPECT_GE(refused, 27);
  EXPECT_EQ(most_running, 3);
  EXPECT_EQ(running, 0);
  EXPECT_EQ(shown().bulkhead->in_flight, 0u);
}

// 10 times the load on a half-dead dependency: what it sees stays within 1.2 times what is offered.
TEST_F(GuardedTest, RES_30_a_retry_storm_is_bounded_by_the_budget) {
  load(
      "[guard.a.retry]\nattempts = 4\nbase = \"1ms\"\nmax = \"2ms\"\n"
      "[guard.a.hedge]\ndelay = \"1ms\"\n");
  constexpr int kOffered = 5000;
  int answered = 0;
  for (int i = 0; i < kOffered; ++i) {
    const bool dead = random.one_in(2);
    answered +=
        run(guard(milliseconds(random.below(4)),
                  dead ? std::optional(FailureKind::unavailable) : std::nullopt, with_key()))
            .has_value();
  }
  EXPECT_LE(calls, kOffered * 12 / 10);
  EXPECT_GT(answered, kOffered * 4 / 10);
}

// Down for five seconds, then well: all calls pass within two isolations, whatever the streak was.
TEST_F(GuardedTest, RES_12_full_service_within_two_isolations_of_a_return) {
  load(
      "[guard.a.breaker]\nminimum_calls = 5\nisolation = \"50ms\"\nisolation_max = \"200ms\"\n"
      "trials = 2\n");
  const auto call_for = [&](Duration time, bool well) {
    Instant last_failure{};
    for (const Instant end = clock.now() + time; clock.now() < end; clock.advance(milliseconds(5)))
      if (!run(guard({}, well ? std::nullopt : std::optional(FailureKind::unavailable))))
        last_failure = clock.now();
    return last_failure;
  };
  call_for(seconds(5), false);
  EXPECT_LT(calls, 100) << "of a thousand offered";
  const Instant returned = clock.now();
  EXPECT_LE(call_for(seconds(2), true) - returned, milliseconds(400));
}

TEST_F(GuardedTest, RES_31_hedging_and_retrying_settle_with_the_budget_once) {
  load("[guard.a.hedge]\ndelay = \"5ms\"\nextra = 1\n[guard.a.retry]\nattempts = 1\n");
  EXPECT_FALSE(run(guard({}, FailureKind::unavailable, with_key())));
  EXPECT_EQ(calls, 2);
  EXPECT_NEAR(protector.budget().tokens(), 8, 0.001);
  EXPECT_EQ(shown().hedges, 1u);
  EXPECT_EQ(shown().retries, 0u);
  EXPECT_TRUE(run(guard({}, {}, with_key())));
  EXPECT_NEAR(protector.budget().tokens(), 8.1, 0.001);
}

TEST_F(GuardedTest, RES_31_hedges_by_quantile_only_after_warming_up) {
  load("[guard.a.hedge]\nquantile = 0.9\nwarm_up = 50\n[guard.a.retry]\nattempts = 1\n");
  for (int i = 0; i < 49; ++i) EXPECT_TRUE(run(guard(milliseconds(10), {}, with_key())));
  EXPECT_TRUE(run(guard(milliseconds(500), {}, with_key())));
  EXPECT_EQ(calls, 50);
  EXPECT_TRUE(run(guard(milliseconds(500), {}, with_key())));
  EXPECT_EQ(calls, 52);
}

// Everything on, everything failing now and then, under stalls and cancellations.
TEST_F(GuardedTest, RES_42_seeded_callers_leave_nothing_behind) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    sim::SimScheduler other(clock, seed);
    sim::SimRandom dice(seed);
    Guards all(clock, dice);
    auto rules = parse_rules(
        "[guard.a.breaker]\nminimum_calls = 6\nfailure_ratio = 0.6\nisolation = \"10ms\"\n"
        "isolation_max = \"20ms\"\n[guard.a.rate]\nlimit = 5000\n[guard.a.bulkhead]\nlimit = "
        "4\nmax_queue = 6\n"
        "max_wait = \"5ms\"\n[guard.a.pacing]\nlimit = 2000\nmax_wait = \"20ms\"\n"
        "[guard.a.timeout]\ntimeout = \"8ms\"\nmargin = \"1ms\"\n[guard.a.retry]\nattempts = 3\n"
        "base = \"1ms\"\nmax = \"4ms\"\n[guard.a.hedge]\ndelay = \"4ms\"\n[guard.a.throttle]\n"
        "window = \"1s\"\n",
        "test.toml");
    ASSERT_TRUE(rules && all.reload(std::move(*rules)));
    Protector& guardian = all.find("a");
    running = most_running = 0;
    struct Caller {
      Task<int> task;
      CancelScope scope;
      TaskContext context;
      bool done = false;
    };
    std::list<Caller> callers;
    int served = 0;
    const auto visit = [&](int times) -> Task<int> {
      for (int i = 0; i < times; ++i) {
        auto once = [&](AttemptNote&) {
          return work(milliseconds(dice.below(12)),
                      dice.one_in(5) ? std::optional(FailureKind::unavailable) : std::nullopt);
        };
        Task<Result<int>> call = guarded(guardian, with_key(), dice, once);
        const Result<int> answer = co_await call;
        served += answer.has_value() ? 1 : 0;
        co_await sleep_for(milliseconds(dice.below(10)));
      }
      co_return 0;
    };
    for (int l = 0; l < 2; ++l) {
      Lane& own = other.add_lane("lane");
      for (int c = 0; c < 6; ++c) {
        Caller& caller = callers.emplace_back();
        caller.context = {&own, &caller.scope, kNever};
        caller.task = visit(60);
        own.post([&caller] {
          caller.done = caller.task.start(
              caller.context, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; },
              &caller.done);
        });
        if (dice.one_in(4))
          other.after(milliseconds(dice.below(800)),
                      [&caller, &own] { own.post([&caller] { caller.scope.cancel(); }); });
      }
    }
    ASSERT_TRUE(other.run_until(
        [&] { return std::ranges::all_of(callers, [](auto& c) { return c.done; }); }, 1'000'000))
        << seed;
    other.run_to(clock.now() + seconds(1), 100'000);
    const auto state = guardian.snapshot(clock.now());
    EXPECT_EQ(state.bulkhead->in_flight, 0u) << seed;
    EXPECT_EQ(state.bulkhead->waiting, 0u) << seed;
    EXPECT_EQ(state.breaker->trials_running, 0u) << seed;
    EXPECT_EQ(running, 0) << seed;
    EXPECT_LE(most_running, 4) << seed;
    EXPECT_GT(served, 20) << seed;
  }
}

}  // namespace
}  // namespace sluice::resilience
