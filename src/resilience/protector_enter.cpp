// Entering with waits: in the bulkhead's queue and for a turn of the pacer.
#include "sluice/resilience/protector.hpp"

namespace sluice::resilience {

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
  }
  // Ordered to stop while it waited: the order holds for who has not left yet.
  const bool guarded = (modes >> shift(Policy::breaker) & 3u) != 0;
  if (waited && guarded && breaker_->state() == BreakerState::forced_open && refuse(ordered(modes), Policy::breaker, block)) {
    block.retry_after = kNoRetryAfter;
    give_back(taken, call);
    co_return block;
  }
  if (waited) mine.began(context.lane->clock().now());
  passed_.fetch_add(1, std::memory_order_relaxed);
  permit = std::move(mine);
  co_return std::nullopt;
}

}  // namespace sluice::resilience
