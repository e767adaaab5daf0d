#include "sluice/resilience/throttle.hpp"

#include <algorithm>

namespace sluice::resilience {
namespace {

constexpr unsigned kCountBits = 24;
constexpr std::uint64_t kCountMax = (1u << kCountBits) - 1;
constexpr std::uint64_t kNumberMax = 0xffff;

std::uint64_t accepts_of(std::uint64_t word) noexcept { return word & kCountMax; }
std::uint64_t requests_of(std::uint64_t word) noexcept { return (word >> kCountBits) & kCountMax; }
std::uint64_t number_of(std::uint64_t word) noexcept { return word >> (2 * kCountBits); }

}  // namespace

Throttle::Throttle(ThrottleOptions options, Random& random) noexcept : random_(random) {
  set(options);
}

std::int64_t Throttle::slot_length(const ThrottleOptions& options) noexcept {
  return std::max<std::int64_t>(options.window.count() / std::int64_t{kSlots}, 1);
}

// Calls that end meanwhile may be lost: they are a few of thousands.
void Throttle::reconfigure(ThrottleOptions options, Instant now) noexcept {
  if (slot_length(options) == slot_ns_.load(std::memory_order_relaxed)) return set(options);
  const Sums kept = sums(now);
  set(options);
  const auto number = static_cast<std::uint64_t>(slot_of(now));
  for (auto& slot : slots_) slot.store(0, std::memory_order_relaxed);
  slots_[number % kSlots].store((number & kNumberMax) << (2 * kCountBits) |
                                    std::min(kept.requests, kCountMax) << kCountBits |
                                    std::min(kept.accepts, kCountMax),
                                std::memory_order_relaxed);
}

void Throttle::set(const ThrottleOptions& options) noexcept {
  slot_ns_.store(slot_length(options), std::memory_order_relaxed);
  k_.store(std::max(options.k, 1.0), std::memory_order_relaxed);
  max_refusal_.store(std::clamp(options.max_refusal, 0.0, 1.0), std::memory_order_relaxed);
  minimum_.store(options.minimum, std::memory_order_relaxed);
}

std::int64_t Throttle::slot_of(Instant now) const noexcept {
  return now.time_since_epoch().count() / slot_ns_.load(std::memory_order_relaxed);
}

// A slot belongs to the window when its number is one of the last ten. Numbers are kept to sixteen
// bits: a slot not written for exactly 65,536 slot lengths would be taken for new; it holds counts
// of a time of refusals at worst, and fades within a window.
Throttle::Sums Throttle::sums(Instant now) const noexcept {
  const auto newest = static_cast<std::uint64_t>(slot_of(now)) & kNumberMax;
  Sums sums;
  for (const auto& slot : slots_) {
    const std::uint64_t word = slot.load(std::memory_order_relaxed);
    if (((newest - number_of(word)) & kNumberMax) >= kSlots) continue;
    sums.requests += requests_of(word);
    sums.accepts += accepts_of(word);
  }
  return sums;
}

double Throttle::refusal_of(const Sums& sums) const noexcept {
  if (sums.requests < minimum_.load(std::memory_order_relaxed)) return 0;
  const auto requests = static_cast<double>(sums.requests);
  const double beyond =
      requests - k_.load(std::memory_order_relaxed) * static_cast<double>(sums.accepts);
  return std::clamp(beyond / (requests + 1), 0.0, max_refusal_.load(std::memory_order_relaxed));
}

double Throttle::refusal(Instant now) const noexcept { return refusal_of(sums(now)); }

bool Throttle::would_pass(Instant now, Block& block) const noexcept {
  const double refusal = refusal_of(sums(now));
  if (refusal <= 0 || random_.unit() >= refusal) return true;
  block.policy = Policy::throttle;
  block.observed = refusal;
  block.threshold = 0;
  block.retry_after = kNoRetryAfter;
  return false;
}

bool Throttle::try_pass(Instant now, Block& block) noexcept {
  if (would_pass(now, block)) return true;
  count(now, false);
  return false;
}

void Throttle::on_end(Outcome outcome, Instant now) noexcept {
  if (outcome != Outcome::cancelled) count(now, outcome == Outcome::success);
}

void Throttle::count(Instant now, bool accepted) noexcept {
  const std::int64_t number = slot_of(now);
  const auto low = static_cast<std::uint64_t>(number) & kNumberMax;
  auto& slot = slots_[static_cast<std::uint64_t>(number) % kSlots];
  std::uint64_t seen = slot.load(std::memory_order_relaxed);
  std::uint64_t after = 0;
  do {
    const bool same = number_of(seen) == low;
    const std::uint64_t requests = same ? std::min(requests_of(seen) + 1, kCountMax) : 1;
    const std::uint64_t accepts =
        (same ? accepts_of(seen) : 0) + (accepted && (!same || requests_of(seen) < kCountMax));
    after = low << (2 * kCountBits) | requests << kCountBits | accepts;
  } while (!slot.compare_exchange_weak(seen, after, std::memory_order_relaxed));
}

}  // namespace sluice::resilience
