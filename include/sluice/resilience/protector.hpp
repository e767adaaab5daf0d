// All policies of one command. Entering asks them in the order of Policy, all or nothing; what was
// taken before a refusal goes back. Passing and refusing allocate nothing.
#pragma once
#include <array>
#include <atomic>
#include <expected>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "sluice/resilience/latency_quantile.hpp"
#include "sluice/resilience/rule.hpp"

namespace sluice::resilience {

class Protector;

/// What a call took. Move-only; destroyed without complete(): the call is taken for cancelled and
/// everything goes back. Its protector must outlive it.
class GuardPermit {
 public:
  GuardPermit() = default;
  GuardPermit(GuardPermit&& other) noexcept { take(other); }
  GuardPermit& operator=(GuardPermit&& other) noexcept {
    if (this != &other) {
      cancel();
      take(other);
    }
    return *this;
  }
  ~GuardPermit() { cancel(); }

  /// Wait so long before calling (pacing); mostly zero. The breaker is not asked again after it, as enter() does.
  Duration wait() const noexcept { return wait_; }
  /// The call itself begins now: what was waited for our own limits is not its latency.
  void began(Instant now) noexcept { started_ = now; }
  void complete(Outcome outcome, Instant now) noexcept;
  void cancel() noexcept;

 private:
  friend class Protector;
  void take(GuardPermit& other) noexcept {
    protector_ = std::exchange(other.protector_, nullptr);
    started_ = other.started_;
    wait_ = other.wait_;
    ticket_ = other.ticket_;
    held_ = other.held_;
    partition_ = other.partition_;
  }
  Protector* protector_ = nullptr;
  Instant started_{};
  Duration wait_{};
  BreakerTicket ticket_;
  std::uint16_t held_ = 0;  // a bit for each Policy that is to be told of the end
  std::uint8_t partition_ = 0;
};

struct PolicyCounts {
  Policy policy = Policy::breaker;
  Mode mode = Mode::off;
  std::uint64_t blocked = 0;      ///< refused
  std::uint64_t would_block = 0;  ///< observed only
};

/// Everything to show of one protector.
struct ProtectorSnapshot {
  std::string name, app;
  bool shadow = false;
  std::string rule;  ///< its pattern; empty: none
  std::uint32_t version = 0;
  std::uint64_t passed = 0;
  std::vector<PolicyCounts> policies;  ///< of those not off
  std::optional<BreakerSnapshot> breaker;
  std::optional<BulkheadStats> bulkhead;
  std::optional<AdaptiveSnapshot> adaptive;
  std::optional<std::uint64_t> tokens;  ///< left in the token bucket
  std::optional<HotKeyStats> hot_keys;
  std::optional<double> throttle_refusal;
  double retry_budget = 0;
  double retry_spent_at = 0;  ///< at this many tokens and fewer nothing is repeated
  std::uint64_t retries = 0;  ///< attempts after the first of a call
  std::uint64_t hedges = 0;   ///< further attempts beside one that runs
};

/// Thread-safe. Policies are made when a rule first names them and kept until the end, so a permit
/// may outlive the rule it was given under.
class alignas(64) Protector {
 public:
  /// Told of its breaker's transitions, outside any lock.
  using Listener = std::function<void(const Protector&, const BreakerTransition&)>;

  /// `random` must outlive it. Without a rule everything passes.
  Protector(std::string name, bool shadow, Random& random, Listener listener = {}, std::string app = "default");
  Protector(const Protector&) = delete;
  Protector& operator=(const Protector&) = delete;

  const std::string& name() const noexcept { return name_; }
  const std::string& app() const noexcept { return app_; }
  bool shadow() const noexcept { return shadow_; }

  /// Never waits: a full bulkhead refuses. `call.now` is the one time all policies see.
  std::expected<GuardPermit, Block> try_enter(const CallInfo& call) noexcept;
  /// `std::optional<Block> b = co_await enter(call, deadline, permit)`: the same, but waits in the
  /// bulkhead's queue; waits for pacing too, so `permit.wait()` is zero. Whoever waited asks the breaker
  /// again: it may have opened since. A cancelled scope ends the wait with what it took given back and the
  /// reason in `cancelled`.
  Task<std::optional<Block>> enter(CallInfo call, Instant deadline, GuardPermit& permit,
                                   FailureKind& cancelled);

  /// When an attempt that starts now must end: the smaller of rule and caller's deadline.
  Instant attempt_deadline(Instant now, Instant deadline) const noexcept;
  Duration deadline_margin() const noexcept;
  /// Observed timeouts do not cut a call: they are counted when it ends.
  Mode mode(Policy policy) const noexcept {
    return static_cast<Mode>(modes_.load(std::memory_order_acquire) >> shift(policy) & 3u);
  }
  RetryOptions retry_options() const;
  HedgeOptions hedge_options() const;
  RetryBudget& budget() noexcept { return budget_; }
  LatencyQuantile& latencies() noexcept { return latencies_; }
  /// Counts a refusal by retry, hedge or timeout, which are asked outside of enter().
  void count_block(Policy policy, bool enforced) noexcept;
  void count_retry() noexcept { retries_.fetch_add(1, std::memory_order_relaxed); }
  void count_hedge() noexcept { hedges_.fetch_add(1, std::memory_order_relaxed); }

  struct Effect {
    bool changes = false;  ///< some field, mode or policy
    bool closes = false;   ///< a breaker that opened by itself loses its rule
    bool resets = false;   ///< a breaker's kind of window changes, so it starts empty
  };
  /// What apply() would do.
  Effect preview(const Rule* rule) const;
  /// Puts a rule into effect (null: none) and keeps all state that fits it, an operator's order to the
  /// breaker also while no rule gives it one. With `deny` everything is refused, as by that policy.
  void apply(const Rule* rule, std::uint32_t version, Instant now,
             std::optional<Policy> deny = std::nullopt);
  /// Null without a breaker.
  Breaker* breaker() noexcept { return has(Policy::breaker) ? breaker_.get() : nullptr; }
  /// Breaker::force; only while there is a breaker().
  Status force(BreakerState state, Instant now);
  /// Breaker::inherit, if there is a breaker().
  void inherit(BreakerState order, Instant now);
  ProtectorSnapshot snapshot(Instant now) const;

 private:
  friend class GuardPermit;
  static constexpr unsigned shift(Policy policy) noexcept {
    return 2 * static_cast<unsigned>(policy);
  }
  static constexpr std::uint16_t bit(Policy policy) noexcept {
    return static_cast<std::uint16_t>(1u << static_cast<unsigned>(policy));
  }
  static constexpr std::array<Policy, 2> kPlacePolicies{Policy::bulkhead, Policy::adaptive};
  bool has(Policy policy) const noexcept { return mode(policy) != Mode::off; }
  std::uint64_t ordered(std::uint64_t modes) const noexcept;
  bool ask_first(std::uint64_t modes, const CallInfo& call, GuardPermit& permit,
                 Block& block) noexcept;
  bool ask_breaker_again(std::uint64_t modes, Instant now, GuardPermit& permit, Block& block) noexcept;
  bool ask_place(std::uint64_t modes, Policy policy, const CallInfo& call, GuardPermit& permit,
                 Block& block) noexcept;
  /// What a call took of the limits on calls per time, to be undone.
  struct Taken {
    RateAnswer rate, warm_up, hot, pacing;
  };
  /// Refused too when the turn is `patience` or more away.
  bool take_rates(std::uint64_t modes, const CallInfo& call, Duration patience, GuardPermit& permit,
                  Taken& taken, Block& block) noexcept;
  void give_back(const Taken& taken, const CallInfo& call) noexcept;
  bool peek_rates(std::uint64_t modes, const CallInfo& call, Block& block) noexcept;
  /// Whether this refusal counts: completes the block, or notes what would have been.
  bool refuse(std::uint64_t modes, Policy policy, Block& block) noexcept;
  bool refuse_rate(std::uint64_t modes, Policy policy, const RateAnswer& answer,
                   const CallInfo& call, Block& block) noexcept;
  bool denied(std::uint64_t modes, Block& block) noexcept;
  void end(GuardPermit& permit, Outcome outcome, Instant now) noexcept;
  void close_unruled(Instant now);
  Bulkhead& places(Policy policy) noexcept {
    return policy == Policy::adaptive ? adaptive_->places() : *bulkhead_;
  }

  // Read by every call, written by reloads.
  std::atomic<std::uint64_t> modes_{0};  // two bits for each Policy
  std::atomic<std::uint32_t> version_{0};
  const bool shadow_;
  std::unique_ptr<Breaker> breaker_;
  std::unique_ptr<Throttle> throttle_;
  std::unique_ptr<TokenBucket> rate_;
  std::unique_ptr<WarmUp> warm_up_;
  std::unique_ptr<HotKeys> hot_keys_;
  std::unique_ptr<Pacer> pacing_;
  std::unique_ptr<Bulkhead> bulkhead_;
  std::unique_ptr<AdaptiveLimit> adaptive_;
  std::atomic<Duration> timeout_{Duration::zero()};
  std::atomic<Duration> margin_{Duration::zero()};

  // Written by every call.
  alignas(64) std::atomic<std::uint64_t> passed_{0};
  std::array<std::atomic<std::uint64_t>, kPolicies> blocked_{};
  std::array<std::atomic<std::uint64_t>, kPolicies> would_block_{};
  std::atomic<std::uint64_t> retries_{0}, hedges_{0};
  RetryBudget budget_;
  LatencyQuantile latencies_;

  const std::string name_, app_;
  Random& random_;
  const Listener listener_;
  std::atomic<const std::string*> pattern_;                   // one of those in `patterns_`
  mutable std::mutex mutex_;                                  // of apply() and what follows
  std::vector<std::unique_ptr<const std::string>> patterns_;  // every pattern it ever had
  std::optional<Rule> rule_;
};

}  // namespace sluice::resilience
