// Putting a rule into effect, and showing what is in effect.
#include <algorithm>

#include "resilience/rule_text.hpp"
#include "sluice/resilience/protector.hpp"

namespace sluice::resilience {

namespace {

const Rule& no_rule() {
  static const Rule none;
  return none;
}

}  // namespace

Protector::Protector(std::string name, bool shadow, Random& random, Listener listener, std::string app)
    : shadow_(shadow), name_(std::move(name)), app_(std::move(app)), random_(random), listener_(std::move(listener)) {
  patterns_.push_back(std::make_unique<const std::string>());
  pattern_.store(patterns_.front().get(), std::memory_order_relaxed);
}

Protector::Effect Protector::preview(const Rule* wanted) const {
  const Rule& rule = wanted != nullptr ? *wanted : no_rule();
  const std::lock_guard lock(mutex_);
  const Rule& before = rule_ ? *rule_ : no_rule();
  Effect effect;
  std::vector<FieldTexts> had, gets;
  policies(before, [&](Policy, const auto& ruled) { had.push_back(texts_of(ruled)); });
  policies(rule, [&](Policy, const auto& ruled) { gets.push_back(texts_of(ruled)); });
  effect.changes = had != gets;
  if (!before.breaker || before.breaker->mode == Mode::off || !breaker_) return effect;
  const bool stays = rule.breaker && rule.breaker->mode != Mode::off;
  effect.closes = !stays && breaker_->state() != BreakerState::closed && !by_order(breaker_->state());
  effect.resets = stays && rule.breaker->options.window != before.breaker->options.window;
  return effect;
}

void Protector::apply(const Rule* wanted, std::uint32_t version, Instant now,
                      std::optional<Policy> deny) {
  const Rule& rule = wanted != nullptr ? *wanted : no_rule();
  std::unique_lock lock(mutex_);
  const Rule before = rule_.value_or(no_rule());
  std::uint64_t modes = 0;
  if (deny) modes |= static_cast<std::uint64_t>(Mode::enforce) << shift(*deny);
  // Makes the policy the first time, later changes it in place. Nothing is done without a change.
  const auto put = [&](Policy policy, const auto& old, const auto& ruled, auto& held,
                       const auto& make, const auto& change) {
    if (!ruled) return;
    modes |= static_cast<std::uint64_t>(ruled->mode) << shift(policy);
    if (!held)
      held = make(ruled->options);
    else if (texts_of(old) != texts_of(ruled))
      change(ruled->options);
  };
  put(
      Policy::breaker, before.breaker, rule.breaker, breaker_,
      [&](const BreakerOptions& o) {
        Breaker::Listener told;
        if (listener_) told = [this](const BreakerTransition& t) { listener_(*this, t); };
        return std::make_unique<Breaker>(o, random_, std::move(told));
      },
      [&](const BreakerOptions& o) { (void)breaker_->reconfigure(o, now); });
  put(
      Policy::throttle, before.throttle, rule.throttle, throttle_,
      [&](const ThrottleOptions& o) { return std::make_unique<Throttle>(o, random_); },
      [&](const ThrottleOptions& o) { throttle_->reconfigure(o, now); });
  put(
      Policy::rate, before.rate, rule.rate, rate_,
      [](const RateOptions& o) { return std::make_unique<TokenBucket>(o); },
      [&](const RateOptions& o) { rate_->reconfigure(o); });
  put(
      Policy::warm_up, before.warm_up, rule.warm_up, warm_up_,
      [](const WarmUpOptions& o) { return std::make_unique<WarmUp>(o); },
      [&](const WarmUpOptions& o) { warm_up_->reconfigure(o); });
  put(
      Policy::hot_keys, before.hot_keys, rule.hot_keys, hot_keys_,
      [&](const HotKeyOptions& o) { return std::make_unique<HotKeys>(o, random_); },
      [&](const HotKeyOptions& o) { hot_keys_->reconfigure(o); });
  put(
      Policy::pacing, before.pacing, rule.pacing, pacing_,
      [](const PacerOptions& o) { return std::make_unique<Pacer>(o); },
      [&](const PacerOptions& o) { pacing_->reconfigure(o); });
  put(
      Policy::bulkhead, before.bulkhead, rule.bulkhead, bulkhead_,
      [](const BulkheadOptions& o) { return std::make_unique<Bulkhead>(o); },
      [&](const BulkheadOptions& o) { bulkhead_->reconfigure(o); });
  put(
      Policy::adaptive, before.adaptive, rule.adaptive, adaptive_,
      [](const AdaptiveOptions& o) { return std::make_unique<AdaptiveLimit>(o); },
      [&](const AdaptiveOptions& o) { adaptive_->reconfigure(o); });
  if (rule.timeout) {
    modes |= static_cast<std::uint64_t>(rule.timeout->mode) << shift(Policy::timeout);
    timeout_.store(rule.timeout->options.timeout, std::memory_order_relaxed);
    margin_.store(rule.timeout->options.margin, std::memory_order_relaxed);
  }
  if (rule.retry) {
    modes |= static_cast<std::uint64_t>(rule.retry->mode) << shift(Policy::retry);
    budget_.reconfigure(
        {.tokens = rule.retry->options.budget_tokens, .ratio = rule.retry->options.budget_ratio});
  }
  if (rule.hedge) modes |= static_cast<std::uint64_t>(rule.hedge->mode) << shift(Policy::hedge);

  // An operator's order is no verdict of the rule and outlives it: kept as if observed, where forced_open still
  // refuses. The rule that comes back finds it as it was.
  if (breaker_ && (modes >> shift(Policy::breaker) & 3u) == 0 && by_order(breaker_->state()))
    modes |= static_cast<std::uint64_t>(Mode::observe) << shift(Policy::breaker);

  const auto same = [&](const auto& known) { return *known == rule.pattern; };
  auto known = std::ranges::find_if(patterns_, same);
  if (known == patterns_.end()) {
    patterns_.push_back(std::make_unique<const std::string>(rule.pattern));
    known = patterns_.end() - 1;
  }
  pattern_.store(known->get(), std::memory_order_release);
  version_.store(version, std::memory_order_relaxed);
  modes_.store(modes, std::memory_order_release);
  rule_ = rule;
  lock.unlock();
  close_unruled(now);
}

// A breaker nobody asks any more must not come back open by a later rule. Listeners are told outside
// the lock.
void Protector::close_unruled(Instant now) {
  if (!has(Policy::breaker) && breaker_ && breaker_->state() != BreakerState::closed)
    (void)breaker_->force(BreakerState::closed, now, BreakerReason::configuration);
}

Status Protector::force(BreakerState state, Instant now) {
  Status status = breaker_->force(state, now);
  {
    const std::lock_guard lock(mutex_);
    const bool ruled = rule_ && rule_->breaker && rule_->breaker->mode != Mode::off;
    // An order that outlived its rule is over.
    if (!ruled && !by_order(breaker_->state()))
      modes_.fetch_and(~(std::uint64_t{3} << shift(Policy::breaker)), std::memory_order_acq_rel);
  }
  close_unruled(now);
  return status;
}

void Protector::inherit(BreakerState order, Instant now) {
  if (Breaker* const own = breaker()) own->inherit(order, now);
}

RetryOptions Protector::retry_options() const {
  const std::lock_guard lock(mutex_);
  return rule_ && rule_->retry ? rule_->retry->options : RetryOptions{.attempts = 1};
}

HedgeOptions Protector::hedge_options() const {
  const std::lock_guard lock(mutex_);
  return rule_ && rule_->hedge ? rule_->hedge->options : HedgeOptions{.extra = 0};
}

ProtectorSnapshot Protector::snapshot(Instant now) const {
  ProtectorSnapshot shown{.name = name_,
                          .app = app_,
                          .shadow = shadow_,
                          .rule = *pattern_.load(std::memory_order_acquire),
                          .version = version_.load(std::memory_order_relaxed),
                          .passed = passed_.load(std::memory_order_relaxed),
                          .policies = {},
                          .retry_budget = budget_.tokens(),
                          .retry_spent_at = budget_.spent_at(),
                          .retries = retries_.load(std::memory_order_relaxed),
                          .hedges = hedges_.load(std::memory_order_relaxed)};
  for (std::size_t i = 0; i < kPolicies; ++i) {
    const auto policy = static_cast<Policy>(i);
    PolicyCounts counts{.policy = policy,
                        .mode = mode(policy),
                        .blocked = blocked_[i].load(std::memory_order_relaxed),
                        .would_block = would_block_[i].load(std::memory_order_relaxed)};
    if (counts.mode != Mode::off || counts.blocked != 0) shown.policies.push_back(counts);
  }
  if (has(Policy::breaker)) shown.breaker = breaker_->snapshot(now);
  if (has(Policy::bulkhead)) shown.bulkhead = bulkhead_->stats();
  if (has(Policy::adaptive)) shown.adaptive = adaptive_->snapshot();
  if (has(Policy::rate)) shown.tokens = rate_->available(now);
  if (has(Policy::hot_keys)) shown.hot_keys = hot_keys_->stats();
  if (has(Policy::throttle)) shown.throttle_refusal = throttle_->refusal(now);
  return shown;
}

}  // namespace sluice::resilience
