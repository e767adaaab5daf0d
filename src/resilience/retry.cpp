#include "sluice/resilience/retry.hpp"

#include <algorithm>
#include <cmath>

namespace sluice::resilience {
namespace {

// Computed in double so that growth saturates instead of overflowing.
Duration grown(const BackoffPolicy& policy, std::uint32_t retry) {
  const double base = static_cast<double>(std::max(policy.base, Duration::zero()).count());
  double ns = base;
  if (policy.growth == Growth::linear) {
    ns = base * retry;
  } else if (policy.growth == Growth::exponential) {
    ns = base * std::pow(std::max(policy.factor, 1.0), retry - 1.0);
  }
  const double max = static_cast<double>(policy.max.count());
  return ns >= max ? policy.max : Duration(static_cast<Duration::rep>(ns));
}

Duration uniform_up_to(Duration bound, Random& random) {
  return Duration(
      static_cast<Duration::rep>(random.below(static_cast<std::uint64_t>(bound.count()) + 1)));
}

}  // namespace

Duration BackoffPolicy::delay(std::uint32_t retry, Random& random) const {
  const Duration plain = custom ? custom(retry) : grown(*this, std::max(retry, 1u));
  const Duration bounded = std::max(std::min(plain, max), Duration::zero());
  switch (jitter) {
    case Jitter::none:
      return bounded;
    case Jitter::full:
      return uniform_up_to(bounded, random);
    case Jitter::equal:
      return bounded - uniform_up_to(bounded / 2, random);
  }
  return bounded;
}

Failure given_up(const Failure& failure, std::string how) {
  return is_given_up(failure) ? failure : failure.with(std::string(kGivenUp), std::move(how));
}

bool is_given_up(const Failure& failure) noexcept {
  return std::ranges::any_of(failure.details(), [](const auto& detail) { return detail.first == kGivenUp; });
}

bool worth_retrying(const Failure& failure, bool has_key) noexcept {
  if (is_given_up(failure)) return false;
  switch (failure.kind()) {
    case FailureKind::unknown_outcome:
    case FailureKind::pending:
    case FailureKind::in_progress: return has_key;
    default: return failure.retryable();
  }
}

std::optional<Duration> RetryPolicy::next_delay(std::uint32_t attempt, const Failure& failure,
                                                Random& random, Duration elapsed) const {
  if (attempt >= attempts) return std::nullopt;
  if (!worth(failure)) return std::nullopt;
  Duration wait{};
  if (const auto pushback = failure.retry_after()) {
    if (*pushback < milliseconds::zero()) return std::nullopt;
    wait = *pushback;
  } else {
    wait = backoff.delay(attempt, random);
  }
  // Written as a subtraction: `elapsed + wait` could overflow.
  if (elapsed >= overall || wait >= overall - elapsed) return std::nullopt;
  return wait;
}

RetryBudget::RetryBudget(RetryBudgetOptions options) noexcept
    : max_(std::llround(std::max(options.tokens, 0.0) * 1000)),
      ratio_(std::llround(std::max(options.ratio, 0.0) * 1000)),
      left_(max_.load(std::memory_order_relaxed)) {}

void RetryBudget::on_success() noexcept {
  const std::int64_t max = max_.load(std::memory_order_relaxed);
  const std::int64_t ratio = ratio_.load(std::memory_order_relaxed);
  std::int64_t left = left_.load(std::memory_order_relaxed);
  while (left < max && !left_.compare_exchange_weak(left, std::min(max, left + ratio),
                                                    std::memory_order_relaxed)) {
  }
}

bool RetryBudget::on_failure() noexcept {
  std::int64_t left = left_.load(std::memory_order_relaxed);
  std::int64_t after = 0;
  do {
    after = std::max<std::int64_t>(0, left - 1000);
  } while (!left_.compare_exchange_weak(left, after, std::memory_order_relaxed));
  return after > max_.load(std::memory_order_relaxed) / 2;
}

bool RetryBudget::may_retry() const noexcept {
  return left_.load(std::memory_order_relaxed) > max_.load(std::memory_order_relaxed) / 2;
}

bool RetryBudget::try_spend() noexcept {
  const std::int64_t half = max_.load(std::memory_order_relaxed) / 2;
  std::int64_t left = left_.load(std::memory_order_relaxed);
  while (left > half)
    if (left_.compare_exchange_weak(left, std::max<std::int64_t>(0, left - 1000),
                                    std::memory_order_relaxed))
      return true;
  return false;
}

void RetryBudget::reconfigure(RetryBudgetOptions options) noexcept {
  const RetryBudget fresh(options);
  const std::int64_t max = fresh.max_.load(std::memory_order_relaxed);
  const std::int64_t before = max_.exchange(max, std::memory_order_relaxed);
  ratio_.store(fresh.ratio_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  if (before == max) return;
  const double part = before > 0 ? static_cast<double>(left_.load(std::memory_order_relaxed)) /
                                       static_cast<double>(before)
                                 : 1;
  left_.store(std::llround(part * static_cast<double>(max)), std::memory_order_relaxed);
}

double RetryBudget::spent_at() const noexcept {
  return static_cast<double>(max_.load(std::memory_order_relaxed) / 2) / 1000;
}

double RetryBudget::tokens() const noexcept {
  return static_cast<double>(left_.load(std::memory_order_relaxed)) / 1000;
}

}  // namespace sluice::resilience
