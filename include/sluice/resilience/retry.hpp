// When to try again: a backoff (how long), a policy (whether, and for how long in all) and a
// budget (whether the system can afford it). Pure decisions: nobody here sleeps or keeps time.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>

#include "sluice/base/failure.hpp"
#include "sluice/base/random.hpp"
#include "sluice/base/time.hpp"

namespace sluice::resilience {

enum class Growth : std::uint8_t { constant, linear, exponential };
enum class Jitter : std::uint8_t {
  none,
  full,   ///< uniform in [0, delay]: spreads best, may be zero
  equal,  ///< uniform in [delay / 2, delay]: keeps a floor
};

/// How long to wait before the n-th retry. A plain value.
struct BackoffPolicy {
  Growth growth = Growth::exponential;
  Duration base = milliseconds(50);  ///< before the first retry; negative counts as 0
  double factor = 2.0;               ///< exponential only; below 1 counts as 1
  Duration max = seconds(30);        ///< no delay is longer, with or without jitter
  Jitter jitter = Jitter::full;
  /// Replaces growth, base and factor; max and jitter still apply. Must not throw.
  std::function<Duration(std::uint32_t retry)> custom;

  /// `retry` counts from 1. In [0, max].
  Duration delay(std::uint32_t retry, Random& random) const;
};

/// `failure`, marked: a layer below has given up on it, having tried it as often as it might, or refused it without
/// a time to come back at. Whoever tries again above would multiply the calls. The mark does not travel to others.
Failure given_up(const Failure& failure, std::string how);
bool is_given_up(const Failure& failure) noexcept;
inline constexpr std::string_view kGivenUp = "given_up";  ///< its name among the details

/// Nobody below has given up on it, and the kind is retryable; what may have happened or still runs (unknown_outcome, pending, in_progress)
/// only with a key, because a second run without one may take effect twice.
bool worth_retrying(const Failure& failure, bool has_key) noexcept;

/// Whether to try again after a failure. A plain value; thread-safe to read.
struct RetryPolicy {
  std::uint32_t attempts = 3;  ///< in all, the first included; 0 and 1: never retry
  BackoffPolicy backoff;
  /// The call carries an idempotency key: an unknown outcome may be tried again.
  bool has_key = false;
  /// Measured from the first attempt: no retry starts at or after it.
  Duration overall = Duration::max();
  /// Replaces the default, worth_retrying. Must not throw.
  std::function<bool(const Failure&)> retryable;

  /// The wait before the next attempt; nothing: give up and pass the failure on. `attempt` is how
  /// many have been made (1 after the first failed), `elapsed` the time since the first began. A
  /// failure's retry_after is taken as it is, without jitter or max; a negative one means never.
  bool worth(const Failure& failure) const { return retryable ? retryable(failure) : worth_retrying(failure, has_key); }
  std::optional<Duration> next_delay(std::uint32_t attempt, const Failure& failure, Random& random,
                                     Duration elapsed = Duration::zero()) const;
};

struct RetryBudgetOptions {
  double tokens = 10;  ///< the bucket is full at the start; 0 allows no retry
  double ratio = 0.1;  ///< put back by each success
};

/// Stops retry storms across every layer that shares it: each failure takes a token, each success
/// puts back `ratio`, retries are allowed while more than half is left. Source: gRPC A6, "retry
/// throttling". Thread-safe, lock-free.
class RetryBudget {
 public:
  explicit RetryBudget(RetryBudgetOptions options = {}) noexcept;
  void on_success() noexcept;
  /// Takes a token; true if this failure may be retried.
  bool on_failure() noexcept;
  bool may_retry() const noexcept;
  /// Takes a token for an extra call beside a running one (hedging), if retries are allowed.
  bool try_spend() noexcept;
  /// Keeps the part that is left.
  void reconfigure(RetryBudgetOptions options) noexcept;
  /// What is left, in [0, tokens].
  double tokens() const noexcept;
  /// Half of the bucket: only while more than this is left is anything repeated.
  double spent_at() const noexcept;

 private:
  // Thousandths of a token: integers, so that ten tenths are one.
  std::atomic<std::int64_t> max_;
  std::atomic<std::int64_t> ratio_;
  std::atomic<std::int64_t> left_;
};

}  // namespace sluice::resilience
