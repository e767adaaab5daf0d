// Which latency is exceeded by how few calls: a histogram of doubling buckets, four to each, that
// forgets the old by halves. Good to a fifth of the value, in a kilobyte.
#pragma once
#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "sluice/base/time.hpp"

namespace sluice::resilience {

/// Thread-safe, one short lock.
class LatencyQuantile {
 public:
  void record(Duration latency) noexcept;
  /// A latency that at least `quantile` of those seen did not exceed; nothing before `warm_up` of
  /// them have been seen.
  std::optional<Duration> at(double quantile, std::uint32_t warm_up) const noexcept;

 private:
  static constexpr std::size_t kBuckets = 160;  // four for each of forty doublings: to 18 minutes
  static constexpr std::uint32_t kMost = 4096;  // then all counts are halved
  static std::size_t bucket_of(Duration latency) noexcept;
  static Duration top_of(std::size_t bucket) noexcept;
  mutable std::mutex mutex_;
  std::array<std::uint32_t, kBuckets> counts_{};
  std::uint32_t total_ = 0;
  std::uint64_t seen_ = 0;
};

}  // namespace sluice::resilience
