// Waiting for a place. The list is under the bulkhead's lock; a waiter's coroutine is touched on
// its own lane only.
#include "resilience/bulkhead_waiter.hpp"

namespace sluice::resilience {

void Bulkhead::link(Waiter& waiter) noexcept {
  waiter.older = newest_;
  waiter.newer = nullptr;
  (newest_ != nullptr ? newest_->newer : oldest_) = &waiter;
  newest_ = &waiter;
  waiter.queued = true;
  queued_.fetch_add(1, std::memory_order_seq_cst);
}

void Bulkhead::unlink(Waiter& waiter) noexcept {
  (waiter.older != nullptr ? waiter.older->newer : oldest_) = waiter.newer;
  (waiter.newer != nullptr ? waiter.newer->older : newest_) = waiter.older;
  waiter.queued = false;
  queued_.fetch_sub(1, std::memory_order_seq_cst);
}

// The first in order that fits: one partition's queue does not stand in the way of another's.
Bulkhead::Waiter* Bulkhead::next_to_grant() noexcept {
  const bool newest_first = options_.order == QueueOrder::lifo_under_overload &&
                            queued_.load(std::memory_order_relaxed) * 2 >= options_.max_queue;
  std::uint32_t total = 0;
  for (Waiter* waiter = newest_first ? newest_ : oldest_; waiter != nullptr;
       waiter = newest_first ? waiter->older : waiter->newer)
    if (take_word(waiter->partition, waiter->priority, total)) return waiter;
  return nullptr;
}

void Bulkhead::grant_locked(Waiter*& granted) noexcept {
  while (Waiter* waiter = next_to_grant()) {
    unlink(*waiter);
    waiter->newer = granted;  // a list of those to be told
    granted = waiter;
  }
}

void Bulkhead::grant() noexcept {
  Waiter* granted = nullptr;
  {
    const std::lock_guard lock(mutex_);
    grant_locked(granted);
  }
  while (granted != nullptr) {
    Waiter* waiter = std::exchange(granted, granted->newer);
    waiter->lane->post(*waiter);
  }
}

BulkheadTurn Bulkhead::turn(std::uint8_t partition, Priority priority, Instant deadline) noexcept {
  return BulkheadTurn(*this, partition, priority, deadline);
}

bool BulkheadTurn::await_ready() noexcept {
  Block unused;
  return bulkhead_.try_take(partition_, priority_, unused);
}

bool BulkheadTurn::enqueue() noexcept {
  Lane& lane = *context().lane;
  const Instant now = lane.clock().now();
  Instant until = deadline_;
  {
    const std::lock_guard lock(bulkhead_.mutex_);
    const BulkheadOptions& options = bulkhead_.options_;
    if (bulkhead_.queued_.load(std::memory_order_relaxed) >= options.max_queue) {
      answer_ = FailureKind::overloaded;
      return false;
    }
    if (options.max_wait < until - now) until = now + options.max_wait;
    if (until <= now) {
      answer_ = FailureKind::timeout;
      return false;
    }
    waiter_ = new Bulkhead::Waiter;
    waiter_->run = [](Job* job) noexcept {
      auto* waiter = static_cast<Bulkhead::Waiter*>(job);
      Bulkhead& bulkhead = *waiter->bulkhead;
      BulkheadTurn* turn = waiter->turn;
      const std::uint8_t partition = waiter->partition;
      delete waiter;
      if (turn != nullptr) return turn->granted();
      bulkhead.give_back(partition);
    };
    waiter_->bulkhead = &bulkhead_;
    waiter_->turn = this;
    waiter_->lane = &lane;
    waiter_->partition = partition_;
    waiter_->priority = priority_;
    bulkhead_.link(*waiter_);
  }
  if (until != kNever) timer_.arm(lane, until, &BulkheadTurn::timed_out, this);
  bulkhead_.grant();
  return true;
}

void BulkheadTurn::granted() noexcept {
  waiter_ = nullptr;
  timer_.cancel();
  answer_ = FailureKind::none;
  finish();
}

void BulkheadTurn::timed_out(void* owner) noexcept {
  auto* self = static_cast<BulkheadTurn*>(owner);
  {
    const std::lock_guard lock(self->bulkhead_.mutex_);
    if (!self->waiter_->queued) return;  // granted in time: the place is on its way
    self->bulkhead_.unlink(*self->waiter_);
  }
  delete std::exchange(self->waiter_, nullptr);
  self->answer_ = FailureKind::timeout;
  self->finish();
}

void BulkheadTurn::abandon() noexcept {
  timer_.cancel();
  if (waiter_ == nullptr) return;
  Bulkhead::Waiter* waiter = std::exchange(waiter_, nullptr);
  {
    const std::lock_guard lock(bulkhead_.mutex_);
    if (!waiter->queued) {
      waiter->turn = nullptr;  // its job gives the place back when it arrives
      return;
    }
    bulkhead_.unlink(*waiter);
  }
  delete waiter;
}

}  // namespace sluice::resilience
