#include "sluice/resilience/breaker.hpp"

#include <algorithm>
#include <utility>

#include "resilience/breaker_impl.hpp"

namespace sluice::resilience {

Breaker::Breaker(BreakerOptions options, Random& random, Listener listener)
    : impl_(std::make_unique<Impl>(options, random, std::move(listener))) {}
Breaker::~Breaker() = default;

bool Breaker::Impl::refuse(Duration retry_after, Block& block) noexcept {
  blocked.fetch_add(1, std::memory_order_relaxed);
  block.policy = Policy::breaker;
  block.observed = observed.load(std::memory_order_relaxed);
  block.threshold = threshold.load(std::memory_order_relaxed);
  block.retry_after = retry_after;
  return false;
}

bool Breaker::enter(Instant now, BreakerTicket& ticket, Block& block) noexcept {
  Impl& impl = *impl_;
  const std::uint64_t word = impl.word.load(std::memory_order_acquire);
  ticket.generation = Impl::generation_of(word);
  ticket.trial = BreakerTicket::kNoTrial;
  switch (Impl::state_of(word)) {
    case BreakerState::forced_open:
      return impl.refuse(kNoRetryAfter, block);
    case BreakerState::open: {
      const Instant until(Duration(impl.open_until.load(std::memory_order_relaxed)));
      if (now < until) return impl.refuse(until - now, block);
      break;
    }
    case BreakerState::half_open:
      break;
    default:
      return true;
  }
  Impl::Told told;
  bool entered = false;
  Duration retry_after = kNoRetryAfter;
  {
    const Impl::Locked lock(impl);
    const Instant until(Duration(impl.open_until.load(std::memory_order_relaxed)));
    BreakerState state = Impl::state_of(impl.word.load(std::memory_order_relaxed));
    if (state == BreakerState::open && now >= until) {
      told = impl.change(BreakerState::half_open, BreakerReason::isolation_over, now);
      state = BreakerState::half_open;
    }
    ticket.generation = Impl::generation_of(impl.word.load(std::memory_order_relaxed));
    if (state == BreakerState::half_open)
      entered = impl.take_trial(now, ticket);
    else if (state == BreakerState::open)
      retry_after = until - now;
    else
      entered = state != BreakerState::forced_open;
  }
  impl.tell(told);
  return entered || impl.refuse(retry_after, block);
}

bool Breaker::enter_again(Instant now, BreakerTicket& ticket, Block& block) noexcept {
  const std::uint64_t word = impl_->word.load(std::memory_order_acquire);
  if (Impl::generation_of(word) == ticket.generation) {
    if (ticket.trial == BreakerTicket::kNoTrial) return true;
    const Impl::Locked lock(*impl_);
    if (impl_->renew_trial(ticket, now)) return true;
  }
  // A trial of an earlier state is nobody's any more, and neither is an expired one.
  return enter(now, ticket, block);
}

void Breaker::leave(const BreakerTicket& ticket, Outcome outcome, Duration latency,
                    Instant now) noexcept {
  Impl& impl = *impl_;
  const std::uint64_t word = impl.word.load(std::memory_order_acquire);
  if (Impl::generation_of(word) != ticket.generation) {
    impl.stale.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (outcome == Outcome::cancelled) return give_back(ticket);
  if (Impl::state_of(word) == BreakerState::disabled) return;
  const bool failed = outcome != Outcome::success;
  if (!failed && ticket.trial == BreakerTicket::kNoTrial &&
      impl.count_quickly(ticket.generation, latency, now))
    return;
  Impl::Told told;
  {
    const Impl::Locked lock(impl);
    if (impl.word.load(std::memory_order_relaxed) != word) {
      impl.stale.fetch_add(1, std::memory_order_relaxed);
      return;
    }
    const bool slow = latency >= impl.options.slow_after;
    if (ticket.trial != BreakerTicket::kNoTrial) {
      if (!impl.end_trial(ticket)) {
        impl.stale.fetch_add(1, std::memory_order_relaxed);
        return;
      }
      ++(failed ? impl.failed : impl.passed);
      impl.slow += slow ? 1 : 0;
      told = impl.judge_trials(now);
    } else {
      impl.window.record(now, failed, slow);
      // The dependency answered: it is busy, not broken. Neither counts on nor starts over.
      if (outcome != Outcome::overloaded) impl.consecutive = failed ? impl.consecutive + 1 : 0;
      if (Impl::state_of(word) == BreakerState::closed) told = impl.judge_window(now);
    }
  }
  impl.tell(told);
}

void Breaker::give_back(const BreakerTicket& ticket) noexcept {
  if (ticket.trial == BreakerTicket::kNoTrial) return;
  const Impl::Locked lock(*impl_);
  if (Impl::generation_of(impl_->word.load(std::memory_order_relaxed)) == ticket.generation)
    impl_->end_trial(ticket);
}

std::expected<Breaker::Permit, Block> Breaker::try_enter(Instant now) noexcept {
  Permit permit;
  Block block;
  if (!enter(now, permit.ticket_, block)) return std::unexpected(block);
  permit.breaker_ = this;
  return permit;
}

Breaker::Permit& Breaker::Permit::operator=(Permit&& other) noexcept {
  if (this != &other) {
    cancel();
    breaker_ = std::exchange(other.breaker_, nullptr);
    ticket_ = other.ticket_;
  }
  return *this;
}

void Breaker::Permit::complete(Outcome outcome, Duration latency, Instant now) noexcept {
  if (Breaker* breaker = std::exchange(breaker_, nullptr))
    breaker->leave(ticket_, outcome, latency, now);
}

void Breaker::Permit::cancel() noexcept {
  if (Breaker* breaker = std::exchange(breaker_, nullptr)) breaker->give_back(ticket_);
}

BreakerState Breaker::state() const noexcept {
  return Impl::state_of(impl_->word.load(std::memory_order_acquire));
}

BreakerSnapshot Breaker::snapshot(Instant now) const {
  Impl& impl = *impl_;
  const Impl::Locked lock(impl);
  impl.window.age(now);
  const std::uint64_t word = impl.word.load(std::memory_order_relaxed);
  return {.state = Impl::state_of(word),
          .generation = Impl::generation_of(word),
          .window = impl.window.tally(),
          .consecutive = impl.consecutive,
          .open_until = Instant(Duration(impl.open_until.load(std::memory_order_relaxed))),
          .trials_running = impl.running,
          .trials_passed = impl.passed,
          .trials_failed = impl.failed,
          .blocked = impl.blocked.load(std::memory_order_relaxed),
          .stale = impl.stale.load(std::memory_order_relaxed),
          .transitions = impl.history,
          .options = impl.options};
}

Status Breaker::force(BreakerState to, Instant now, BreakerReason reason) {
  Impl& impl = *impl_;
  Impl::Told told;
  {
    const Impl::Locked lock(impl);
    const BreakerState from = Impl::state_of(impl.word.load(std::memory_order_relaxed));
    const bool was_open = from == BreakerState::open || from == BreakerState::forced_open;
    if (to == from || to == BreakerState::open || (to == BreakerState::half_open && !was_open))
      return fail(FailureKind::precondition_failed, "illegal_transition",
                  std::string("breaker is ") + std::string(to_string(from)) +
                      "; it cannot be made " + std::string(to_string(to)) +
                      " (to stop calls: forced_open; to try now: half_open while open)");
    told = impl.change(to, reason, now);
  }
  impl.tell(told);
  return {};
}

void Breaker::inherit(BreakerState order, Instant now) {
  const Impl::Locked lock(*impl_);
  (void)impl_->change(order, BreakerReason::operator_order, now);
}

bool Breaker::reconfigure(const BreakerOptions& options, Instant now) {
  Impl& impl = *impl_;
  Impl::Told told;
  bool kept = false;
  {
    const Impl::Locked lock(impl);
    impl.options = options;
    kept = impl.window.reconfigure(options);
    // With fewer trials than before the verdict may be there already, and nobody could enter to
    // bring it.
    if (Impl::state_of(impl.word.load(std::memory_order_relaxed)) == BreakerState::half_open &&
        impl.passed + impl.failed >= impl.trials())
      told = impl.judge_trials(now);
  }
  impl.tell(told);
  return kept;
}

}  // namespace sluice::resilience
