// Limits on calls per time. Both keep one 64-bit word, "paid until": a call moves it by its price
// (generic cell rate algorithm, ITU-T I.371), so they are exact under any interleaving and need no
// lock. Prices are rounded up: never above the limit, below it by less than one part in
// 16 ns × limit / period.
#pragma once
#include <atomic>
#include <cstdint>
#include <utility>

#include "sluice/base/time.hpp"

namespace sluice::resilience {

struct RateOptions {
  std::uint64_t limit = 100;     ///< calls per period; 0 refuses all
  Duration period = seconds(1);  ///< (0, 1 day]
  std::uint64_t burst = 0;       ///< what an idle limiter lets through at once; 0: `limit`
};

/// What a limiter says. A refusal has taken nothing.
struct RateAnswer {
  bool passed = true;
  /// Passed: wait this long before calling (pacing). Refused: when to come back, or kNoRetryAfter.
  Duration wait = Duration::zero();
  std::int64_t before = 0;  ///< for give_back()
  std::int64_t after = 0;
};

/// Lets `burst` through at once and `limit` per period in the long run: in any stretch of time of
/// length t at most burst + t × limit / period. Thread-safe, lock-free.
class TokenBucket {
 public:
  explicit TokenBucket(RateOptions options) noexcept { reconfigure(options); }
  /// All `n` or none. 0 always passes; more than the burst never does. A `now` behind another
  /// caller's is only stricter.
  RateAnswer try_take(Instant now, std::uint32_t n = 1) noexcept;
  /// What try_take() would say, without taking.
  RateAnswer peek(Instant now, std::uint32_t n = 1) const noexcept;
  /// Undoes a passed answer, if nobody took since; else the tokens stay spent, because giving them
  /// back later could let more through than the limit.
  void give_back(const RateAnswer& answer) noexcept;
  /// How many would pass now.
  std::uint64_t available(Instant now) const noexcept;
  /// Keeps what is spent.
  void reconfigure(RateOptions options) noexcept;

 private:
  RateAnswer judge(std::int64_t paid_until, Instant now, std::uint32_t n) const noexcept;
  alignas(64) std::atomic<std::int64_t> paid_until_{0};
  std::atomic<std::int64_t> price_{1};     // of one call; in sixteenths of a nanosecond
  std::atomic<std::int64_t> capacity_{0};  // price × burst
  std::atomic<std::uint64_t> burst_{0};
};

struct PacerOptions {
  std::uint64_t limit = 100;              ///< calls per period, evenly spaced; 0 refuses all
  Duration period = seconds(1);           ///< (0, 1 day]
  Duration max_wait = milliseconds(500);  ///< a call that would wait longer is refused
};

/// Spaces calls evenly: the n-th caller is told how long to wait. Thread-safe, lock-free.
class Pacer {
 public:
  explicit Pacer(PacerOptions options) noexcept { reconfigure(options); }
  /// `n` turns in a row, all or none; more than `limit` never pass.
  RateAnswer try_take(Instant now, std::uint32_t n = 1) noexcept;
  RateAnswer peek(Instant now, std::uint32_t n = 1) const noexcept;
  /// Undoes a passed answer if its turn is still the last; else the turn stays empty.
  void give_back(const RateAnswer& answer) noexcept;
  /// The limit, and how long a call may wait.
  std::pair<std::uint64_t, Duration> bounds() const noexcept;
  /// Keeps the turns already promised.
  void reconfigure(PacerOptions options) noexcept;

 private:
  RateAnswer judge(std::int64_t paid_until, Instant now, std::uint32_t n) const noexcept;
  alignas(64) std::atomic<std::int64_t> paid_until_{0};
  std::atomic<std::int64_t> price_{1};
  std::atomic<std::int64_t> max_wait_{0};
  std::atomic<std::uint64_t> limit_{0};
};

}  // namespace sluice::resilience
