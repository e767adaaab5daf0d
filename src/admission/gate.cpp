#include "sluice/admission/gate.hpp"

#include <algorithm>

#include "admission/gate_impl.hpp"

namespace sluice::admission {

// --- Admission ---------------------------------------------------------------------------------
Admission::Admission(Admission&& other) noexcept
    : gate_(std::exchange(other.gate_, nullptr)),
      slot_(std::exchange(other.slot_, nullptr)),
      permit_(std::exchange(other.permit_, false)),
      pressed_(std::exchange(other.pressed_, false)) {}

Admission& Admission::operator=(Admission&& other) noexcept {
  if (this == &other) return *this;
  release();
  gate_ = std::exchange(other.gate_, nullptr);
  slot_ = std::exchange(other.slot_, nullptr);
  permit_ = std::exchange(other.permit_, false);
  pressed_ = std::exchange(other.pressed_, false);
  return *this;
}

void Admission::release() noexcept {
  if (gate_ == nullptr) return;
  Gate* gate = std::exchange(gate_, nullptr);
  gate->give_back(std::exchange(slot_, nullptr), std::exchange(permit_, false));
}

void Admission::release_permit() noexcept {
  if (slot_ == nullptr) return release();
  if (std::exchange(permit_, false)) gate_->give_back(nullptr, true);
}

// --- PendingAdmission --------------------------------------------------------------------------
Result<Admission> PendingAdmission::take() {
  waiting.timer.cancel();
  Result<Admission> taken = std::move(answer);
  answer = Admission();
  if (taken && scope != nullptr && scope->cancelled())
    return fail(scope->reason(), "cancelled", "the request was given up while it waited");
  return taken;
}

// --- Gate --------------------------------------------------------------------------------------
Gate::Gate(GateOptions options)
    : options_(std::move(options)), impl_(std::make_unique<Impl>(*this)) {
  SLUICE_ASSERT(options_.capacity > 0, "a gate needs a capacity of at least 1");
}

Gate::~Gate() { SLUICE_ASSERT(drained(), "a gate was destroyed while somebody was inside"); }

bool Gate::admit(PendingAdmission& pending) {
  Impl& impl = *impl_;
  auto& waiting = pending.waiting;
  waiting.timer.cancel();
  waiting.gate = this;
  // Who holds a turn was let in before; draining lets it finish.
  const auto worst = pending.held ? Impl::State::draining : Impl::State::running;
  if (auto failure = impl.stopped(pending, worst)) {
    impl.refuse(pending, *failure);
    return true;
  }
  SLUICE_ASSERT(!pending.held.permit_, "a held turn must have given its permit back");
  const bool keyed = !pending.ordering_key.empty() && !pending.held;
  if (!keyed && !pending.held) {
    // The common case, without the lock.
    const auto verdict = impl.take_permit();
    if (verdict == Impl::Verdict::refused) return impl.refuse(pending, impl.full), true;
    if (verdict != Impl::Verdict::queue) {
      impl.admit_now(pending, nullptr, verdict == Impl::Verdict::pressed);
      return true;
    }
  }
  const std::lock_guard lock(impl.mutex);
  // Looked at again under the lock: cancel() has emptied the queues or will see this one.
  if (auto failure = impl.stopped(pending, worst)) {
    impl.refuse(pending, *failure);
    return true;
  }
  bool answered = false;
  const TurnTable::Found found = keyed ? impl.turns.find(pending.ordering_key) : TurnTable::Found();
  if (KeySlot* turn = found.taken) {
    if (impl.too_many_wait(pending) || impl.for_turn >= options_.max_waiting_for_turn) {
      impl.refuse(pending, impl.full);
      return true;
    }
    impl.move_to(pending, Impl::Place::turn, turn);
    turn->behind.push(pending);
    ++impl.for_turn;
  } else {
    KeySlot* slot = keyed ? impl.turns.take(pending.ordering_key, found) : pending.held.slot_;
    answered = impl.ask_permit(pending, slot);
    if (answered && !pending.answer && keyed) {
      Answered nobody;  // under this lock no one can have come behind
      impl.pass_on(slot, nobody);
    }
  }
  if (!answered && pending.lane != nullptr && pending.deadline != kNever)
    waiting.timer.arm(*pending.lane, pending.deadline, &Impl::on_deadline, &pending);
  return answered;
}

bool Gate::forget(PendingAdmission& pending) noexcept {
  pending.waiting.timer.cancel();
  if (pending.waiting.gate != this) return false;
  Answered answered;
  {
    const std::lock_guard lock(impl_->mutex);
    if (pending.waiting.place == Impl::Place::none) return false;
    impl_->remove(pending, answered);
  }
  answered.run();
  return true;
}

void Gate::give_back(KeySlot* slot, bool permit) noexcept {
  Impl& impl = *impl_;
  if (permit) impl.permits.give_back();
  if (slot == nullptr && impl.permits.queued() == 0) return;
  Answered answered;
  {
    const std::lock_guard lock(impl.mutex);
    if (slot != nullptr) impl.pass_on(slot, answered);
    impl.grant(answered);
  }
  answered.run();
}

void Gate::drain() noexcept {
  auto running = Impl::State::running;
  impl_->state.compare_exchange_strong(running, Impl::State::draining);
}

bool Gate::drained() noexcept {
  const std::lock_guard lock(impl_->mutex);
  return impl_->permits.in_use() == 0 && impl_->turns.empty() && impl_->for_permit.empty();
}

void Gate::cancel() noexcept {
  Impl& impl = *impl_;
  Answered answered;
  {
    const std::lock_guard lock(impl.mutex);
    impl.state.store(Impl::State::cancelled);
    for (KeySlot& slot : impl.turns) {
      while (PendingAdmission* pending = slot.behind.pop()) {
        --impl.for_turn;
        impl.refuse(*pending, impl.draining);
        answered.add(*pending);
      }
    }
    while (PendingAdmission* pending = impl.for_permit.pop()) {
      impl.permits.withdraw();
      KeySlot* slot = pending->waiting.slot;
      impl.refuse(*pending, impl.draining);
      answered.add(*pending);
      if (slot != nullptr && !pending->held) impl.pass_on(slot, answered);
    }
  }
  answered.run();
}

GateStats Gate::stats() const {
  GateStats stats;
  stats.admitted = impl_->admitted.load(std::memory_order_relaxed);
  stats.refused = impl_->refused.load(std::memory_order_relaxed);
  stats.pressed = impl_->pressed.load(std::memory_order_relaxed);
  stats.in_use = impl_->permits.in_use();
  const std::lock_guard lock(impl_->mutex);
  stats.waiting_for_turn = impl_->for_turn;
  stats.waiting_for_permit = impl_->for_permit.size();
  stats.waiting_bytes = impl_->waiting_bytes;
  stats.keys = impl_->turns.size();
  return stats;
}

}  // namespace sluice::admission
