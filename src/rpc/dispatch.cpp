// The checks in the order that PROTOCOL fixes: authorise → look the key up → gate → claim → handle.
#include <exception>

#include "sluice/flow/recovery.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::rpc {

using idempotency::Cached;

namespace {

bool anonymous(const Command& command) noexcept {
  return command.principal == nullptr || command.principal->id.empty();
}
std::string_view principal_id(const Command& command) noexcept {
  return command.principal == nullptr ? std::string_view() : command.principal->id;
}

Failure mismatch() {
  return Failure(FailureKind::fingerprint_mismatch, "fingerprint_mismatch",
                 "this idempotency key was used with another payload; use a new key for a new "
                 "request, or repeat the first payload unchanged");
}

Answer replay(std::shared_ptr<const Cached> cached) {
  Answer answer;
  answer.replayed = true;
  answer.exchange = cached->exchange;
  const Bytes* bytes = &cached->reply;
  answer.reply = std::shared_ptr<const Bytes>(std::move(cached), bytes);
  return answer;
}

}  // namespace

Status Registry::authorise(Invocation& invocation) {
  const auto& command = invocation.command;
  const auto& spec = *invocation.spec_;
  if (spec.anonymous && anonymous(command)) {
    if (!command.ns.shadow()) return {};
    return fail(FailureKind::forbidden, "shadow_forbidden", "shadow traffic needs a token");
  }
  if (anonymous(command))
    return fail(FailureKind::unauthenticated, "unauthenticated",
                "command '" + spec.name + "' needs a token: Authorization: Bearer <token>");
  if (!command.principal->may(command.ns.app(), spec.permission))
    return fail(FailureKind::forbidden, "forbidden",
                "this token does not grant '" + std::string(command.ns.app()) + ":" +
                    spec.permission + "'");
  if (!command.ns.shadow()) return {};
  if (!command.principal->may_shadow)
    return fail(FailureKind::forbidden, "shadow_forbidden",
                "this token may not send shadow traffic");
  if (!spec.shadow)
    return fail(FailureKind::forbidden, "shadow_unsupported",
                "command '" + spec.name + "' does not run in the shadow namespace");
  return {};
}

Status Registry::check_key(const Invocation& invocation) const {
  const auto& spec = *invocation.spec_;
  const auto& key = invocation.command.idempotency_key;
  if (!key) {
    if (spec.idempotency != KeyUse::required) return {};
    return fail(FailureKind::invalid_argument, "idempotency_key_required",
                "command '" + spec.name + "' needs an Idempotency-Key");
  }
  if (key->empty() || key->size() > options_.max_key_bytes)
    return fail(FailureKind::invalid_argument, "bad_idempotency_key",
                "Idempotency-Key: expected 1–" + std::to_string(options_.max_key_bytes) +
                    " bytes, got " + std::to_string(key->size()));
  for (const unsigned char c : *key)
    if (c < 0x20 || c == 0x7F)
      return fail(FailureKind::invalid_argument, "bad_idempotency_key",
                  "Idempotency-Key: control characters are not allowed");
  if (anonymous(invocation.command))
    return fail(FailureKind::invalid_argument, "key_needs_principal",
                "an Idempotency-Key belongs to who sends it: send a token with it");
  return {};
}

void Registry::dispatch(Invocation& invocation) {
  SLUICE_ASSERT(invocation.stage_ == Invocation::Stage::idle, "an invocation is dispatched twice");
  SLUICE_ASSERT(invocation.lane != nullptr && invocation.done != nullptr,
                "an invocation needs a lane and a done callback");
  dispatched_.fetch_add(1, std::memory_order_relaxed);
  auto& command = invocation.command;
  invocation.registry_ = this;
  invocation.stage_ = Invocation::Stage::entering;
  auto spec = find(command.name, command.version);
  if (!spec) return invocation.deliver(Answer::of(std::move(spec).error()));
  invocation.spec_ = std::move(*spec);
  command.version = invocation.spec_->version;
  if (auto allowed = authorise(invocation); !allowed) {
    denied_.fetch_add(1, std::memory_order_relaxed);
    audit(invocation.audit_row(store::AuditOutcome::denied, allowed.error().code()));
    return invocation.deliver(Answer::of(std::move(allowed).error()));
  }
  if (command.payload.size() > invocation.spec_->max_payload)
    return invocation.deliver(
        Answer::of(Failure(FailureKind::too_large, "payload_too_large",
                           "command '" + command.name + "' takes at most " +
                               std::to_string(invocation.spec_->max_payload) + " bytes, got " +
                               std::to_string(command.payload.size()))));
  if (auto ok = check_key(invocation); !ok)
    return invocation.deliver(Answer::of(std::move(ok).error()));

  invocation.has_key_ =
      command.idempotency_key.has_value() && invocation.spec_->idempotency != KeyUse::none;
  if (invocation.has_key_) {
    auto& pending = invocation.pending_claim_;
    pending.scope = idempotency::make_scope(command.ns, principal_id(command), command.name,
                                            command.version, *command.idempotency_key);
    invocation.fingerprint_ = fingerprint_of(*invocation.spec_, command);
    auto cached = keys_.lookup(pending.scope);
    if (cached && !cached->expired(store_.now())) {
      if (cached->fingerprint != invocation.fingerprint_)
        return invocation.deliver(Answer::of(mismatch()));
      return invocation.deliver(replay(std::move(cached)));
    }
  }
  invocation.exchange_ = ids_.exchange();
  if (invocation.spec_->ordering_key)
    invocation.ordering_key_ = invocation.spec_->ordering_key(command);
  invocation.listener_.link(invocation.scope, &Invocation::cancelled, &invocation);
  if (gatekeeper_ != nullptr) return gatekeeper_->enter(invocation);
  invocation.entered({});
}

void Invocation::entered(Status status) {
  SLUICE_ASSERT(stage_ == Stage::entering, "the gate let an invocation in twice");
  if (!status) return deliver(Answer::of(std::move(status).error()));
  admitted_ = registry_->gatekeeper_ != nullptr;
  if (has_key_ && !claim_) return registry_->claim(*this);
  registry_->handle(*this);
}

void Registry::claim(Invocation& invocation) {
  auto& pending = invocation.pending_claim_;
  invocation.stage_ = Invocation::Stage::claiming;
  pending.self = &invocation;
  pending.fingerprint = invocation.fingerprint_;
  pending.exchange = invocation.exchange_;
  pending.policy = invocation.spec_->keys;
  pending.deadline = invocation.command.deadline;
  pending.lane = invocation.lane;
  pending.run = [](Job* job) noexcept { static_cast<Invocation::ClaimJob*>(job)->self->claimed(); };
  if (keys_.claim(pending)) return invocation.claimed();
  // Waiting duplicates hold neither slot nor permit.
  invocation.leave_gate();
}

void Invocation::claimed() {
  auto& answer = pending_claim_.answer;
  if (!answer) return deliver(Answer::of(std::move(answer).error()));
  if (auto* run = std::get_if<idempotency::Run>(&*answer)) {
    claim_ = std::move(run->claim);
    if (!claim_) has_key_ = false;  // the store failed, and the command declared fail_open
    if (registry_->gatekeeper_ != nullptr && !admitted_) {
      stage_ = Stage::entering;
      return registry_->gatekeeper_->enter(*this);
    }
    return registry_->handle(*this);
  }
  if (auto* found = std::get_if<idempotency::Replay>(&*answer))
    return deliver(replay(std::move(found->cached)));
  if (auto* running = std::get_if<idempotency::InProgress>(&*answer)) {
    // In doubt is not "still running": it is told as what it is.
    if (running->exchange && flow::in_doubt(registry_->store_, running->exchange))
      return deliver(Answer::in_doubt(running->exchange));
    return deliver(Answer::of(
        Failure(FailureKind::in_progress, "in_progress",
                "the first request with this idempotency key is still running; try again later")
            .with_retry_after(running->retry_after)
            .with("transaction", to_string(running->exchange))));
  }
  if (std::holds_alternative<idempotency::ExpiredKey>(*answer))
    return deliver(Answer::of(Failure(FailureKind::invalid_argument, "expired_key",
                                      "this idempotency key has expired and is not run again")));
  deliver(Answer::of(mismatch()));
}

void Registry::handle(Invocation& invocation) {
  invocation.stage_ = Invocation::Stage::running;
  invocation.context_ = {invocation.lane, &invocation.scope, invocation.command.deadline};
  // A throw after finish() must not touch the invocation, which may be gone.
  bool finished = false;
  invocation.finished_ = &finished;
  const auto spec = invocation.spec_;
  try {
    spec->handler(invocation);
  } catch (const std::exception& error) {
    if (!finished)
      invocation.finish(Answer::of(Failure(FailureKind::internal, "handler_threw", error.what())));
    return;
  } catch (...) {
    if (!finished)
      invocation.finish(Answer::of(Failure(FailureKind::internal, "handler_threw", {})));
    return;
  }
  if (!finished) invocation.finished_ = nullptr;
}

}  // namespace sluice::rpc
