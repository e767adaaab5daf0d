#include "sluice/resilience/adaptive_limit.hpp"

#include <algorithm>
#include <cmath>

namespace sluice::resilience {
namespace {

// A window whose latency is within so much of the best counts as unloaded.
constexpr double kNearBest = 1.2;

BulkheadOptions places_of(const AdaptiveOptions& options, std::uint32_t limit) {
  BulkheadOptions places = options.places;
  places.limit = limit;
  return places;
}

}  // namespace

AdaptiveLimit::AdaptiveLimit(AdaptiveOptions options)
    : options_(options),
      limit_(bounded(options.initial)),
      places_(places_of(options, bounded(options.initial)), Policy::adaptive) {}

std::uint32_t AdaptiveLimit::bounded(double limit) const noexcept {
  const double floor = std::max(options_.floor, 1u);
  const double ceiling = std::clamp<double>(options_.ceiling, floor, kMaxInFlight);
  return static_cast<std::uint32_t>(std::clamp(limit, floor, ceiling));
}

void AdaptiveLimit::done(std::uint8_t partition, Outcome outcome, Duration latency,
                         Instant now) noexcept {
  std::uint32_t changed = 0;
  if (outcome != Outcome::cancelled) {
    const std::uint32_t in_flight = places_.in_flight();
    const std::lock_guard lock(mutex_);
    const bool dropped = outcome == Outcome::timeout || outcome == Outcome::overloaded ||
                         latency >= options_.drop_latency;
    most_in_flight_ = std::max(most_in_flight_, in_flight);
    // A quick failure says nothing about how long work takes.
    if (dropped) {
      ++dropped_;
    } else if (outcome == Outcome::success) {
      ++samples_;
      sum_ns_ += static_cast<double>(latency.count());
    }
    if (window_end_ == Instant{}) window_end_ = now + options_.window;
    if (now >= window_end_ && (dropped_ > 0 || samples_ >= options_.minimum_samples)) {
      const std::uint32_t before = places_.limit();
      const std::uint32_t after = bounded(adjust());
      if (after != before) changed = after;
      adjusted_ += after != before ? 1 : 0;
      samples_ = dropped_ = most_in_flight_ = 0;
      sum_ns_ = 0;
      window_end_ = now + options_.window;
    }
  }
  places_.give_back(partition);
  if (changed != 0) places_.set_limit(changed);
}

double AdaptiveLimit::adjust() noexcept {
  const auto ended = static_cast<double>(samples_ + dropped_);
  if (dropped_ > 0 && dropped_ >= options_.drop_ratio * ended) {
    limit_ *= std::clamp(options_.backoff, 0.1, 0.99);
    probe_ = Probe::none;
    ++backed_off_;
  } else if (samples_ > 0) {
    const double average = std::max(sum_ns_ / samples_, 1.0);
    if (probe_ == Probe::draining) {
      probe_ = Probe::measuring;  // this window still had the calls of before in it
      return limit_ / 2;
    }
    if (probe_ == Probe::measuring) {
      probe_ = Probe::none;
      best_ns_ = average;
      return limit_;
    }
    limit_ = by_gradient(average);
    above_best_ = average > best_ns_ * kNearBest ? above_best_ + 1 : 0;
    if (above_best_ > options_.probe_every) {
      above_best_ = 0;
      probe_ = Probe::draining;
      return limit_ / 2;
    }
  }
  const double floor = std::max(options_.floor, 1u);
  limit_ = std::clamp(limit_, floor, std::clamp<double>(options_.ceiling, floor, kMaxInFlight));
  return limit_;
}

double AdaptiveLimit::by_gradient(double average) noexcept {
  if (best_ns_ == 0 || average < best_ns_) best_ns_ = average;
  const double gradient = std::clamp(options_.tolerance * best_ns_ / average, 0.5, 1.0);
  // Room for a queue: without it the limit could never grow past where it is.
  const double aim = limit_ * gradient + std::sqrt(limit_);
  const bool half_used = most_in_flight_ * 2.0 >= limit_;
  if (aim > limit_ && !half_used) return limit_;
  return limit_ + (aim - limit_) * std::clamp(options_.smoothing, 0.01, 1.0);
}

void AdaptiveLimit::reconfigure(const AdaptiveOptions& options) noexcept {
  std::uint32_t limit = 0;
  {
    const std::lock_guard lock(mutex_);
    options_ = options;
    limit = bounded(limit_);
    limit_ = std::clamp<double>(limit_, limit, limit + 1.0);
  }
  places_.reconfigure(places_of(options, limit));
}

AdaptiveSnapshot AdaptiveLimit::snapshot() const {
  const std::lock_guard lock(mutex_);
  return {.places = places_.stats(),
          .limit = limit_,
          .best = Duration(static_cast<Duration::rep>(best_ns_)),
          .adjusted = adjusted_,
          .backed_off = backed_off_};
}

}  // namespace sluice::resilience
