// A Commit that its preconditions refused: another's key, rows that moved, or a guard of a stage.
#include "flow/runner.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::flow {

// The key is another's: what was prepared is dropped, and nobody is told of it.
Runner::Next Runner::keep_nothing(Failure why) {
  cause_ = std::move(why);
  reply_bytes_.clear();
  exchange_->response_.reset();
  (void)machine_.prepare_failed(std::string(cause_->code()));
  decided_ = true;
  return machine_.decided(Decision::abort);
}

Runner::Next Runner::refused(const store::CommitOutcome& outcome) {
  const auto index = static_cast<std::size_t>(outcome.refused);
  const store::Requirement& requirement = write_->commit.requires_[index];
  if (outcome.key && std::holds_alternative<store::KeyFree>(requirement.what) && claim_) {
    // Somebody else finished this key first; its reply is ours. Whether it was the same request is the registry's to
    // see, where the key is one of its commands'.
    const bool same = !flow_.options_.key || claim_.fingerprint() == outcome.key->fingerprint;
    if (!same || outcome.key->state != store::KeyState::completed) {
      claim_.lost(*outcome.key);
      return keep_nothing(same ? Failure(FailureKind::in_progress, "another node runs this key")
                               : Failure(FailureKind::fingerprint_mismatch, "the key was used with another request"));
    }
    winner_ = outcome.key->exchange;
    claim_.lost(*outcome.key);
    if (auto winner = Reply::decode(outcome.key->reply)) reply_ = *std::move(winner);
    reply_bytes_ = outcome.key->reply;
    observe(EventKind::idempotent_hit);
    decided_ = true;
    cause_ = Failure(FailureKind::already_exists, "replayed", "another exchange completed this key first");
    return machine_.decided(Decision::abort);
  }
  if (std::holds_alternative<store::KeyFits>(requirement.what) && claim_) {
    claim_.release();
    return keep_nothing(Failure(FailureKind::fingerprint_mismatch, "the key of the whole was used with another request"));
  }
  if (index < guards_from_ && requirement.name == kJournalGuard) {
    cause_ = Failure(FailureKind::in_progress, "taken_over", "another owner continued this exchange");
    over_ = true;
    answer(OutcomeKind::pending);
    return std::nullopt;
  }
  const auto& guards = exchange_->draft_.guards;
  const auto guard = index >= guards_from_ && index - guards_from_ < guards.size()
                         ? guards.begin() + static_cast<std::ptrdiff_t>(index - guards_from_)
                         : guards.end();
  if (guard != guards.end() && guard->conflict) {
    if (!machine_.any_external() && !detached_) return rerun();
    if (begun_durable_) {  // it cannot be run again: what it asked outside was asked
      cause_ = Failure(FailureKind::version_conflict, "read_changed", requirement.name + " changed meanwhile");
      (void)machine_.prepare_failed("version_conflict");
      exchange_->response_.reset();
      return decide();
    }
  }
  Reply reply = guard != guards.end() ? refusal_reply(*guard) : Reply::from(Failure(FailureKind::precondition_failed, requirement.name, ""));
  cause_ = reply.to_failure();
  (void)machine_.prepare_failed(requirement.name);
  reply_ = std::move(reply);
  if (begun_durable_) {
    SLUICE_PROBE("flow.refused_after_an_intent");
    return decide();  // after an intent, a refusal decides abort
  }
  decided_ = true;
  exchange_->second_phase_ = true;
  if (claim_) {
    reply_bytes_ = reply_->encode();
    claim_.completed(reply_bytes_);
  }
  // The last stage prepared; all that joined are aborted.
  return machine_.decided(Decision::abort);
}

Runner::Next Runner::rerun() {
  reply_bytes_.clear();
  exchange_->response_.reset();
  if (++reruns_ > flow_.options_.max_reruns) {
    cause_ = Failure(FailureKind::version_conflict, "too_many_reruns",
                     "rows read by this exchange kept changing through " +
                         std::to_string(flow_.options_.max_reruns) + " runs; try again later");
    (void)machine_.prepare_failed("version_conflict");
    audit_lazily("too_many_reruns");
    decided_ = true;
    if (claim_) claim_.release();
    return machine_.decided(Decision::abort);
  }
  exchange_->draft_.clear();
  exchange_->aborting_ = false;  // the vote of a run that does not count
  exchange_->abort_cause_.clear();
  exchange_->begin_snapshot();
  if (sleeping_ != Sleeping::no) forget_token();
  exchange_->bag_ = callers_bag_;
  exchange_->response_.reset();
  machine_.reset();
  return machine_.start();
}

}  // namespace sluice::flow
