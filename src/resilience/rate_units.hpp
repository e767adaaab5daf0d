// Sixteenths of a nanosecond: fine enough for millions of calls per second, and 18 years of
// monotonic time fit a signed word.
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>

#include "sluice/base/random.hpp"
#include "sluice/base/time.hpp"

namespace sluice::resilience::rate {

inline constexpr std::int64_t kPerNs = 16;
// Leaves room to add a price to a time without overflow.
inline constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max() / 4;

constexpr std::int64_t units(Instant at) noexcept {
  const std::int64_t ns = at.time_since_epoch().count();
  return ns >= kMax / kPerNs ? kMax : std::max<std::int64_t>(ns, 0) * kPerNs;
}

/// Rounded up, so that who waits this long is not early.
constexpr Duration duration_of(std::int64_t units) noexcept {
  return Duration((units + kPerNs - 1) / kPerNs);
}

/// Of one call; rounded up, so that the limit is never exceeded.
constexpr std::int64_t price_of(std::uint64_t limit, Duration period) noexcept {
  if (limit == 0) return kMax;
  const auto whole = static_cast<Uint128>(std::max<std::int64_t>(period.count(), 1)) * kPerNs;
  const Uint128 price = (whole + limit - 1) / limit;
  return price > static_cast<Uint128>(kMax) ? kMax : static_cast<std::int64_t>(price);
}

constexpr std::int64_t bounded_product(std::int64_t price, std::uint64_t n) noexcept {
  const Uint128 product = static_cast<Uint128>(price) * n;
  return product > static_cast<Uint128>(kMax) ? kMax : static_cast<std::int64_t>(product);
}

}  // namespace sluice::resilience::rate
