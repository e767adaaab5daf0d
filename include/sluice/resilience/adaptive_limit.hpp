// A bulkhead that finds its own limit: it grows while latency stays near its best, shrinks as
// latency rises (gradient, after Netflix's concurrency-limits), and shrinks at once when calls are
// dropped (AIMD, as TCP does).
#pragma once
#include <mutex>

#include "sluice/resilience/bulkhead.hpp"

namespace sluice::resilience {

struct AdaptiveOptions {
  std::uint32_t initial = 20;
  std::uint32_t floor = 1;              ///< never below; at least 1
  std::uint32_t ceiling = 1000;         ///< never above; up to kMaxInFlight
  Duration window = milliseconds(100);  ///< one adjustment each, or later if calls are few
  std::uint32_t minimum_samples = 10;
  double tolerance = 1.5;    ///< latency may be so many times the best before the limit shrinks
  double smoothing = 0.2;    ///< part of the way taken at once, (0, 1]
  double backoff = 0.9;      ///< the limit is multiplied by it when calls are dropped
  double drop_ratio = 0.02;  ///< dropped calls in a window that count as overload
  /// A call that took so long counts as dropped, whatever its outcome: a dependency that answers
  /// everything at the timeout has a steady latency, and would look healthy.
  Duration drop_latency = seconds(10);
  /// When latency stays above the best for so many windows, the limit is halved for two of them to
  /// measure the best again: a dependency that became slower for good is accepted, a queue that we
  /// cause is not taken for one.
  std::uint32_t probe_every = 50;
  BulkheadOptions places;  ///< partitions, priorities and queue; its limit is not used
};

struct AdaptiveSnapshot {
  BulkheadStats places;
  double limit = 0;  ///< before rounding
  Duration best{};   ///< latency taken for the unloaded one; 0: none yet
  std::uint64_t adjusted = 0, backed_off = 0;
};

/// Thread-safe. Taking is lock-free, ending a call takes one short lock.
class AdaptiveLimit {
 public:
  explicit AdaptiveLimit(AdaptiveOptions options = {});
  /// As Bulkhead::try_take and turn; end each with done().
  bool try_take(std::uint8_t partition, Priority priority, Block& block) noexcept {
    return places_.try_take(partition, priority, block);
  }
  Bulkhead& places() noexcept { return places_; }
  void done(std::uint8_t partition, Outcome outcome, Duration latency, Instant now) noexcept;
  /// Keeps the limit it has found, within the new floor and ceiling.
  void reconfigure(const AdaptiveOptions& options) noexcept;
  std::uint32_t limit() const noexcept { return places_.limit(); }
  AdaptiveSnapshot snapshot() const;

 private:
  /// Ends a window: the limit to set from now on.
  double adjust() noexcept;
  double by_gradient(double average) noexcept;
  std::uint32_t bounded(double limit) const noexcept;

  mutable std::mutex mutex_;
  AdaptiveOptions options_;
  double limit_ = 0;
  double best_ns_ = 0;
  Instant window_end_{};
  double sum_ns_ = 0;
  std::uint32_t samples_ = 0, dropped_ = 0, most_in_flight_ = 0;
  std::uint32_t above_best_ = 0;  // windows in a row
  enum class Probe : std::uint8_t { none, draining, measuring } probe_ = Probe::none;
  std::uint64_t adjusted_ = 0, backed_off_ = 0;
  Bulkhead places_;
};

}  // namespace sluice::resilience
