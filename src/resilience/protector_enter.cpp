// Entering with waits: in the bulkhead's queue and for a turn of the pacer.
#include "sluice/resilience/protector.hpp"

namespace sluice::resilience {

// A call starts under what the breaker says when it starts, not when it came.
bool Protector::ask_breaker_again(std::uint64_t modes, Instant now, GuardPermit& permit, Block& block) noexcept {
  if ((modes >> shift(Policy::breaker) & 3u) == 0) return true;
  const bool held = (permit.held_ & bit(Policy::breaker)) != 0;
  // What is only observed was counted when it came; an order to stop holds for it too.
  if (!held && breaker_->state() != BreakerState::forced_open) return true;
  permit.held_ &= static_cast<std::uint16_t>(~bit(Policy::breaker));
  if (held ? breaker_->enter_again(now, permit.ticket_, block) : breaker_->enter(now, permit.ticket_, block)) {
    permit.held_ |= bit(Policy::breaker);
    return true;
  }
  return !refuse(ordered(modes), Policy::breaker, block);
}

Task<std::optional<Block>> Protector::enter(CallInfo call, Instant deadline, GuardPermit& permit,
                                            FailureKind& cancelled) {
  TaskContext& context = co_await current_context();
  const std::uint64_t modes = modes_.load(std::memory_order_acquire);
  cancelled = FailureKind::none;
  Block block;
  GuardPermit mine;
  mine.protector_ = this;
  mine.started_ = call.now;
  mine.partition_ = call.partition;
  if (denied(modes, block)) co_return block;
  if (!ask_first(modes, call, mine, block) || !peek_rates(modes, call, block)) co_return block;
  bool waited = false;
  for (const Policy policy : kPlacePolicies) {
    if ((modes >> shift(policy) & 3u) == 0) continue;
    if (places(policy).try_take(call.partition, call.priority, block)) {
      mine.held_ |= bit(policy);
      continue;
    }
    // What is only observed does not wait either.
    const bool enforced = static_cast<Mode>(modes >> shift(policy) & 3u) == Mode::enforce;
    if (enforced) {
      const FailureKind why = co_await places(policy).turn(call.partition, call.priority, deadline);
      waited = true;
      if (why == FailureKind::none) {
        mine.held_ |= bit(policy);
        continue;
      }
      if (context.scope != nullptr && context.scope->cancelled()) {
        cancelled = why;
        co_return std::nullopt;
      }
    }
    if (refuse(modes, policy, block)) co_return block;
  }
  if (waited && !ask_breaker_again(modes, context.lane->clock().now(), mine, block)) co_return block;
  const Duration patience = deadline == kNever ? Duration::max() : deadline - call.now;
  Taken taken;
  if (!take_rates(modes, call, patience, mine, taken, block)) co_return block;
  if (const Duration wait = std::exchange(mine.wait_, Duration::zero()); wait > Duration::zero()) {
    // The turn was promised from the call's one time on; the queue has taken some of the wait.
    const Duration left = call.now + wait - context.lane->clock().now();
    if (left > Duration::zero()) {
      cancelled = co_await sleep_for(left);
      if (cancelled != FailureKind::none) {
        give_back(taken, call);
        co_return std::nullopt;
      }
    }
    waited = true;
    if (!ask_breaker_again(modes, context.lane->clock().now(), mine, block)) {
      give_back(taken, call);
      co_return block;
    }
  }
  if (waited) mine.began(context.lane->clock().now());
  passed_.fetch_add(1, std::memory_order_relaxed);
  permit = std::move(mine);
  co_return std::nullopt;
}

}  // namespace sluice::resilience
