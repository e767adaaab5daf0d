// The second phase: commits in order, aborts in reverse, each retried under its own budget; then
// the end is recorded and the caller told.
#include <algorithm>

#include "flow/runner.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::flow {

void Runner::resume(Machine machine, Begun begun, std::uint32_t next_record, Bytes reply, bool listed) {
  machine_ = std::move(machine);
  begun_ = std::move(begun);
  next_record_ = next_record;
  begun_durable_ = true;
  enlist();
  if (!reply.empty())
    if (auto decoded = Reply::decode(reply)) reply_ = *std::move(decoded);
  exchange_->second_phase_ = true;
  decided_ = machine_.decision() != Decision::none;
  listed_ = listed && decided_;
  observe(EventKind::recovered);
  probe_what_was_found();
  if (!decided_) cause_ = Failure(FailureKind::unavailable, "interrupted", "the process ended before the decision");
  else if (machine_.decision() == Decision::abort)
    // A decision to abort without a reply was one that frees the key (an interruption, a timeout).
    cause_ = reply_ ? reply_->to_failure()
                    : Failure(FailureKind::unavailable, machine_.cause(), "aborted without a reply");
  go(machine_.resume());
}

// Which of the states that a crash leaves it goes on from.
void Runner::probe_what_was_found() const {
  const bool half = std::ranges::any_of(machine_.steps(), [](const Step& step) { return step.external && step.finished; });
  if (!decided_) SLUICE_PROBE("recovery.not_decided");
  else if (machine_.decision() == Decision::commit && half) SLUICE_PROBE("recovery.commit_half_done");
  else if (machine_.decision() == Decision::commit) SLUICE_PROBE("recovery.commit_not_begun");
  else if (half) SLUICE_PROBE("recovery.abort_half_done");
  else SLUICE_PROBE("recovery.abort_not_begun");
}

void Runner::enter_second_phase(Action action) {
  if (exchange_->step_ != action.step || exchange_->context_.scope != &detached_scope_) {
    exchange_->step_ = action.step;
    exchange_->attempt_ = 1;
    second_phase_until_ = kNever;
    detached_scope_.reset();
  }
  exchange_->second_phase_ = true;
  exchange_->context_.outside = machine_.facts_of(action.step).external;
  exchange_->context_.scope = &detached_scope_;
  exchange_->context_.deadline = second_phase_until_;
}

Runner::Next Runner::second_phase(Action action) {
  const bool committing = action.kind == Action::Kind::commit;
  try {
    // Synchronous stages that succeed: one after the other, with nothing in between.
    for (;;) {
      enter_second_phase(action);
      const StageFacts& facts = machine_.facts_of(action.step);
      if (facts.asynchronous) break;
      time_begin();
      Stage& stage = machine_.stage_of(action.step);
      Status status = committing ? stage.commit(*exchange_) : stage.abort(*exchange_, machine_.steps()[action.step].prepared);
      if (!status || timed_ || facts.external) return phase_done(std::move(status));
      const Action next = machine_.finished(action.step);
      if (next.kind != action.kind) return next;
      current_ = action = next;
    }
    Stage& stage = machine_.stage_of(action.step);
    const bool was_prepared = machine_.steps()[action.step].prepared;
    // A commit that hangs ends with the budget of its step, not with its caller's patience.
    if (second_phase_until_ == kNever)
      second_phase_until_ = lane_.clock().now() + flow_.options_.second_phase.budget;
    budget_timer_.arm(lane_, second_phase_until_,
                      [](void* self) noexcept {
                        static_cast<Runner*>(self)->detached_scope_.cancel(FailureKind::timeout);
                      },
                      this);
    exchange_->context_.deadline = second_phase_until_;
    time_begin();
    status_task_ = committing ? stage.commit_task(*exchange_) : stage.abort_task(*exchange_, was_prepared);
    const bool done = status_task_.start(
        exchange_->context_,
        [](void* self) noexcept {
          auto* runner = static_cast<Runner*>(self);
          runner->turn_.runner = runner;
          runner->turn_.run = [](Job* job) noexcept {
            Runner* r = static_cast<Turn*>(job)->runner;
            Next next;
            try {
              next = r->phase_done(r->status_task_.take());
            } catch (...) {
              next = r->phase_done(fail(r->caught()));
            }
            r->go(next);
          };
          runner->lane_.post(runner->turn_);
        },
        this);
    if (!done) return std::nullopt;
    return phase_done(status_task_.take());
  } catch (...) {
    return phase_done(fail(caught()));
  }
}

Runner::Next Runner::phase_done(Status status) {
  const Action action = current_;
  time_end(action.step, action.kind == Action::Kind::commit ? Phase::commit : Phase::abort,
           status.has_value());
  status_task_.reset();
  budget_timer_.cancel();
  if (status) {
    Action next = machine_.finished(action.step);
    // A record of its own only where recovery could save work by it.
    if (begun_durable_ && next.kind != Action::Kind::end && machine_.steps()[action.step].external)
      append_lazily(Finished{action.step});
    return next;
  }
  const SecondPhase& policy = flow_.options_.second_phase;
  const Instant now = lane_.clock().now();
  if (second_phase_until_ == kNever) second_phase_until_ = now + policy.budget;
  const auto exponent = std::min<std::uint32_t>(exchange_->attempt_ - 1, 20);
  const Duration delay = std::min(policy.max_delay, policy.first_delay * (std::int64_t{1} << exponent));
  if (exchange_->attempt_ >= policy.attempts || now + delay >= second_phase_until_) {
    const std::string earlier =
        cause_ && cause_->code() == "second_phase_failed" ? std::string(cause_->detail()) + "; " : "";
    cause_ = Failure(FailureKind::in_doubt, "second_phase_failed",
                     earlier + "stage '" + std::string(machine_.stage_of(action.step).name()) + "': " +
                         status.error().to_string());
    SLUICE_PROBE("flow.second_phase_given_up");
    return machine_.gave_up(action.step);
  }
  ++exchange_->attempt_;
  backoff_timer_.arm(lane_, now + delay,
                     [](void* self) noexcept {
                       auto* runner = static_cast<Runner*>(self);
                       runner->go(runner->current_);
                     },
                     this);
  return std::nullopt;
}

void Runner::complete_key(std::vector<store::Mutation>& out) {
  if (!begun_ || begun_->scope.empty()) return;
  if (!remembered()) {
    out.push_back(store::KeyDelete{begun_->scope});
    return;
  }
  store::KeyPut put;
  put.row.exchange = exchange_->id();
  put.row.scope = begun_->scope;
  put.row.fingerprint = begun_->fingerprint;
  put.row.state = store::KeyState::completed;
  put.row.reply = reply_for_key();
  put.row.token = begun_->key_token;
  put.ttl = milliseconds(begun_->key_ttl_ms);
  out.push_back(std::move(put));
}

Runner::Next Runner::end() {
  const bool committed = machine_.decision() == Decision::commit;
  if (begun_durable_) {
    std::vector<store::Mutation> more{store::OpenDelete{exchange_->id()}};
    complete_key(more);
    append_lazily(Ended{committed ? EndKind::committed : EndKind::aborted}, std::move(more));
  }
  // Only here: a duplicate must not see the reply before the caller may.
  if (claim_ && (begun_durable_ || flow_.options_.store == nullptr)) {
    if (remembered()) {
      reply_bytes_ = reply_for_key();
      claim_.completed(reply_bytes_);
    } else {
      claim_.release();
    }
  }
  over_ = true;
  answer(committed || (cause_ && cause_->code() == "replayed" && reply_ && reply_->kind == FailureKind::none)
             ? OutcomeKind::committed
             : OutcomeKind::aborted);
  return std::nullopt;
}

// The row recovery and operators look at says so; a later sweep tries again.
Runner::Next Runner::list_in_doubt() {
  // Given up without a try: it cannot be undone.
  if (!cause_ || cause_->code() != "second_phase_failed")
    cause_ = Failure(FailureKind::in_doubt, "cannot_undo",
                     "a stage outside may have had its effect and has no abort" +
                         (cause_ ? ": " + cause_->to_string() : std::string()));
  if (begun_durable_ && !listed_) {
    store::OpenPut row;
    row.row = {.exchange = exchange_->id(),
               .ns = exchange_->ns().text(),
               .flow = flow_.name(),
               .state = store::OpenState::in_doubt};
    std::vector<store::Mutation> more;
    more.push_back(std::move(row));
    append_lazily(Ended{EndKind::in_doubt}, std::move(more));
  }
  // In memory nobody could look it up or settle it: duplicates are told what is known.
  if (claim_ && flow_.options_.store == nullptr) claim_.completed(Reply::from(*cause_).encode());
  over_ = true;
  answer(OutcomeKind::in_doubt);
  return std::nullopt;
}

}  // namespace sluice::flow
