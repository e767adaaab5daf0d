#include "sluice/admission/gate.hpp"

#include <algorithm>

#include "admission/gate_impl.hpp"

namespace sluice::admission {

void Admission::give_back() noexcept {
  Gate* gate = std::exchange(gate_, nullptr);
  gate->give_back(std::exchange(slot_, nullptr), std::exchange(permits_, 0));
}

void Admission::release_permit() noexcept {
  if (slot_ == nullptr) return release();
  if (permits_ != 0) gate_->give_back(nullptr, std::exchange(permits_, 0));
}

Result<Admission> PendingAdmission::take() {
  waiting.timer.cancel();
  Result<Admission> taken = std::move(answer);
  if (!taken) answer = Admission();
  if (taken && scope != nullptr && scope->cancelled())
    return fail(scope->reason(), "cancelled", "the request was given up while it waited");
  return taken;
}

// --- What the gate knows -----------------------------------------------------------------------
namespace {

Failure full(const GateOptions& options, const std::string& why) {
  return Failure(FailureKind::overloaded, "gate_full", options.name + ": " + why + "; try again later")
      .with_retry_after(options.retry_after);
}

std::string all_out(const GateOptions& options, std::size_t ceiling) {
  const bool soft = options.policy == AtCapacity::soft_allow || options.policy == AtCapacity::soft_allow_with_signal;
  return "all " + std::to_string(soft ? ceiling : options.capacity) + " permits are out";
}

}  // namespace

Gate::Impl::Impl(Gate& owner)
    : gate(owner),
      options(owner.options_),
      ceiling(options.ceiling != 0 ? options.ceiling : options.capacity * 2),
      no_permit(full(options, all_out(options, ceiling))),
      no_place_for_permit(full(options, all_out(options, options.capacity) + " and " + std::to_string(options.max_waiting) +
                                            " wait for one, as many as may")),
      no_place_for_turn(full(options, std::to_string(std::min(options.max_waiting, options.max_waiting_for_turn)) +
                                          " wait for the turn of their ordering key, as many as may")),
      no_bytes(full(options, "those who wait would hold more than " + std::to_string(options.max_waiting_bytes) +
                                 " bytes, the most they may")),
      draining(FailureKind::shutting_down, "gate_closed",
               options.name + " takes no new work because the server is stopping"),
      late(FailureKind::timeout, "gate_timeout",
           options.name + ": the deadline passed while the request waited to be admitted") {
  if (options.metrics == nullptr) return;
  const Labels labels{{"gate", options.name}};
  auto& metrics = *options.metrics;
  auto& in_use = metrics.gauge("sluice_admission_in_use", "Permits that are out", labels);
  auto& turn = metrics.gauge("sluice_admission_waiting_for_turn", "Waiting for their key", labels);
  auto& room = metrics.gauge("sluice_admission_waiting_for_permit", "Waiting for a permit", labels);
  auto& over = metrics.gauge("sluice_admission_over_capacity",
                             "Admissions above capacity since the start", labels);
  auto& no = metrics.gauge("sluice_admission_refused", "Refusals since the start", labels);
  hook = metrics.before_exposition([this, &in_use, &turn, &room, &over, &no] {
    const std::lock_guard lock(mutex);
    in_use.set(static_cast<std::int64_t>(permits.in_use()));
    turn.set(static_cast<std::int64_t>(for_turn));
    room.set(static_cast<std::int64_t>(for_permit.size()));
    over.set(static_cast<std::int64_t>(pressed.load(std::memory_order_relaxed)));
    no.set(static_cast<std::int64_t>(refused.load(std::memory_order_relaxed)));
  });
}

std::optional<Failure> Gate::Impl::stopped(const PendingAdmission& pending,
                                           State worst_allowed) const {
  if (pending.scope != nullptr && pending.scope->cancelled())
    return Failure(pending.scope->reason(), "cancelled",
                   "the request was given up before it was admitted");
  if (state.load(std::memory_order_seq_cst) > worst_allowed) return draining;
  return std::nullopt;
}

Gate::Impl::Verdict Gate::Impl::take_permits(const PendingAdmission& pending) {
  const std::size_t count = wanted(pending);
  std::size_t before = 0;
  switch (options.policy) {
    case AtCapacity::queue:
      if (permits.queued() == 0 && permits.try_take(count, options.capacity, before))
        return Verdict::taken;
      return Verdict::queue;
    case AtCapacity::hard_reject:
      return permits.try_take(count, options.capacity, before) ? Verdict::taken : Verdict::refused;
    case AtCapacity::soft_allow:
    case AtCapacity::soft_allow_with_signal:
      break;
  }
  if (!permits.try_take(count, ceiling, before)) return Verdict::refused;
  if (before + count <= options.capacity) return Verdict::taken;
  pressed.fetch_add(1, std::memory_order_relaxed);
  if (options.policy == AtCapacity::soft_allow_with_signal && options.on_pressure)
    options.on_pressure(before + count, options.capacity);
  return Verdict::pressed;
}

Admission Gate::Impl::made(const PendingAdmission& pending, KeySlot* slot, bool is_pressed) noexcept {
  Admission admission;
  admission.gate_ = &gate;
  admission.slot_ = slot;
  admission.permits_ = wanted(pending);
  admission.pressed_ = is_pressed;
  return admission;
}

void Gate::Impl::admit_now(PendingAdmission& pending, KeySlot* slot, bool is_pressed) {
  Admission admission = made(pending, slot, is_pressed);
  // The last check: whoever drains sees either this permit or that we gave it back.
  if (auto failure = stopped(pending, State::running)) return refuse(pending, *failure);
  admitted.fetch_add(1, std::memory_order_relaxed);
  pending.answer = std::move(admission);
}

bool Gate::Impl::ask_permit(PendingAdmission& pending, KeySlot* slot) {
  auto& waiting = pending.waiting;
  auto verdict = Verdict::taken;
  std::size_t before = 0;
  const std::size_t count = wanted(pending);
  const bool queues = options.policy == AtCapacity::queue;
  if (queues && !(for_permit.empty() && permits.try_take(count, options.capacity, before))) {
    permits.announce();  // tried once more after it: who gives back sees us, or we see what he gave
    if (!for_permit.empty() || !permits.try_take(count, options.capacity, before)) {
      // One that has had its turn already counted as waiting then.
      const Failure* const why = waiting.place == Place::none ? no_place(pending, Place::permit) : nullptr;
      if (why != nullptr) {
        permits.withdraw();
        refuse(pending, *why);
        return true;
      }
      move_to(pending, Place::permit, slot);
      for_permit.push(pending);
      return false;
    }
    permits.withdraw();
  } else if (!queues) {
    verdict = take_permits(pending);
  }
  if (verdict == Verdict::refused) {
    refuse(pending, no_permit);
    return true;
  }
  move_to(pending, Place::none, nullptr);
  Admission admission = made(pending, slot, verdict == Verdict::pressed);
  if (pending.held) {
    pending.held.gate_ = nullptr;
    pending.held.slot_ = nullptr;
  }
  admitted.fetch_add(1, std::memory_order_relaxed);
  pending.answer = std::move(admission);
  return true;
}

void Gate::Impl::pass_on(KeySlot* slot, Answered& answered) {
  while (PendingAdmission* next = slot->behind.pop()) {
    --for_turn;
    const bool done = ask_permit(*next, slot);
    if (!done) return;
    answered.add(*next);
    if (next->answer) return;
  }
  turns.end(slot);
}

void Gate::Impl::grant(Answered& answered) {
  std::size_t before = 0;
  while (!for_permit.empty() && permits.try_take(wanted(for_permit.front()), options.capacity, before)) {
    PendingAdmission* next = for_permit.pop();
    permits.withdraw();
    KeySlot* slot = next->waiting.slot;
    move_to(*next, Place::none, nullptr);
    if (next->held) {
      next->held.gate_ = nullptr;
      next->held.slot_ = nullptr;
    }
    admitted.fetch_add(1, std::memory_order_relaxed);
    next->answer = made(*next, slot, false);
    answered.add(*next);
  }
}

void Gate::Impl::remove(PendingAdmission& pending, Answered& answered) {
  auto& waiting = pending.waiting;
  KeySlot* slot = waiting.slot;
  if (waiting.place == Place::turn) {
    slot->behind.remove(pending);
    --for_turn;
  } else {
    for_permit.remove(pending);
    permits.withdraw();
  }
  const bool owns_turn = waiting.place == Place::permit && slot != nullptr && !pending.held;
  move_to(pending, Place::none, nullptr);
  if (owns_turn) pass_on(slot, answered);
  grant(answered);
}

void Gate::Impl::refuse(PendingAdmission& pending, const Failure& failure) {
  refused.fetch_add(1, std::memory_order_relaxed);
  move_to(pending, Place::none, nullptr);
  pending.answer = fail(failure);
}

const Failure* Gate::Impl::no_place(const PendingAdmission& pending, Place place) const noexcept {
  const bool turn = place == Place::turn;
  if (turn && for_turn >= std::min(options.max_waiting, options.max_waiting_for_turn)) return &no_place_for_turn;
  if (!turn && for_permit.size() >= options.max_waiting) return &no_place_for_permit;
  const std::size_t held = turn ? turn_bytes : permit_bytes;
  const std::size_t left = options.max_waiting_bytes - std::min(options.max_waiting_bytes, held);
  return pending.bytes > left ? &no_bytes : nullptr;
}

void Gate::Impl::move_to(PendingAdmission& pending, Place place, KeySlot* slot) noexcept {
  auto& waiting = pending.waiting;
  if (waiting.place == Place::turn) turn_bytes -= pending.bytes;
  if (waiting.place == Place::permit) permit_bytes -= pending.bytes;
  if (place == Place::turn) turn_bytes += pending.bytes;
  if (place == Place::permit) permit_bytes += pending.bytes;
  waiting.place = place;
  waiting.slot = slot;
}

void Gate::Impl::on_deadline(void* owner) noexcept {
  auto& pending = *static_cast<PendingAdmission*>(owner);
  Impl& impl = *pending.waiting.gate->impl_;
  Answered answered;
  {
    const std::lock_guard lock(impl.mutex);
    if (pending.waiting.place == Place::none) return;  // its answer is on the way
    impl.remove(pending, answered);
    impl.refuse(pending, impl.late);
  }
  answered.run();
  pending.run(&pending);
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
  SLUICE_ASSERT(pending.held.permits_ == 0, "a held turn must have given its permit back");
  const bool keyed = !pending.ordering_key.empty() && !pending.held;
  if (!keyed && !pending.held) {
    // The common case, without the lock.
    const auto verdict = impl.take_permits(pending);
    if (verdict == Impl::Verdict::refused) return impl.refuse(pending, impl.no_permit), true;
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
    if (const Failure* const why = impl.no_place(pending, Impl::Place::turn)) {
      impl.refuse(pending, *why);
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

void Gate::give_back(KeySlot* slot, std::size_t permits) noexcept {
  Impl& impl = *impl_;
  if (permits != 0) impl.permits.give_back(permits);
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
  stats.waiting_bytes = impl_->turn_bytes + impl_->permit_bytes;
  stats.keys = impl_->turns.size();
  return stats;
}

}  // namespace sluice::admission
