// Counters, gauges and histograms. A room gets its handles once, when it is built; counting is
// then one relaxed atomic addition. Series per name are bounded: past the bound, new label values
// count as "other". Exposition is Prometheus text.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sluice/base/time.hpp"

namespace sluice {

class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class Gauge {
 public:
  void set(std::int64_t v) noexcept { value_.store(v, std::memory_order_relaxed); }
  void add(std::int64_t n) noexcept { value_.fetch_add(n, std::memory_order_relaxed); }
  std::int64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

/// Counts observations by upper bounds. Units are the name's: `_seconds` for durations.
class Histogram {
 public:
  explicit Histogram(std::span<const double> bounds);
  void observe(double value) noexcept;
  void observe(Duration took) noexcept { observe(std::chrono::duration<double>(took).count()); }
  const std::vector<double>& bounds() const noexcept { return bounds_; }
  /// Observations in bucket `i`, not cumulated; the last one is above every bound.
  std::uint64_t count(std::size_t i) const noexcept {
    return counts_[i].load(std::memory_order_relaxed);
  }
  double sum() const noexcept { return sum_.load(std::memory_order_relaxed); }

 private:
  std::vector<double> bounds_;
  std::unique_ptr<std::atomic<std::uint64_t>[]> counts_;
  std::atomic<double> sum_{0};
};

/// 10 µs to 10 s in steps of about 2.2: wide enough for a memory hit and a stuck downstream.
std::span<const double> latency_bounds() noexcept;

using Labels = std::vector<std::pair<std::string, std::string>>;

struct MetricsBounds {
  std::size_t max_series_per_name = 200;
};

/// Owns all series; handles live as long as it does. Thread-safe. Asking again for the same name
/// and labels gives the same handle. A name that is no Prometheus name, or that was registered
/// with another type, is a defect and aborts.
class Metrics {
 public:
  explicit Metrics(MetricsBounds bounds = {});
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  Counter& counter(std::string_view name, std::string_view help, const Labels& labels = {});
  Gauge& gauge(std::string_view name, std::string_view help, const Labels& labels = {});
  /// Whether these labels have a series of their own, or would get one; else they count as "other".
  bool has_room(std::string_view name, const Labels& labels) const;
  /// What the gauge told does not exist any more: it is not exposed until it is asked for again. References
  /// to it are void.
  void forget_gauge(std::string_view name, const Labels& labels);
  /// `bounds` are those of the first call for this name.
  Histogram& histogram(std::string_view name, std::string_view help, const Labels& labels = {},
                       std::span<const double> bounds = latency_bounds());

  /// Called before each exposition, to set gauges from figures kept elsewhere. The hook is gone
  /// once the returned handle is destroyed; it may not be destroyed inside the hook.
  class Hook {
   public:
    virtual ~Hook() = default;
  };
  std::unique_ptr<Hook> before_exposition(std::function<void()> refresh);

  /// Prometheus text format 0.0.4.
  std::string prometheus_text();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice
