// How an invocation ends: with a reply that is durable under its key, or with nothing stored.
#include "sluice/rpc/registry.hpp"
#include "sluice/rpc/remembered.hpp"

#include "rpc/unsettled.hpp"

namespace sluice::rpc {

using store::AuditOutcome;

// The Commit of an invocation. Its caller's deadline may pass first: then it is left alone, with the claim,
// which is settled when it is known what became of it.
struct Invocation::CommitJob : store::PendingCommit {
  Invocation* self = nullptr;  // null: left alone
  Registry* registry = nullptr;
  Bytes reply;
  std::size_t own_requirements = 0;  // those of the claim come first
  std::vector<std::string> names;    // of the caller's requirements
  // Left alone:
  idempotency::Claim claim;
  store::AuditRow row;

  void settle_alone();
};

Invocation::Invocation() = default;
Invocation::~Invocation() {
  SLUICE_ASSERT(stage_ == Stage::idle, "an invocation is destroyed before it is done");
}

void Invocation::reset() {
  SLUICE_ASSERT(stage_ == Stage::idle, "an invocation is reset before it is done");
  command.idempotency_key.reset();
  command.principal.reset();
  keep_key_for = milliseconds(0);
  replay_only = false;
  command.deadline = kNever;
  command.version = 0;
  command.trace.clear();
  command.correlation.clear();
  command.canonical.clear();
  scope.reset();
  spec_.reset();
  has_key_ = false;
  unnamed_ = false;
  pending_claim_.also_matches.clear();
  pending_claim_.also_under.clear();
  key_owner_.clear();
  audited_ = false;
  exchange_ = {};
  ordering_key_.clear();
  claim_ = {};
  task_ = {};
}

store::AuditRow Invocation::audit_row(AuditOutcome outcome, std::string_view detail) const {
  store::AuditRow row;
  row.ns = command.ns.text();
  if (command.principal) row.principal = command.principal->id;
  row.command = command.name;
  row.outcome = outcome;
  row.exchange = exchange_;
  row.correlation = command.correlation;
  row.detail = detail;
  return row;
}

// Nothing of it took effect: there is nothing to look up, and no Commit that carries its row.
Answer Invocation::not_the_same() {
  audited_ = false;
  exchange_ = {};
  return Answer::of(Registry::mismatch());
}

void Invocation::finish(Answer answer) {
  SLUICE_ASSERT(stage_ == Stage::running, "an invocation is finished twice, or never ran");
  // Its Commit has lost the key to another node's, which may have been another request.
  if (answer.replayed && has_key_)
    if (const auto won = registry_->keys_.lookup(pending_claim_.scope); won && !pending_claim_.same_request(won->fingerprint))
      answer = not_the_same();
  if (!claim_) return deliver(std::move(answer));
  if (answer.kind == Answer::Kind::reply && !answer.replayed) {
    const auto reply = Reply::decode(*answer.reply);
    return commit({}, *answer.reply, reply && reply->kind == FailureKind::none ? AuditOutcome::ok : AuditOutcome::error);
  }
  if (answer.kind == Answer::Kind::failure && remembered(*answer.failure))
    return commit({}, Reply::from(*answer.failure).encode(), AuditOutcome::error);
  if (answer.kind == Answer::Kind::in_doubt || answer.kind == Answer::Kind::pending)
    return commit({}, unsettled_reply(answer).encode(), AuditOutcome::error);
  claim_.release();
  deliver(std::move(answer));
}

void Invocation::finish_with(store::Commit changes, Reply reply) {
  SLUICE_ASSERT(stage_ == Stage::running, "an invocation is finished twice, or never ran");
  const bool ok = reply.kind == FailureKind::none;
  commit(std::move(changes), reply.encode(), ok ? AuditOutcome::ok : AuditOutcome::error);
}

namespace {
// What the audit row of a failure says.
std::string code_of(const Reply& reply) {
  return reply.code.empty() ? std::string(traits(reply.kind).name) : reply.code;
}
Reply refusal_of(const std::string& name) {
  return Reply::from(
      Failure(FailureKind::precondition_failed, name, "'" + name + "' did not hold"));
}
}  // namespace

void Invocation::commit(store::Commit changes, Bytes reply, AuditOutcome outcome) {
  stage_ = Stage::committing;
  if (!pending_commit_) pending_commit_ = std::make_unique<CommitJob>();
  CommitJob& job = *pending_commit_;
  store::Commit& all = job.commit;
  all = {};
  all.otherwise = std::move(changes.otherwise);
  // The key's precondition first: a duplicate that lost is a replay, whatever else does not hold.
  if (claim_) claim_.complete_in(all, reply);
  job.own_requirements = all.requires_.size();
  job.names.clear();
  for (auto& requirement : changes.requires_) {
    job.names.push_back(requirement.name);
    if (claim_ && requirement.otherwise < 0) {
      // The refusal is the reply then, and is stored like one.
      store::Commit refused;
      claim_.complete_in(refused, refusal_of(requirement.name).encode());
      refused.then.emplace_back(
          store::AuditAppend{audit_row(AuditOutcome::error, requirement.name)});
      requirement.otherwise = static_cast<std::int32_t>(all.otherwise.size());
      all.otherwise.push_back(std::move(refused.then));
    } else if (claim_ && requirement.otherwise >= 0 &&
             static_cast<std::size_t>(requirement.otherwise) < all.otherwise.size()) {
      // The caller's branch is applied with the key, or a retry would apply it again.
      store::Commit refused;
      claim_.complete_in(refused, refusal_of(requirement.name).encode());
      refused.then.emplace_back(store::AuditAppend{audit_row(AuditOutcome::error, requirement.name)});
      auto branch = all.otherwise[static_cast<std::size_t>(requirement.otherwise)];
      for (auto& mutation : refused.then) branch.push_back(std::move(mutation));
      requirement.otherwise = static_cast<std::int32_t>(all.otherwise.size());
      all.otherwise.push_back(std::move(branch));
    }
    all.requires_.push_back(std::move(requirement));
  }
  for (auto& mutation : changes.then) all.then.push_back(std::move(mutation));
  std::string code;
  if (outcome != AuditOutcome::ok)
    if (const auto failed = Reply::decode(reply)) code = code_of(*failed);
  all.then.emplace_back(store::AuditAppend{audit_row(outcome, code)});
  audited_ = true;
  job.reply = std::move(reply);
  job.self = this;
  job.registry = registry_;
  job.lane = lane;
  job.run = [](Job* answered) noexcept {
    auto* one = static_cast<CommitJob*>(static_cast<store::PendingCommit*>(answered));
    if (one->self != nullptr) return one->self->committed();
    one->settle_alone();
    delete one;
  };
  if (command.deadline != kNever)
    patience_.arm(*lane, command.deadline, [](void* self) noexcept { static_cast<Invocation*>(self)->leave_commit_alone(); }, this);
  registry_->store_.submit(job);
}

// Decided, as far as we know, and not told: the caller can ask.
void Invocation::leave_commit_alone() noexcept {
  CommitJob& job = *pending_commit_.release();  // frees itself
  job.self = nullptr;
  job.claim = std::move(claim_);
  job.row = audit_row(AuditOutcome::error, {});
  deliver(Answer::pending(exchange_));
}

void Invocation::CommitJob::settle_alone() {
  const auto no_row_of_ours = [this](std::string_view code) {
    row.detail = code;
    registry->audit(std::move(row));
  };
  if (!outcome) {
    if (claim) claim.release();
    return no_row_of_ours(outcome.error().code().empty() ? traits(outcome.error().kind()).name : outcome.error().code());
  }
  if (outcome->applied) {
    if (claim) claim.completed(std::move(reply));
    return;
  }
  const auto refused = static_cast<std::size_t>(outcome->refused);
  if (refused >= own_requirements) {
    const std::string& name = names[refused - own_requirements];
    if (!claim) return no_row_of_ours(name);
    return claim.completed(refusal_of(name).encode());
  }
  outcome->key ? claim.lost(*outcome->key) : claim.release();
}

void Invocation::committed() {
  patience_.cancel();
  CommitJob& job = *pending_commit_;
  auto& outcome = job.outcome;
  if (!outcome) {
    // Also when the outcome is unknown: a retry reads the key's row before it runs.
    if (claim_) claim_.release();
    audited_ = false;
    return deliver(Answer::of(std::move(outcome).error()));
  }
  Answer answer = Answer::of(std::move(job.reply), exchange_);
  if (outcome->applied) {
    if (claim_) claim_.completed(*answer.reply);
    if (auto status = unsettled_in(*answer.reply)) return deliver(*std::move(status));
    return deliver(std::move(answer));
  }
  const auto refused = static_cast<std::size_t>(outcome->refused);
  if (refused < job.own_requirements) {
    if (outcome->key && !pending_claim_.same_request(outcome->key->fingerprint)) {
      claim_.lost(*outcome->key);
      return deliver(not_the_same());
    }
    if (!outcome->key) {
      claim_.release();
      return deliver(Answer::of(Failure(FailureKind::in_progress, "in_progress",
                                        "another node runs this idempotency key; try again")));
    }
    const bool complete = outcome->key->state == store::KeyState::completed;
    Answer won = Answer::of(outcome->key->reply, outcome->key->exchange);
    won.replayed = true;
    if (auto status = unsettled_in(outcome->key->reply)) won = *std::move(status);
    claim_.lost(*outcome->key);
    if (!complete)
      won = Answer::of(Failure(FailureKind::in_progress, "in_progress",
                               "another node runs this idempotency key; try again"));
    return deliver(std::move(won));
  }
  const auto& name = job.names[refused - job.own_requirements];
  answer = Answer::of(refusal_of(name), exchange_);
  if (!claim_) audited_ = false;  // no branch of ours carried the row
  if (claim_) claim_.completed(*answer.reply);
  deliver(std::move(answer));
}

void Invocation::run_task(Task<Answer> task) {
  SLUICE_ASSERT(stage_ == Stage::running, "a task for an invocation that does not run");
  task_ = std::move(task);
  const auto done_later = [](void* self) noexcept { static_cast<Invocation*>(self)->task_done(); };
  if (task_.start(context_, done_later, this)) task_done();
}

void Invocation::task_done() {
  Answer answer;
  try {
    answer = task_.take();
  } catch (const std::exception& error) {
    answer = Answer::of(Failure(FailureKind::internal, "handler_threw", error.what()));
  } catch (...) {
    answer = Answer::of(Failure(FailureKind::internal, "handler_threw", {}));
  }
  finish(std::move(answer));
}

void Invocation::pass_cancel_to(std::shared_ptr<CancelScope> inner) noexcept {
  inner_scope_ = std::move(inner);
  if (inner_scope_ && scope.cancelled()) inner_scope_->cancel(scope.reason());
}

void Invocation::pause() noexcept {
  if (admitted_) registry_->gatekeeper_->pause(*this);
}

void Invocation::leave_gate() noexcept {
  if (!admitted_) return;
  admitted_ = false;
  registry_->gatekeeper_->leave(*this);
}

void Invocation::cancelled(void* owner) noexcept {
  auto* self = static_cast<Invocation*>(owner);
  const auto reason = self->scope.reason();
  if (self->stage_ == Stage::claiming) {
    if (!self->registry_->keys_.forget(self->pending_claim_)) return;  // its answer is on the way
  } else if (self->stage_ == Stage::entering) {
    auto* gate = self->registry_->gatekeeper_;
    if (gate == nullptr || !gate->forget(*self)) return;
  } else {
    // The handler listens to the scope itself, or gave us what does; it ends the invocation.
    if (const auto inner = self->inner_scope_) inner->cancel(reason);
    return;
  }
  self->deliver(
      Answer::of(Failure(reason, "cancelled", "the request was given up while it waited")));
}

void Invocation::audit_answer(const Answer& answer) {
  switch (answer.kind) {
    case Answer::Kind::reply: {
      const auto reply = Reply::decode(*answer.reply);
      const bool ok = reply && reply->kind == FailureKind::none;
      return registry_->audit(audit_row(ok ? AuditOutcome::ok : AuditOutcome::error, ok ? "" : reply ? code_of(*reply) : "corrupt"));
    }
    case Answer::Kind::failure:
      return registry_->audit(audit_row(
          AuditOutcome::error, answer.failure->kind() == FailureKind::unknown_outcome
                                   ? traits(FailureKind::unknown_outcome).name
                                   : answer.failure->code().empty() ? traits(answer.failure->kind()).name
                                                                    : answer.failure->code()));
    case Answer::Kind::pending:
    case Answer::Kind::in_doubt:
      return;  // not over: the deciding Commit, or the settlement, writes it
  }
}

void Invocation::deliver(Answer answer) {
  leave_gate();
  listener_.unlink();
  inner_scope_.reset();
  if (claim_) claim_.release();
  // What ran without a Commit of its own: reads, refusals by the handler, failed Commits.
  if (stage_ >= Stage::running && !audited_ && !answer.replayed) audit_answer(answer);
  if (answer.replayed) {
    registry_->replayed_.fetch_add(1, std::memory_order_relaxed);
    auto row = audit_row(AuditOutcome::replayed, {});
    row.exchange = answer.exchange;  // the one that earned the reply: this request is none of its own
    registry_->audit(std::move(row));
  }
  // What has no room leaves no row, its retry does; how often it was told is counted. What a handler says of the
  // services it called is its own.
  const auto nothing_happened = [this](const Failure& why) {
    if (why.kind() == FailureKind::overloaded && why.code() == store::kTooManyKeys) return true;
    if (stage_ >= Stage::running && stage_ != Stage::committing) return false;
    return why.kind() == FailureKind::overloaded || why.kind() == FailureKind::unavailable ||
           (why.kind() == FailureKind::timeout && stage_ < Stage::running);
  };
  if (answer.kind == Answer::Kind::failure && nothing_happened(*answer.failure))
    registry_->count_refused(*answer.failure, command.ns.shadow());
  if (answer.kind == Answer::Kind::failure)
    registry_->failed_.fetch_add(1, std::memory_order_relaxed);
  if (finished_ != nullptr) *std::exchange(finished_, nullptr) = true;
  stage_ = Stage::idle;
  done(*this, std::move(answer));
}

}  // namespace sluice::rpc
