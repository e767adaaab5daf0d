// Timeouts and retries as tasks under the deterministic scheduler.
#include "sim/scheduler.hpp"
#include "sluice/resilience/attempt.hpp"
#include "sluice/resilience/retrying.hpp"

namespace sluice::resilience {
namespace {

struct AttemptTest : testing::Test {
  sim::SimClock clock;
  sim::SimScheduler scheduler{clock, 1, nullptr, {.stall_one_in = 0}};
  sim::SimRandom random{1};
  Lane& lane = scheduler.add_lane("lane");
  RetryBudget budget;
  int calls = 0;
  int destroyed = 0;
  Instant told_deadline = kNever;

  struct Witness {
    int& count;
    ~Witness() { ++count; }
  };
  /// Answers after `latency`; gives up at once when cancelled.
  Task<Result<int>> polite(Duration latency) {
    ++calls;
    const Witness witness{destroyed};
    TaskContext& context = co_await current_context();
    told_deadline = context.deadline;
    const FailureKind cut = co_await sleep_for(latency);
    if (cut != FailureKind::none) co_return fail(Failure(FailureKind::cancelled, "cut"));
    co_return 7;
  }
  /// Does not look at its scope.
  Task<Result<int>> stubborn() {
    const Witness witness{destroyed};
    struct Never {
      bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<>) noexcept {}
      void await_resume() const noexcept {}
    };
    co_await Never();
    co_return 1;
  }
  Result<int> run(Task<Result<int>> task, CancelScope* scope = nullptr) {
    return sim::run_task(scheduler, lane, std::move(task), scope);
  }
};

TEST_F(AttemptTest, RES_32_an_answer_in_time_passes_and_a_late_one_is_a_timeout) {
  const Instant start = clock.now();
  EXPECT_EQ(run(with_deadline(polite(milliseconds(10)), start + milliseconds(50))), 7);
  const Result<int> late = run(with_deadline(polite(seconds(5)), clock.now() + milliseconds(50)));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind(), FailureKind::timeout);
  EXPECT_LT(clock.now() - start, milliseconds(80));
  EXPECT_EQ(destroyed, 2);
}

TEST_F(AttemptTest, RES_32_an_attempt_that_ignores_its_cancellation_is_left_behind) {
  const Result<int> late = run(with_deadline(stubborn(), clock.now() + milliseconds(20)));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().kind(), FailureKind::timeout);
  EXPECT_EQ(destroyed, 1);
}

TEST_F(AttemptTest, RES_32_the_callers_cancellation_is_not_a_timeout) {
  CancelScope scope;
  scheduler.after(milliseconds(5), [&] { lane.post([&] { scope.cancel(); }); });
  const Result<int> cut =
      run(with_deadline(polite(seconds(5)), clock.now() + milliseconds(50)), &scope);
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().kind(), FailureKind::cancelled);
  CancelScope again;
  scheduler.after(milliseconds(5), [&] { lane.post([&] { again.cancel(); }); });
  const Result<int> left = run(with_deadline(stubborn(), clock.now() + milliseconds(50)), &again);
  ASSERT_FALSE(left);
  EXPECT_EQ(left.error().kind(), FailureKind::cancelled);
  EXPECT_EQ(destroyed, 2);
}

Task<Result<int>> nested(AttemptTest& test, Instant outer, Instant inner) {
  Task<Result<int>> call = test.polite(milliseconds(1));
  Task<Result<int>> bounded = with_deadline(std::move(call), inner, milliseconds(3));
  Task<Result<int>> all = with_deadline(std::move(bounded), outer);
  const Result<int> answer = co_await all;
  co_return answer;
}

TEST_F(AttemptTest, RES_32_the_smaller_deadline_goes_downstream_minus_a_margin) {
  const Instant now = clock.now();
  EXPECT_EQ(run(nested(*this, now + milliseconds(40), now + milliseconds(90))), 7);
  EXPECT_EQ(told_deadline, now + milliseconds(37));
  const Instant later = clock.now();
  EXPECT_EQ(run(nested(*this, later + milliseconds(90), later + milliseconds(40))), 7);
  EXPECT_EQ(told_deadline, later + milliseconds(37));
}

struct RetryTest : AttemptTest {
  RetryPolicy policy;
  std::vector<Instant> started;
  RetryTest() {
    policy.attempts = 5;
    policy.backoff.growth = Growth::constant;
    policy.backoff.base = milliseconds(10);
    policy.backoff.jitter = Jitter::none;
  }
  Task<Result<int>> flaky(std::uint32_t number, std::uint32_t good_from, Failure failure) {
    started.push_back(clock.now());
    if (number < good_from) co_return fail(failure);
    co_return static_cast<int>(number);
  }
  auto failing_until(std::uint32_t good_from, Failure failure = Failure(FailureKind::unavailable)) {
    return [this, good_from, failure](AttemptNote& note) {
      return flaky(note.number, good_from, failure);
    };
  }
};

TEST_F(RetryTest, RES_30_waits_between_attempts_until_one_succeeds) {
  EXPECT_EQ(run(retrying(policy, budget, random, failing_until(3))), 3);
  ASSERT_EQ(started.size(), 3u);
  EXPECT_GE(started[1] - started[0], milliseconds(10));
  EXPECT_LT(started[2] - started[0], milliseconds(25));
  EXPECT_NEAR(budget.tokens(), 8.1, 0.001);
}

TEST_F(RetryTest, RES_30_business_answers_are_not_retried_and_cost_nothing) {
  const Result<int> answer =
      run(retrying(policy, budget, random, failing_until(9, Failure(FailureKind::rejected))));
  EXPECT_EQ(answer.error().kind(), FailureKind::rejected);
  EXPECT_EQ(started.size(), 1u);
  EXPECT_EQ(budget.tokens(), 10);
}

TEST_F(RetryTest, RES_30_one_budget_ends_the_retries_of_all) {
  policy.attempts = 50;
  EXPECT_FALSE(run(retrying(policy, budget, random, failing_until(99))));
  EXPECT_EQ(started.size(), 5u) << "four failures retry, the fifth does not";
  for (int i = 0; i < 20; ++i)
    EXPECT_FALSE(run(retrying(policy, budget, random, failing_until(99))));
  EXPECT_EQ(started.size(), 25u) << "an empty budget refuses retries, not calls";
}

TEST_F(RetryTest, RES_30_the_servers_word_is_exact_and_never_means_never) {
  const Failure later = Failure(FailureKind::overloaded).with_retry_after(milliseconds(300));
  EXPECT_EQ(run(retrying(policy, budget, random, failing_until(2, later))), 2);
  EXPECT_GE(started[1] - started[0], milliseconds(300));
  EXPECT_LT(started[1] - started[0], milliseconds(303));
  const Failure never = Failure(FailureKind::overloaded).with_retry_after(milliseconds(-1));
  EXPECT_FALSE(run(retrying(policy, budget, random, failing_until(2, never))));
  EXPECT_EQ(started.size(), 3u);
}

TEST_F(RetryTest, RES_30_no_retry_past_the_callers_deadline) {
  Task<Result<int>> task = retrying(policy, budget, random, failing_until(99));
  const Instant start = clock.now();
  const Result<int> answer = run(with_deadline(std::move(task), start + milliseconds(25)));
  EXPECT_EQ(answer.error().kind(), FailureKind::unavailable) << "the last failure, not a timeout";
  EXPECT_EQ(started.size(), 3u);
}

TEST_F(RetryTest, RES_30_cancelled_between_attempts) {
  CancelScope scope;
  scheduler.after(milliseconds(4), [&] { lane.post([&] { scope.cancel(); }); });
  const Result<int> answer = run(retrying(policy, budget, random, failing_until(99)), &scope);
  EXPECT_EQ(answer.error().kind(), FailureKind::cancelled);
  EXPECT_EQ(started.size(), 1u);
}

}  // namespace
}  // namespace sluice::resilience
