// The deciding Commit's outcome is unknown (a lost connection, a failed sync). Nothing may be told
// before it is known: the opposite decision is written under the record number the lost Commit would
// have used. If that is applied, the lost one never will be; if it is refused, it was applied.
#include <algorithm>

#include "flow/history.hpp"
#include "flow/live.hpp"
#include "flow/runner.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::flow {

// Over here, and perhaps open in the store: a sweep looks, soon.
Runner::Next Runner::leave_to_recovery(OutcomeKind told) {
  if (begun_durable_ || told == OutcomeKind::pending) flow_.live_->left_open();
  over_ = true;
  answer(told);
  return std::nullopt;
}

// The store could not say. What is certain: `unavailable` and its like wrote nothing.
Runner::Next Runner::resolve_unknown(Failure failure) {
  if (failure.kind() == FailureKind::unknown_outcome) return fence();
  cause_ = std::move(failure);
  SLUICE_PROBE("flow.decision_not_taken");
  // The reply drafted for a Commit that did not happen is nobody's.
  reply_bytes_.clear();
  exchange_->response_.reset();
  // What no store will ever take is a refusal, decided and remembered as one.
  if (cause_->traits().remember == Remember::store && machine_.decision() == Decision::commit) {
    (void)machine_.prepare_failed(std::string(cause_->code()));
    return decide();
  }
  if (!begun_durable_) {
    (void)machine_.prepare_failed(std::string(cause_->code()));
    audit_lazily(std::string(cause_->code()));
    decided_ = true;
    if (claim_) claim_.release();
    return machine_.decided(Decision::abort);
  }
  // Recovery (or the store, once it is open again) knows; neither outcome may be told.
  SLUICE_PROBE("flow.decision_left_to_recovery");
  return leave_to_recovery(OutcomeKind::pending);
}

Runner::Next Runner::fence() {
  store::Commit& commit = new_commit();
  commit.requires_.push_back({store::JournalAt{exchange_->id(), next_record_}, "journal"});
  std::string why = "not_committed";
  Decided decided{Decision::abort, why, {}, {}, {}};
  if (begun_durable_) {
    // What was to be aborted anyway is decided so again: its reply is told, so it must be on record.
    if (machine_.decision() == Decision::abort) {
      decided.cause = why = machine_.cause();
      if (remembered()) decided.reply = reply_for_key();
    }
    decided.steps = machine_.steps();
    decided.bag = exchange_->durable_entries();
    const Record record = std::move(decided);
    commit.then.push_back(
        store::JournalAppend{{exchange_->id(), next_record_, encode_row(record)}});
    commit.then.push_back(store::OpenPut{{.exchange = exchange_->id(),
                                          .ns = exchange_->ns().text(),
                                          .flow = flow_.name(),
                                          .state = store::OpenState::deciding}});
  } else {
    const Record begun = make_begun(false);
    const Record record = std::move(decided);
    commit.then.push_back(
        store::JournalAppend{{exchange_->id(), next_record_, encode_row({&begun, &record})}});
  }
  if (exchange_->audited) commit.then.push_back(audit(store::AuditOutcome::error, std::move(why)));
  submit(&Runner::fenced);
  return std::nullopt;
}

// The store still does not say. With a journal, recovery finds out; without one there is nothing that
// could be listed or settled, and the key, or the transaction, tells later what became of it.
Runner::Next Runner::decision_stays_unknown() {
  SLUICE_PROBE("flow.fence_unknown");
  cause_ = Failure(FailureKind::unknown_outcome, "decision_unknown",
                   "the store did not say whether it took the transaction: repeat the request with the same idempotency key, "
                   "or ask for the transaction when the store answers again");
  return leave_to_recovery(begun_durable_ ? OutcomeKind::in_doubt : OutcomeKind::unknown);
}

Runner::Next Runner::fenced() {
  if (!write_->outcome) return decision_stays_unknown();
  if (write_->outcome->applied && begun_durable_ && machine_.decision() == Decision::abort) {
    SLUICE_PROBE("flow.abort_decided_again");
    return decision_written();
  }
  if (write_->outcome->applied) {
    SLUICE_PROBE("flow.fence_applied");
    cause_ = Failure(FailureKind::unavailable, "not_committed",
                     "the store lost the decision; nothing took effect");
    // A reply that is not remembered is not told: a retry may get another one.
    exchange_->response_.reset();
    reply_bytes_.clear();
    (void)machine_.prepare_failed("not_committed");
    decided_ = true;
    ++next_record_;
    exchange_->second_phase_ = true;
    exchange_->drop_transient();
    if (claim_ && !begun_durable_) claim_.release();
    return machine_.decided(Decision::abort);
  }
  // Which of its branches was applied, the journal says.
  struct Reading : store::PendingQuery {
    Runner* runner = nullptr;
  };
  auto reading = std::make_unique<Reading>();
  reading->runner = this;
  reading->lane = &lane_;
  reading->query = store::ReadJournal{exchange_->id()};
  reading->run = [](Job* job) noexcept {
    std::unique_ptr<Reading> read(static_cast<Reading*>(static_cast<store::PendingQuery*>(job)));
    read->runner->go(read->runner->decided_after_all(std::move(read->answer)));
  };
  if (flow_.options_.store->ask(*reading)) return decided_after_all(std::move(reading->answer));
  (void)reading.release();
  return std::nullopt;
}

Runner::Next Runner::decided_after_all(Result<store::Answer> answered) {
  auto history = answered ? fold(std::get<store::ReadJournal::Answer>(*answered))
                          : Result<History>(fail(answered.error()));
  if (!history || !history->decided) return decision_stays_unknown();
  const Decided& decided = *history->decided;
  ++next_record_;
  decided_ = true;
  exchange_->second_phase_ = true;
  exchange_->drop_transient();
  if (decided.decision == Decision::abort && machine_.decision() == Decision::commit) {
    // A precondition had refused it, and its branch was written.
    SLUICE_PROBE("flow.fence_found_a_refusal");
    const auto& guards = exchange_->draft_.guards;
    const auto guard = std::ranges::find_if(
        guards, [&](const Draft::Guard& g) { return g.requirement.name == decided.cause; });
    Reply reply = guard != guards.end() ? refusal_reply(*guard)
                      : Reply::from(Failure(FailureKind::precondition_failed, decided.cause, ""));
    cause_ = reply.to_failure();
    (void)machine_.prepare_failed(decided.cause);
    reply_ = std::move(reply);
    reply_bytes_ = reply_->encode();
  } else if (decided.decision == Decision::commit) {
    SLUICE_PROBE("flow.fence_found_a_commit");
    cause_.reset();
  }
  if (claim_ && !begun_durable_) claim_.completed(reply_bytes_);
  return machine_.decided(decided.decision);
}

}  // namespace sluice::flow
