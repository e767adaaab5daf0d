// What must be durable, and when: intents before external stages, one Commit for the decision.
#include <algorithm>

#include "flow/live.hpp"
#include "flow/runner.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::flow {
namespace {

// A Commit that nobody waits for: it owns itself.
struct Detached : store::PendingCommit {
  Logger* log = nullptr;
  std::shared_ptr<LiveExchanges> live;  // set with the last record: the exchange is over
  ExchangeId exchange;
  static void finished(Job* job) noexcept {
    std::unique_ptr<Detached> self(static_cast<Detached*>(static_cast<store::PendingCommit*>(job)));
    if (self->live) {
      self->live->remove(self->exchange);
      if (!self->outcome) {
        SLUICE_PROBE("flow.end_not_written");
        self->live->left_open();
      }
    }
    if (!self->outcome && self->log != nullptr)
      self->log->warn("a lazy journal record was not written; recovery will do its work again",
                      {{"why", self->outcome.error().to_string()}});
  }
};

}  // namespace

Reply refusal_reply(const Draft::Guard& guard) {
  if (guard.refusal) return *guard.refusal;
  Reply reply;
  reply.kind = FailureKind::precondition_failed;
  reply.code = guard.requirement.name;
  reply.detail = "precondition '" + guard.requirement.name + "' did not hold; nothing was changed";
  return reply;
}

Begun Runner::make_begun(bool with_request) const {
  Begun begun;
  begun.flow = flow_.name();
  begun.version = flow_.options_.version;
  begun.graph = flow_.hash_;
  begun.ns = exchange_->ns().text();
  begun.reference = exchange_->reference;
  begun.principal = exchange_->principal;
  begun.command = exchange_->command;
  begun.correlation = exchange_->correlation;
  begun.audited = exchange_->audited;
  if (with_request) {
    begun.trace = exchange_->trace;
    begun.request = exchange_->request();
  }
  return begun;
}

store::Commit& Runner::new_commit() { return write_.emplace().commit; }

void Runner::submit(Next (Runner::*then)()) {
  then_ = then;
  writing_ = true;
  write_->runner = this;
  write_->lane = &lane_;
  write_->run = [](Job* job) noexcept {
    Runner* runner = static_cast<Write*>(static_cast<store::PendingCommit*>(job))->runner;
    runner->writing_ = false;
    runner->go((runner->*runner->then_)());
  };
  flow_.options_.store->submit(*write_);
}

void Runner::append_lazily(const Record& record, std::vector<store::Mutation> more) {
  if (flow_.options_.store == nullptr) return;
  auto* detached = new Detached;
  detached->log = flow_.options_.log;
  detached->lane = &lane_;
  detached->run = &Detached::finished;
  detached->commit.lazy = true;
  if (live_ && std::holds_alternative<Ended>(record)) {
    // Until the end is on disk a sweep would find the exchange open and do its work again.
    live_ = false;
    flow_.live_->add(exchange_->id(), lane_, nullptr);
    detached->live = flow_.live_;
    detached->exchange = exchange_->id();
  }
  detached->commit.then = std::move(more);
  detached->commit.requires_.push_back(
      {store::JournalAt{exchange_->id(), next_record_}, std::string(kJournalGuard)});
  detached->commit.then.push_back(
      store::JournalAppend{{exchange_->id(), next_record_++, encode_row(record)}});
  flow_.options_.store->submit(*detached);
}

// The first durable record carries begun, the claim of the key, and the row recovery looks for.
void Runner::begin_durably(store::Commit& commit, const Record& first, store::OpenState state) {
  enlist();
  begun_ = make_begun(true);
  if (claim_) {
    claim_.claim_in(commit);
    for (const auto& mutation : commit.then)
      if (const auto* put = std::get_if<store::KeyPut>(&mutation)) {
        begun_->scope = put->row.scope;
        begun_->fingerprint = put->row.fingerprint;
        begun_->key_ttl_ms = claim_.kept().count();
      }
  }
  const Record begun = *begun_;
  commit.then.push_back(
      store::JournalAppend{{exchange_->id(), next_record_, encode_row({&begun, &first})}});
  commit.then.push_back(store::OpenPut{{.exchange = exchange_->id(),
                                        .ns = exchange_->ns().text(),
                                        .flow = flow_.name(),
                                        .state = state}});
}

Runner::Next Runner::write_intent(std::uint32_t step) {
  if (auto stopped = stop_if_cancelled()) return stopped;
  if (flow_.options_.store == nullptr) return machine_.intent_written();
  const Record intent = Intent{step, machine_.steps()[step].stage, exchange_->durable_entries()};
  store::Commit& commit = new_commit();
  if (begun_durable_)
    commit.then.push_back(store::JournalAppend{{exchange_->id(), next_record_, encode_row(intent)}});
  else
    begin_durably(commit, intent, store::OpenState::running);
  commit.requires_.push_back(
      {store::JournalAt{exchange_->id(), next_record_}, std::string(kJournalGuard)});
  submit(&Runner::intent_written);
  return std::nullopt;
}

// After the write of an intent or a pause. False: cause_ says why it did not happen.
bool Runner::durable_now() {
  // What an earlier stage has answered is nobody's reply when the key or the exchange is another's.
  if (!write_->outcome || !write_->outcome->applied) exchange_->response_.reset();
  if (!write_->outcome) {
    // The stage has not begun. If the record is on disk after all, recovery aborts it.
    cause_ = write_->outcome.error();
    if (cause_->kind() == FailureKind::unknown_outcome) {
      SLUICE_PROBE("flow.intent_or_pause_unknown");
      flow_.live_->left_open();
    }
    return false;
  }
  if (!write_->outcome->applied) {
    if (write_->outcome->key && claim_) {
      claim_.lost(*write_->outcome->key);
      cause_ = Failure(FailureKind::in_progress, "another node runs this key");
    } else {
      cause_ = Failure(FailureKind::in_progress, "taken_over",
                       "another owner continued this exchange");
    }
    return false;
  }
  for (const auto& mutation : write_->commit.then)
    if (const auto* put = std::get_if<store::KeyPut>(&mutation)) {
      begun_->key_token = put->row.token;
      claim_.claimed(put->row.token);
    }
  begun_durable_ = true;
  ++next_record_;
  return true;
}

Runner::Next Runner::intent_written() {
  if (!durable_now()) return machine_.stop(std::string(cause_->code()));
  return machine_.intent_written();
}

bool Runner::remembered() const {
  if (machine_.decision() == Decision::commit || exchange_->response() || reply_) return true;
  return cause_ && cause_->traits().remember == Remember::store;
}

Bytes Runner::reply_for_key() const {
  if (reply_) return reply_->encode();
  if (exchange_->response()) return exchange_->response()->encode();
  if (machine_.decision() == Decision::commit) return Reply::ok({}).encode();
  return Reply::from(*cause_).encode();
}

store::AuditAppend Runner::audit(store::AuditOutcome outcome, std::string detail) const {
  return {{.ns = exchange_->ns().text(),
           .principal = exchange_->principal,
           .command = exchange_->command.empty() ? flow_.name() : exchange_->command,
           .outcome = outcome,
           .exchange = exchange_->id(),
           .correlation = exchange_->correlation,
           .detail = std::move(detail)}};
}

// Of an end that no Commit of its own carries.
void Runner::audit_lazily(std::string detail) {
  if (!exchange_->audited || flow_.options_.store == nullptr) return;
  auto* row = new Detached;
  row->lane = &lane_;
  row->run = &Detached::finished;
  row->log = flow_.options_.log;
  row->commit.lazy = true;
  row->commit.then.push_back(audit(store::AuditOutcome::error, std::move(detail)));
  flow_.options_.store->submit(*row);
}

Runner::Next Runner::decide() {
  budget_timer_.cancel();  // of a prepare that went on after a pause
  if (flow_.options_.store == nullptr) return decide_in_memory();
  if (machine_.decision() == Decision::abort && !begun_durable_ && !(claim_ && remembered())) {
    // Nothing took effect and nothing must be remembered: no Commit at all, the key is free again.
    audit_lazily(machine_.cause());
    decided_ = true;
    if (claim_) claim_.release();
    return machine_.decided(Decision::abort);
  }
  store::Commit& commit = new_commit();
  draft_decision(commit);
  submit(&Runner::decision_written);
  return std::nullopt;
}

Runner::Next Runner::decide_in_memory() {
  decided_ = true;
  exchange_->second_phase_ = true;
  exchange_->drop_transient();
  return machine_.decided(machine_.decision());
}

void Runner::draft_effects(std::vector<store::Mutation>& out) {
  Draft& draft = exchange_->draft_;
  for (auto& mutation : draft.mutations) out.push_back(mutation);
  for (const auto& event : draft.events) {
    SLUICE_ASSERT(flow_.options_.ids != nullptr, "a flow whose stages publish needs FlowOptions::ids");
    out.push_back(store::EventAppend{{.id = flow_.options_.ids->event(),
                                      .ns = exchange_->ns().text(),
                                      .topic = event.topic,
                                      .payload = event.payload,
                                      .trace = exchange_->trace,
                                      .exchange = exchange_->id()}});
  }
}

// Each guard refuses with a branch of its own: decided aborted, the refusal stored as the reply.
void Runner::draft_guards(store::Commit& commit, Decision decision) {
  guards_from_ = commit.requires_.size();
  if (decision != Decision::commit) return;
  for (const auto& guard : exchange_->draft_.guards) {
    store::Requirement requirement = guard.requirement;
    if (!guard.conflict && !begun_durable_) {
      const Bytes reply = refusal_reply(guard).encode();
      requirement.otherwise = static_cast<std::int32_t>(commit.otherwise.size());
      store::Commit branch;
      const Record begun = make_begun(false);
      const Record decided = Decided{Decision::abort, requirement.name, claim_ ? Bytes() : reply, {}, {}};
      branch.then.push_back(
          store::JournalAppend{{exchange_->id(), next_record_, encode_row({&begun, &decided})}});
      if (claim_) claim_.complete_in(branch, reply);
      if (exchange_->audited) branch.then.push_back(audit(store::AuditOutcome::error, requirement.name));
      commit.otherwise.push_back(std::move(branch.then));
    }
    commit.requires_.push_back(std::move(requirement));
  }
}

void Runner::draft_decision(store::Commit& commit) {
  const Decision decision = machine_.decision();
  const bool external = begun_durable_;
  if (external) {
    commit.requires_.push_back(
        {store::JournalAt{exchange_->id(), next_record_}, std::string(kJournalGuard)});
  } else if (claim_ && remembered()) {
    reply_bytes_ = reply_for_key();
    claim_.complete_in(commit, reply_bytes_);
  }
  draft_guards(commit, decision);
  if (decision == Decision::commit) draft_effects(commit.then);
  Decided decided{decision, machine_.cause(), {}, {}, {}};
  if (external || !claim_) decided.reply = remembered() ? reply_for_key() : Bytes();
  if (external) {
    decided.steps = machine_.steps();
    decided.bag = exchange_->durable_entries();
    const Record record = std::move(decided);
    commit.then.push_back(store::JournalAppend{{exchange_->id(), next_record_, encode_row(record)}});
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
  if (exchange_->audited)
    commit.then.push_back(audit(
        decision == Decision::commit ? store::AuditOutcome::ok : store::AuditOutcome::error, machine_.cause()));
}

Runner::Next Runner::decision_written() {
  if (!write_->outcome) return resolve_unknown(write_->outcome.error());
  if (!write_->outcome->applied) return refused(*write_->outcome);
  decided_ = true;
  ++next_record_;
  exchange_->second_phase_ = true;
  exchange_->drop_transient();
  if (claim_ && !begun_durable_) claim_.completed(reply_bytes_);
  if (flow_.options_.reply_when == ReplyWhen::decided && machine_.decision() == Decision::commit)
    answer(OutcomeKind::committed);
  return machine_.decided(machine_.decision());
}

}  // namespace sluice::flow
