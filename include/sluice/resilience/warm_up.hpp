// A limit that starts low after idleness and rises as it is used: for dependencies with cold
// caches and pools. Stored permits stand for coldness; the price of a call falls along a line while
// they are spent (the shape is Guava's SmoothWarmingUp).
#pragma once
#include <mutex>

#include "sluice/resilience/rate_limiter.hpp"

namespace sluice::resilience {

struct WarmUpOptions {
  std::uint64_t limit = 100;             ///< calls per period when warm; 0 refuses all
  Duration period = seconds(1);          ///< (0, 1 day]
  Duration warm_up = seconds(10);        ///< from cold to warm under full use, and back when idle
  double cold_factor = 3;                ///< when cold: limit / cold_factor; at least 1
  Duration max_wait = Duration::zero();  ///< a call that would wait longer is refused
};

/// Spaces calls like Pacer, never closer than period / limit. Thread-safe, one short lock.
class WarmUp {
 public:
  /// Starts cold.
  explicit WarmUp(WarmUpOptions options) noexcept;
  /// `n` turns in a row, all or none; more than `limit` never pass.
  RateAnswer try_take(Instant now, std::uint32_t n = 1) noexcept;
  RateAnswer peek(Instant now, std::uint32_t n = 1) const noexcept;
  /// Undoes a passed answer if its turn is still the last; else the turn stays empty.
  void give_back(const RateAnswer& answer) noexcept;
  /// The limit, and how long a call may wait.
  std::pair<std::uint64_t, Duration> bounds() const noexcept;
  /// 0 cold to 1 warm.
  double warmth(Instant now) const noexcept;
  /// Keeps warmth and the turns already promised.
  void reconfigure(const WarmUpOptions& options) noexcept;

 private:
  RateAnswer judge(Instant now, std::uint32_t n) const noexcept;
  void derive() noexcept;
  double stored_at(Instant now) const noexcept;
  double price(double stored, double n) const noexcept;

  mutable std::mutex mutex_;
  WarmUpOptions options_;
  double stable_ns_ = 0;      // between calls when warm
  double slope_ns_ = 0;       // added per stored permit above the knee
  double knee_ = 0;           // stored permits above it make calls dearer
  double most_ = 0;           // all cold
  double stored_ = 0;         // as of next_ns_
  double stored_before_ = 0;  // for give_back()
  std::int64_t next_ns_ = 0;  // when the next call may start
};

}  // namespace sluice::resilience
