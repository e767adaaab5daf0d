#include "sluice/resilience/warm_up.hpp"

#include <algorithm>
#include <cmath>

#include "sluice/resilience/block.hpp"

namespace sluice::resilience {
namespace {

std::int64_t ns(Instant at) noexcept { return at.time_since_epoch().count(); }

}  // namespace

WarmUp::WarmUp(WarmUpOptions options) noexcept : options_(options) {
  derive();
  stored_ = stored_before_ = most_;
}

// The area under the line between knee and most is the warm-up time, and its height goes from the
// stable interval to cold_factor times it: that fixes both.
void WarmUp::derive() noexcept {
  stable_ns_ = static_cast<double>(options_.period.count()) /
               static_cast<double>(std::max<std::uint64_t>(options_.limit, 1));
  const double cold_ns = stable_ns_ * std::max(options_.cold_factor, 1.0);
  const double warm_up = static_cast<double>(std::max(options_.warm_up, Duration(0)).count());
  knee_ = 0.5 * warm_up / stable_ns_;
  most_ = knee_ + 2 * warm_up / (stable_ns_ + cold_ns);
  slope_ns_ = most_ > knee_ ? (cold_ns - stable_ns_) / (most_ - knee_) : 0;
}

double WarmUp::stored_at(Instant now) const noexcept {
  const double idle = static_cast<double>(std::max<std::int64_t>(ns(now) - next_ns_, 0));
  const double warm_up = static_cast<double>(std::max(options_.warm_up, Duration(1)).count());
  return std::min(most_, stored_ + idle * most_ / warm_up);
}

double WarmUp::price(double stored, double n) const noexcept {
  const double above = std::max(stored - knee_, 0.0);
  const double dear = std::min(above, n);
  return n * stable_ns_ + dear * slope_ns_ * (above - dear / 2);
}

RateAnswer WarmUp::judge(Instant now, std::uint32_t n) const noexcept {
  RateAnswer answer{.before = next_ns_, .after = next_ns_};
  if (n == 0) return answer;
  if (n > options_.limit) {
    answer.passed = false;
    answer.wait = kNoRetryAfter;
    return answer;
  }
  const Duration wait(std::max<std::int64_t>(next_ns_ - ns(now), 0));
  if (wait > options_.max_wait) {
    answer.passed = false;
    answer.wait = wait - options_.max_wait;
    return answer;
  }
  answer.wait = wait;
  answer.after =
      std::max(next_ns_, ns(now)) + static_cast<std::int64_t>(std::ceil(price(stored_at(now), n)));
  return answer;
}

RateAnswer WarmUp::try_take(Instant now, std::uint32_t n) noexcept {
  const std::lock_guard lock(mutex_);
  const RateAnswer answer = judge(now, n);
  if (answer.passed && n > 0) {
    stored_before_ = stored_;
    stored_ = std::max(0.0, stored_at(now) - n);
    next_ns_ = answer.after;
  }
  return answer;
}

RateAnswer WarmUp::peek(Instant now, std::uint32_t n) const noexcept {
  const std::lock_guard lock(mutex_);
  return judge(now, n);
}

void WarmUp::give_back(const RateAnswer& answer) noexcept {
  const std::lock_guard lock(mutex_);
  if (!answer.passed || answer.after == answer.before || next_ns_ != answer.after) return;
  next_ns_ = answer.before;
  stored_ = stored_before_;
}

std::pair<std::uint64_t, Duration> WarmUp::bounds() const noexcept {
  const std::lock_guard lock(mutex_);
  return {options_.limit, options_.max_wait};
}

double WarmUp::warmth(Instant now) const noexcept {
  const std::lock_guard lock(mutex_);
  if (most_ <= knee_) return 1;
  return 1 - std::max(stored_at(now) - knee_, 0.0) / (most_ - knee_);
}

void WarmUp::reconfigure(const WarmUpOptions& options) noexcept {
  const std::lock_guard lock(mutex_);
  const double part = most_ > 0 ? stored_ / most_ : 1;
  options_ = options;
  derive();
  stored_ = stored_before_ = part * most_;
}

}  // namespace sluice::resilience
