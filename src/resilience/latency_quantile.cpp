#include "sluice/resilience/latency_quantile.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

namespace sluice::resilience {

// The position of the highest bit, and the two bits below it.
std::size_t LatencyQuantile::bucket_of(Duration latency) noexcept {
  const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(latency.count(), 4));
  const auto high = static_cast<unsigned>(std::bit_width(ns) - 1);
  return std::min<std::size_t>((high - 2) * 4 + ((ns >> (high - 2)) & 3), kBuckets - 1);
}

Duration LatencyQuantile::top_of(std::size_t bucket) noexcept {
  const auto shift = static_cast<unsigned>(bucket / 4);
  return Duration(((std::int64_t{4} + static_cast<std::int64_t>(bucket % 4) + 1) << shift) - 1);
}

void LatencyQuantile::record(Duration latency) noexcept {
  const std::lock_guard lock(mutex_);
  ++counts_[bucket_of(latency)];
  ++seen_;
  if (++total_ < kMost) return;
  total_ = 0;
  for (std::uint32_t& count : counts_) total_ += count /= 2;
}

std::optional<Duration> LatencyQuantile::at(double quantile, std::uint32_t warm_up) const noexcept {
  const std::lock_guard lock(mutex_);
  if (seen_ < warm_up || total_ == 0) return std::nullopt;
  const auto wanted = std::max<std::uint64_t>(
      static_cast<std::uint64_t>(std::ceil(std::clamp(quantile, 0.0, 1.0) * total_)), 1);
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < kBuckets; ++i)
    if ((sum += counts_[i]) >= wanted) return top_of(i);
  return top_of(kBuckets - 1);
}

}  // namespace sluice::resilience
