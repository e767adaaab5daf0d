// Which policy is asked first, and what the inner ones are to the outer: retry, breaker, rate, bulkhead, timeout.
#include "resilience/guarded_fixture.hpp"

namespace sluice::resilience {
namespace {

using PolicyOrder = GuardedTest;

TEST_F(PolicyOrder, RES_5_refusals_come_back_as_failures_and_are_not_retried) {
  load(std::string(kGuardedBreaker) + "[guard.a.retry]\nattempts = 5\nsafe = true\n");
  for (int i = 0; i < 4; ++i) {
    EXPECT_FALSE(run(guard({}, FailureKind::unavailable)));
    clock.advance(milliseconds(1));
  }
  const int before = calls;
  const double tokens = protector.budget().tokens();
  const auto refused = run(guard());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "blocked_by_breaker");
  EXPECT_EQ(refused.error().kind(), FailureKind::unavailable);
  EXPECT_EQ(calls, before);
  EXPECT_EQ(protector.budget().tokens(), tokens);
}

TEST_F(PolicyOrder, RES_5_each_retry_asks_breaker_and_rate_anew) {
  load("[guard.a.rate]\nlimit = 2\n[guard.a.retry]\nattempts = 5\nbase = \"1ms\"\nsafe = true\nbudget_tokens = 1000\n");
  const auto limited = run(guard({}, FailureKind::unavailable));
  ASSERT_FALSE(limited);
  EXPECT_EQ(limited.error().code(), "blocked_by_rate");
  EXPECT_EQ(calls, 2) << "retry is outside the rate: each attempt took a token";
  calls = 0;
  load("[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 10\nminimum_calls = 3\n"
       "[guard.a.retry]\nattempts = 5\nbase = \"1ms\"\nsafe = true\nbudget_tokens = 1000\n");
  const auto opened = run(guard({}, FailureKind::unavailable));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), "blocked_by_breaker");
  EXPECT_EQ(calls, 3) << "and outside the breaker, which opened under the attempts of one call";
}

TEST_F(PolicyOrder, RES_5_what_the_rate_refuses_is_nothing_to_the_breaker) {
  load(std::string(kGuardedBreaker) + "[guard.a.rate]\nlimit = 1\n");
  EXPECT_TRUE(run(guard()));
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(run(guard()));
  EXPECT_EQ(shown().breaker->state, BreakerState::closed);
  EXPECT_EQ(shown().breaker->window.calls, 1u) << "the breaker is outside the rate and hears of calls that were made";
}

TEST_F(PolicyOrder, RES_5_time_in_the_queue_is_no_time_of_the_call) {
  load("[guard.a.bulkhead]\nlimit = 1\nmax_queue = 2\nmax_wait = \"1s\"\n[guard.a.timeout]\ntimeout = \"20ms\"\n");
  CancelScope scope;
  TaskContext context{&lane, &scope, kNever};
  Task<Result<int>> first = guard(milliseconds(15));
  ASSERT_FALSE(first.start(context, [](void*) noexcept {}, nullptr));
  EXPECT_TRUE(run(guard(milliseconds(15)))) << "timeout is innermost: 15 ms of waiting are not part of it";
  EXPECT_TRUE(first.take());
  EXPECT_EQ(most_running, 1);
  EXPECT_FALSE(run(guard(milliseconds(25))));
}

TEST_F(PolicyOrder, RES_6_shadow_traffic_has_a_retry_budget_of_its_own) {
  load("[guard.a.retry]\nattempts = 2\nbase = \"1ms\"\nsafe = true\n");
  Protector& shadow = guards.find("a", true);
  for (int i = 0; i < 20; ++i)
    (void)run(guarded(shadow, GuardedCall(), random, [this](AttemptNote&) { return work({}, FailureKind::unavailable); }));
  EXPECT_LT(shadow.budget().tokens(), 6);
  EXPECT_EQ(protector.budget().tokens(), 10);
  EXPECT_EQ(shown().retries, 0u);
  const int before = calls;
  EXPECT_FALSE(run(guard({}, FailureKind::unavailable)));
  EXPECT_EQ(calls, before + 2) << "live calls are still retried";
}

}  // namespace
}  // namespace sluice::resilience
