// Decisions about retries, with a random source the test chooses.
#include <limits>

#include "sluice/resilience/retry.hpp"

namespace sluice::resilience {
namespace {

/// Always the same fraction of the range.
struct FixedRandom final : Random {
  std::uint64_t value = 0;
  std::uint64_t next() noexcept override { return value; }
  void secret(std::byte*, std::size_t) noexcept override {}
};
constexpr std::uint64_t kTop = std::numeric_limits<std::uint64_t>::max();

RetryPolicy steady(Duration wait) {
  RetryPolicy policy;
  policy.backoff.growth = Growth::constant;
  policy.backoff.base = wait;
  policy.backoff.jitter = Jitter::none;
  return policy;
}

TEST(Retry, RES_30_gives_up_on_what_a_retry_cannot_help) {
  FixedRandom random;
  const RetryPolicy policy = steady(milliseconds(5));
  EXPECT_FALSE(policy.next_delay(1, Failure(FailureKind::invalid_argument), random));
  EXPECT_FALSE(policy.next_delay(1, Failure(FailureKind::rejected), random));
  EXPECT_TRUE(policy.next_delay(1, Failure(FailureKind::unavailable), random));
}

TEST(Retry, RES_30_unknown_outcome_is_retried_only_with_a_key) {
  FixedRandom random;
  RetryPolicy policy = steady(milliseconds(5));
  const Failure unknown(FailureKind::unknown_outcome);
  EXPECT_FALSE(policy.next_delay(1, unknown, random));
  policy.has_key = true;
  EXPECT_EQ(policy.next_delay(1, unknown, random), milliseconds(5));
}

TEST(Retry, RES_30_attempts_count_the_first_one) {
  FixedRandom random;
  RetryPolicy policy = steady(milliseconds(5));
  const Failure failure(FailureKind::unavailable);
  EXPECT_TRUE(policy.next_delay(1, failure, random));
  EXPECT_TRUE(policy.next_delay(2, failure, random));
  EXPECT_FALSE(policy.next_delay(3, failure, random));
  policy.attempts = 0;
  EXPECT_FALSE(policy.next_delay(1, failure, random));
}

TEST(Retry, RES_30_pushback_is_exact_and_negative_means_never) {
  FixedRandom random;
  const RetryPolicy policy = steady(milliseconds(5));
  const Failure failure(FailureKind::overloaded);
  EXPECT_EQ(policy.next_delay(1, failure.with_retry_after(milliseconds(777)), random),
            milliseconds(777));
  EXPECT_FALSE(policy.next_delay(1, failure.with_retry_after(milliseconds(-1)), random));
}

TEST(Retry, RES_30_no_retry_starts_at_or_after_the_overall_deadline) {
  FixedRandom random;
  RetryPolicy policy = steady(milliseconds(10));
  policy.overall = milliseconds(100);
  const Failure failure(FailureKind::unavailable);
  EXPECT_TRUE(policy.next_delay(1, failure, random, milliseconds(89)));
  EXPECT_FALSE(policy.next_delay(1, failure, random, milliseconds(90)));
  EXPECT_FALSE(policy.next_delay(1, failure, random, milliseconds(500)));
}

TEST(Retry, RES_30_what_a_layer_below_gave_up_on_is_not_tried_again) {
  FixedRandom random;
  const Failure down(FailureKind::unavailable, "down", "of the callee");
  const Failure over = given_up(down, "three attempts");
  EXPECT_TRUE(is_given_up(over));
  EXPECT_FALSE(is_given_up(down));
  EXPECT_EQ(given_up(over, "again"), over) << "marked once";
  EXPECT_EQ(over.code(), "down");
  for (const bool key : {true, false}) EXPECT_FALSE(worth_retrying(over, key));
  EXPECT_FALSE(worth_retrying(given_up(Failure(FailureKind::unknown_outcome), ""), true));
  EXPECT_FALSE(steady(milliseconds(1)).next_delay(1, over, random));
  RetryPolicy all = steady(milliseconds(1));
  all.retryable = [](const Failure&) { return true; };
  EXPECT_TRUE(all.next_delay(1, over, random)) << "who says so";
}

TEST(Retry, RES_30_own_predicate_replaces_the_default) {
  FixedRandom random;
  RetryPolicy policy = steady(milliseconds(1));
  policy.retryable = [](const Failure& f) { return f.kind() == FailureKind::rejected; };
  EXPECT_TRUE(policy.next_delay(1, Failure(FailureKind::rejected), random));
  EXPECT_FALSE(policy.next_delay(1, Failure(FailureKind::unavailable), random));
}

TEST(Backoff, RES_30_grows_as_declared_up_to_max) {
  FixedRandom random;
  BackoffPolicy policy;
  policy.base = milliseconds(50);
  policy.max = milliseconds(300);
  policy.jitter = Jitter::none;
  EXPECT_EQ(policy.delay(1, random), milliseconds(50));
  EXPECT_EQ(policy.delay(3, random), milliseconds(200));
  EXPECT_EQ(policy.delay(4, random), milliseconds(300));
  EXPECT_EQ(policy.delay(4'000'000'000u, random), milliseconds(300));
  policy.growth = Growth::linear;
  EXPECT_EQ(policy.delay(3, random), milliseconds(150));
  policy.growth = Growth::constant;
  EXPECT_EQ(policy.delay(9, random), milliseconds(50));
  policy.custom = [](std::uint32_t retry) { return Duration(milliseconds(7)) * retry; };
  EXPECT_EQ(policy.delay(2, random), milliseconds(14));
  EXPECT_EQ(policy.delay(1000, random), milliseconds(300));
}

TEST(Backoff, RES_30_jitter_stays_in_its_range) {
  FixedRandom random;
  BackoffPolicy policy;
  policy.growth = Growth::constant;
  policy.base = milliseconds(100);
  policy.jitter = Jitter::full;
  EXPECT_EQ(policy.delay(1, random), Duration::zero());
  random.value = kTop;
  EXPECT_EQ(policy.delay(1, random), milliseconds(100));
  policy.jitter = Jitter::equal;
  EXPECT_EQ(policy.delay(1, random), milliseconds(50));
  random.value = 0;
  EXPECT_EQ(policy.delay(1, random), milliseconds(100));
}

TEST(RetryBudget, RES_30_four_failures_retry_the_fifth_does_not) {
  RetryBudget budget;
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(budget.on_failure()) << i;
  EXPECT_FALSE(budget.on_failure());
  EXPECT_FALSE(budget.may_retry());
}

TEST(RetryBudget, RES_30_after_emptying_the_51st_success_re_enables) {
  RetryBudget budget;
  for (int i = 0; i < 30; ++i) budget.on_failure();
  EXPECT_EQ(budget.tokens(), 0);
  for (int i = 0; i < 50; ++i) budget.on_success();
  EXPECT_FALSE(budget.may_retry());
  budget.on_success();
  EXPECT_TRUE(budget.may_retry());
  for (int i = 0; i < 500; ++i) budget.on_success();
  EXPECT_EQ(budget.tokens(), 10);
}

}  // namespace
}  // namespace sluice::resilience
