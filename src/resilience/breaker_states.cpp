// How the breaker changes state: what trips it, how trials are judged, how long it stays open.
#include <algorithm>
#include <cmath>

#include "resilience/breaker_impl.hpp"

namespace sluice::resilience {
namespace {

// So that 0.3 × 10 is three, not four.
constexpr double kRounding = 1e-9;

std::uint32_t part_of(double ratio, std::uint32_t n) {
  return std::max(static_cast<std::uint32_t>(std::ceil(ratio * n - kRounding)), 1u);
}

}  // namespace

std::string_view to_string(BreakerState state) noexcept {
  static constexpr std::array<std::string_view, 7> kNames{
      "closed", "open", "half_open", "forced_open", "forced_closed", "disabled", "metrics_only"};
  return kNames[static_cast<std::size_t>(state)];
}

std::string_view to_string(BreakerReason reason) noexcept {
  static constexpr std::array<std::string_view, 9> kNames{
      "failure_ratio", "slow_ratio",    "failures",       "consecutive",  "isolation_over",
      "trials_failed", "trials_passed", "operator_order", "configuration"};
  return kNames[static_cast<std::size_t>(reason)];
}

Breaker::Impl::Impl(BreakerOptions o, Random& r, Listener l)
    : options(o), random(r), listener(std::move(l)) {
  window.configure(options);
  history.reserve(kBreakerHistory);
}

bool Breaker::Impl::count_quickly(std::uint64_t generation, Duration latency,
                                  Instant now) noexcept {
  std::uint64_t seen = quick.load(std::memory_order_acquire);
  const std::int64_t at = now.time_since_epoch().count();
  while ((seen & ~kQuickCountMax) == quick_of(generation) &&
         (seen & kQuickCountMax) < kQuickCountMax) {
    if (at < slot_begin.load(std::memory_order_relaxed) ||
        at >= slot_end.load(std::memory_order_relaxed) ||
        latency >= slow_after.load(std::memory_order_relaxed))
      return false;
    if (quick.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void Breaker::Impl::disarm() noexcept {
  const std::uint64_t seen = quick.exchange(0, std::memory_order_acq_rel);
  if ((seen & kQuickCountMax) == 0) return;
  window.add_healthy(seen & kQuickCountMax);
  consecutive = 0;
}

void Breaker::Impl::arm() noexcept {
  const std::uint64_t now = word.load(std::memory_order_relaxed);
  if (state_of(now) != BreakerState::closed || options.window != BreakerWindow::time) return;
  const BreakerTally& tally = window.tally();
  const bool clean = tally.failures == 0 && tally.slow == 0;
  if (!clean && (tally.calls < options.minimum_calls || reached())) return;
  slot_begin.store(window.slot_begin(), std::memory_order_relaxed);
  slot_end.store(window.slot_end(), std::memory_order_relaxed);
  slow_after.store(options.slow_after, std::memory_order_relaxed);
  quick.store(quick_of(generation_of(now)), std::memory_order_release);
}

std::uint32_t Breaker::Impl::trials() const noexcept {
  return std::clamp(options.trials, 1u, kMaxTrials);
}

void Breaker::Impl::expire_trials(Instant now) noexcept {
  for (Trial& trial : trial_slots)
    if (trial.out && trial.expires <= now) {
      trial.out = false;
      --running;
    }
}

bool Breaker::Impl::take_trial(Instant now, BreakerTicket& ticket) noexcept {
  if (running + passed + failed >= trials()) expire_trials(now);
  if (running + passed + failed >= trials()) return false;
  for (std::size_t i = 0; i < trial_slots.size(); ++i) {
    Trial& trial = trial_slots[i];
    if (trial.out) continue;
    trial.out = true;
    trial.serial = ++next_serial;
    trial.expires = trial_end(now);
    ++running;
    ticket.trial = static_cast<std::uint8_t>(i);
    ticket.serial = trial.serial;
    return true;
  }
  return false;
}

bool Breaker::Impl::renew_trial(const BreakerTicket& ticket, Instant now) noexcept {
  const std::uint64_t generation = generation_of(word.load(std::memory_order_relaxed));
  Trial& trial = trial_slots[ticket.trial];
  if (generation != ticket.generation || !trial.out || trial.serial != ticket.serial) return false;
  trial.expires = trial_end(now);
  return true;
}

bool Breaker::Impl::end_trial(const BreakerTicket& ticket) noexcept {
  Trial& trial = trial_slots[ticket.trial];
  if (!trial.out || trial.serial != ticket.serial) return false;
  trial.out = false;
  --running;
  return true;
}

std::optional<Breaker::Impl::Reached> Breaker::Impl::reached() const noexcept {
  const BreakerTally& tally = window.tally();
  if (tally.calls < options.minimum_calls || (tally.failures == 0 && tally.slow == 0))
    return std::nullopt;
  const auto calls = static_cast<double>(tally.calls);
  const std::array<Reached, 4> values{{
      {BreakerReason::failure_ratio, static_cast<double>(tally.failures) / calls,
       options.failure_ratio},
      {BreakerReason::slow_ratio, static_cast<double>(tally.slow) / calls, options.slow_ratio},
      {BreakerReason::failures, static_cast<double>(tally.failures),
       static_cast<double>(options.failures)},
      {BreakerReason::consecutive, static_cast<double>(consecutive),
       static_cast<double>(options.consecutive)},
  }};
  for (const Reached& one : values)
    if (one.bound > 0 && one.value >= one.bound - kRounding) return one;
  return std::nullopt;
}

Breaker::Impl::Told Breaker::Impl::judge_window(Instant now) {
  const auto trips = reached();
  if (!trips) return std::nullopt;
  return change(BreakerState::open, trips->reason, now, trips->value, trips->bound);
}

Breaker::Impl::Told Breaker::Impl::judge_trials(Instant now) {
  const std::uint32_t n = trials();
  const std::uint32_t may_come = n - std::min(n, passed + failed);
  const std::uint32_t failures_needed = options.trial_failures > 0
                                            ? std::min(options.trial_failures, n)
                                            : part_of(options.failure_ratio, n);
  const std::uint32_t slow_needed = options.slow_ratio > 0 ? part_of(options.slow_ratio, n) : n + 1;
  if (failed >= failures_needed)
    return change(BreakerState::open, BreakerReason::trials_failed, now, failed, failures_needed);
  if (slow >= slow_needed)
    return change(BreakerState::open, BreakerReason::trials_failed, now, slow, slow_needed);
  // Certain as soon as what may still come cannot fail it any more.
  if (failed + may_come >= failures_needed || slow + may_come >= slow_needed) return std::nullopt;
  return change(BreakerState::closed, BreakerReason::trials_passed, now, failed, failures_needed);
}

Duration Breaker::Impl::next_isolation(Instant now) {
  const BreakerState from = state_of(word.load(std::memory_order_relaxed));
  const bool was_quiet = from != BreakerState::half_open && now - closed_at > options.quiet;
  streak = opened_before && !was_quiet ? streak + 1 : 0;
  opened_before = true;
  const double grown = static_cast<double>(options.isolation.count()) *
                       std::pow(2.0, static_cast<double>(std::min(streak, 62u)));
  const double bounded = std::min(grown, static_cast<double>(options.isolation_max.count()));
  const double jitter = std::clamp(options.isolation_jitter, 0.0, 1.0) * random.unit();
  return Duration(static_cast<Duration::rep>(bounded * (1 - jitter)));
}

Breaker::Impl::Told Breaker::Impl::change(BreakerState to, BreakerReason reason, Instant now,
                                          double value, double bound) {
  const std::uint64_t before = word.load(std::memory_order_relaxed);
  BreakerTransition told{.from = state_of(before),
                         .to = to,
                         .reason = reason,
                         .at = now,
                         .generation = generation_of(before) + 1,
                         .observed = value,
                         .threshold = bound};
  if (to == BreakerState::open) {
    told.isolation = next_isolation(now);
    open_until.store((now + told.isolation).time_since_epoch().count(), std::memory_order_relaxed);
  }
  if (to == BreakerState::open || to == BreakerState::forced_open) {
    observed.store(value, std::memory_order_relaxed);
    threshold.store(bound, std::memory_order_relaxed);
  }
  if (to == BreakerState::closed) {
    window.clear();
    consecutive = 0;
    closed_at = now;
  }
  for (Trial& trial : trial_slots) trial.out = false;
  running = passed = failed = slow = 0;
  if (history.size() == kBreakerHistory) history.erase(history.begin());
  history.push_back(told);
  word.store(told.generation << kStateBits | static_cast<std::uint64_t>(to),
             std::memory_order_release);
  return told;
}

}  // namespace sluice::resilience
