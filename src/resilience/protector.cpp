// Entering and ending a guarded call.
#include "sluice/resilience/protector.hpp"

#include <algorithm>
#include <bit>

namespace sluice::resilience {
namespace {

constexpr Mode mode_in(std::uint64_t modes, Policy policy) noexcept {
  return static_cast<Mode>(modes >> (2 * static_cast<unsigned>(policy)) & 3u);
}
constexpr bool on(std::uint64_t modes, Policy policy) noexcept {
  return mode_in(modes, policy) != Mode::off;
}

constexpr std::uint64_t mask(std::initializer_list<Policy> policies) noexcept {
  std::uint64_t bits = 0;
  for (const Policy policy : policies)
    bits |= std::uint64_t{3} << (2 * static_cast<unsigned>(policy));
  return bits;
}
constexpr double in_seconds(Duration duration) noexcept {
  return static_cast<double>(duration.count()) / 1e9;
}
constexpr std::uint64_t kRates =
    mask({Policy::rate, Policy::warm_up, Policy::hot_keys, Policy::pacing});
constexpr std::uint64_t kPlaces = mask({Policy::bulkhead, Policy::adaptive});

// Whether some policy might take something although another one then refuses.
bool several(std::uint64_t modes) noexcept {
  std::uint64_t asked = modes & (kRates | kPlaces);
  asked = (asked | asked >> 1) & 0x5555'5555'5555'5555ull;
  return std::popcount(asked) > 1;
}

}  // namespace

void GuardPermit::complete(Outcome outcome, Instant now) noexcept {
  if (Protector* protector = std::exchange(protector_, nullptr))
    protector->end(*this, outcome, now);
}

void GuardPermit::cancel() noexcept { complete(Outcome::cancelled, started_); }

bool Protector::refuse(std::uint64_t modes, Policy policy, Block& block) noexcept {
  const auto index = static_cast<std::size_t>(policy);
  if (mode_in(modes, policy) == Mode::observe) {
    would_block_[index].fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  blocked_[index].fetch_add(1, std::memory_order_relaxed);
  block.policy = policy;
  block.shadow = shadow_;
  block.version = version_.load(std::memory_order_relaxed);
  block.rule = *pattern_.load(std::memory_order_acquire);
  return true;
}

void Protector::count_block(Policy policy, bool enforced) noexcept {
  auto& counts = enforced ? blocked_ : would_block_;
  counts[static_cast<std::size_t>(policy)].fetch_add(1, std::memory_order_relaxed);
}

// An operator who forces a breaker open stops calls, whatever its rule's verdicts are worth.
std::uint64_t Protector::ordered(std::uint64_t modes) const noexcept {
  if (breaker_->state() != BreakerState::forced_open) return modes;
  return (modes & ~mask({Policy::breaker})) |
         static_cast<std::uint64_t>(Mode::enforce) << shift(Policy::breaker);
}

bool Protector::ask_first(std::uint64_t modes, const CallInfo& call, GuardPermit& permit,
                          Block& block) noexcept {
  if (on(modes, Policy::breaker)) {
    if (breaker_->enter(call.now, permit.ticket_, block))
      permit.held_ |= bit(Policy::breaker);
    else if (refuse(ordered(modes), Policy::breaker, block))
      return false;
  }
  if (on(modes, Policy::throttle)) {
    const bool enforced = mode_in(modes, Policy::throttle) == Mode::enforce;
    // A call that is refused here is counted there; one that only would be is counted at its end.
    const bool passes =
        enforced ? throttle_->try_pass(call.now, block) : throttle_->would_pass(call.now, block);
    if (!passes && refuse(modes, Policy::throttle, block)) return false;
    permit.held_ |= bit(Policy::throttle);
  }
  if (mode_in(modes, Policy::timeout) == Mode::observe) permit.held_ |= bit(Policy::timeout);
  return true;
}

bool Protector::refuse_rate(std::uint64_t modes, Policy policy, const RateAnswer& answer,
                            const CallInfo& call, Block& block) noexcept {
  if (!refuse(modes, policy, block)) return false;
  block.retry_after = answer.wait;
  block.observed = call.weight;
  switch (policy) {
    case Policy::rate:
      block.threshold = static_cast<double>(rate_->available(call.now));
      return true;
    case Policy::hot_keys:
      block.threshold = static_cast<double>(hot_keys_->available(call.now, call.hot_key));
      return true;
    default:
      break;
  }
  const auto [limit, max_wait] = policy == Policy::pacing ? pacing_->bounds() : warm_up_->bounds();
  if (answer.wait == kNoRetryAfter) {  // more than ever passes at once
    block.threshold = static_cast<double>(limit);
  } else {
    block.observed = in_seconds(answer.wait + max_wait);
    block.threshold = in_seconds(max_wait);
  }
  return true;
}

// Asked before a place is taken, so that a refusal has taken no tokens.
bool Protector::peek_rates(std::uint64_t modes, const CallInfo& call, Block& block) noexcept {
  const auto refused = [&](Policy policy, const RateAnswer& answer) {
    // What is only observed is counted when it is taken.
    return !answer.passed && mode_in(modes, policy) == Mode::enforce &&
           refuse_rate(modes, policy, answer, call, block);
  };
  if (on(modes, Policy::rate) && refused(Policy::rate, rate_->peek(call.now, call.weight)))
    return false;
  if (on(modes, Policy::warm_up) && refused(Policy::warm_up, warm_up_->peek(call.now, call.weight)))
    return false;
  if (on(modes, Policy::hot_keys) && !call.hot_key.empty() &&
      refused(Policy::hot_keys, hot_keys_->peek(call.now, call.hot_key, call.weight)))
    return false;
  return !on(modes, Policy::pacing) ||
         !refused(Policy::pacing, pacing_->peek(call.now, call.weight));
}

bool Protector::take_rates(std::uint64_t modes, const CallInfo& call, Duration patience,
                           GuardPermit& permit, Taken& taken, Block& block) noexcept {
  auto& [rate, warm_up, hot, pacing] = taken;
  // A turn that comes when nobody waits for it any more is a refusal like any other.
  const auto too_late = [&](Policy policy, const RateAnswer& answer) {
    if (answer.wait <= Duration::zero() || answer.wait < patience ||
        mode_in(modes, policy) == Mode::observe || !refuse(modes, policy, block))
      return false;
    block.retry_after = answer.wait;
    block.observed = in_seconds(answer.wait);
    block.threshold = in_seconds(patience);
    return true;
  };
  const auto wait_for = [&](Policy policy, const RateAnswer& answer) {
    if (answer.wait <= Duration::zero()) return;
    // Waiting would be an effect: where it is only observed, it is counted.
    if (mode_in(modes, policy) == Mode::observe)
      count_block(policy, false);
    else
      permit.wait_ = std::max(permit.wait_, answer.wait);
  };
  if (on(modes, Policy::rate)) {
    rate = rate_->try_take(call.now, call.weight);
    if (!rate.passed && refuse_rate(modes, Policy::rate, rate, call, block)) return false;
  }
  bool refused = false;
  if (on(modes, Policy::warm_up)) {
    warm_up = warm_up_->try_take(call.now, call.weight);
    if (!warm_up.passed)
      refused = refuse_rate(modes, Policy::warm_up, warm_up, call, block);
    else if (refused = too_late(Policy::warm_up, warm_up); !refused)
      wait_for(Policy::warm_up, warm_up);
  }
  if (!refused && on(modes, Policy::hot_keys) && !call.hot_key.empty()) {
    hot = hot_keys_->try_take(call.now, call.hot_key, call.weight);
    if (!hot.passed) refused = refuse_rate(modes, Policy::hot_keys, hot, call, block);
  }
  if (!refused && on(modes, Policy::pacing)) {
    pacing = pacing_->try_take(call.now, call.weight);
    if (!pacing.passed)
      refused = refuse_rate(modes, Policy::pacing, pacing, call, block);
    else if (refused = too_late(Policy::pacing, pacing); !refused)
      wait_for(Policy::pacing, pacing);
  }
  if (refused) give_back(taken, call);
  return !refused;
}

void Protector::give_back(const Taken& taken, const CallInfo& call) noexcept {
  const auto took = [](const RateAnswer& answer) { return answer.after != answer.before; };
  if (took(taken.pacing)) pacing_->give_back(taken.pacing);
  if (took(taken.hot)) hot_keys_->give_back(call.hot_key, taken.hot);
  if (took(taken.warm_up)) warm_up_->give_back(taken.warm_up);
  if (took(taken.rate)) rate_->give_back(taken.rate);
}

bool Protector::ask_place(std::uint64_t modes, Policy policy, const CallInfo& call,
                          GuardPermit& permit, Block& block) noexcept {
  if (places(policy).try_take(call.partition, call.priority, block)) {
    permit.held_ |= bit(policy);
    return true;
  }
  return !refuse(modes, policy, block);
}

std::expected<GuardPermit, Block> Protector::try_enter(const CallInfo& call) noexcept {
  const std::uint64_t modes = modes_.load(std::memory_order_acquire);
  std::expected<GuardPermit, Block> answer;
  GuardPermit& permit = *answer;
  permit.protector_ = this;
  permit.started_ = call.now;
  permit.partition_ = call.partition;
  Block block;
  const auto take = [&] {  // what never waits is undone by take_rates() itself
    Taken taken;
    return take_rates(modes, call, Duration::max(), permit, taken, block);
  };
  const bool passed =
      !denied(modes, block) && ask_first(modes, call, permit, block) &&
      (!several(modes) || peek_rates(modes, call, block)) &&
      (!on(modes, Policy::bulkhead) || ask_place(modes, Policy::bulkhead, call, permit, block)) &&
      (!on(modes, Policy::adaptive) || ask_place(modes, Policy::adaptive, call, permit, block)) &&
      ((modes & kRates) == 0 || take());
  if (passed) {
    passed_.fetch_add(1, std::memory_order_relaxed);
    return answer;
  }
  answer = std::unexpected(block);  // the permit goes, and with it what it took
  return answer;
}

bool Protector::denied(std::uint64_t modes, Block& block) noexcept {
  if ((modes & mask({Policy::missing_rule, Policy::overflow})) == 0) [[likely]]
    return false;
  return refuse(modes, on(modes, Policy::overflow) ? Policy::overflow : Policy::missing_rule,
                block);
}

void Protector::end(GuardPermit& permit, Outcome outcome, Instant now) noexcept {
  const Duration latency = now - permit.started_;
  if ((permit.held_ & bit(Policy::breaker)) != 0)
    breaker_->leave(permit.ticket_, outcome, latency, now);
  if ((permit.held_ & bit(Policy::throttle)) != 0) throttle_->on_end(outcome, now);
  if ((permit.held_ & bit(Policy::bulkhead)) != 0) bulkhead_->give_back(permit.partition_);
  if ((permit.held_ & bit(Policy::adaptive)) != 0)
    adaptive_->done(permit.partition_, outcome, latency, now);
  if ((permit.held_ & bit(Policy::timeout)) != 0 &&
      latency > timeout_.load(std::memory_order_relaxed))
    count_block(Policy::timeout, false);
}

Instant Protector::attempt_deadline(Instant now, Instant deadline) const noexcept {
  if (mode(Policy::timeout) != Mode::enforce) return deadline;
  const Duration timeout = timeout_.load(std::memory_order_relaxed);
  return timeout < deadline - now ? now + timeout : deadline;
}

Duration Protector::deadline_margin() const noexcept {
  return mode(Policy::timeout) == Mode::enforce ? margin_.load(std::memory_order_relaxed)
                                                : Duration::zero();
}

}  // namespace sluice::resilience
