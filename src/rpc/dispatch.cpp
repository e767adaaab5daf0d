// The checks in their order: authorise → claim the key → gate → handle. docs/adr says why the claim
// comes before the gate.
#include <algorithm>
#include <exception>

#include "rpc/unsettled.hpp"
#include "sluice/flow/recovery.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::rpc {

using idempotency::Cached;

namespace {

bool anonymous(const Command& command) noexcept {
  return command.principal == nullptr || command.principal->id.empty();
}

// What the author of a command is asked about a request; a throw is this request's failure.
template <class Ask>
Status ask_author(std::string_view what, Ask ask) {
  try {
    ask();
    return {};
  } catch (const std::exception& error) {
    return fail(FailureKind::internal, "exception", std::string(what) + " of the command threw: " + error.what());
  } catch (...) {
    return fail(FailureKind::internal, "exception", std::string(what) + " of the command threw something that is no std::exception");
  }
}

constexpr std::size_t kMaxClientId = 255;  // bytes
// No principal's name has it: a client without a token is none of them, whatever it calls itself.
constexpr char kNoPrincipal = '\x01';

constexpr std::size_t kCanonicalKept = 16 << 10;  // bytes, for the next request

// The app of the server's own commands: tokens, settling, guards. They act on every app, so leave to
// run them is never leave of the app that a caller names.
constexpr std::string_view kServersApp = "sluice";

Answer replay(std::shared_ptr<const Cached> cached) {
  if (auto status = unsettled_in(cached->reply)) return *std::move(status);
  Answer answer;
  answer.replayed = true;
  answer.exchange = cached->exchange;
  const Bytes* bytes = &cached->reply;
  answer.reply = std::shared_ptr<const Bytes>(std::move(cached), bytes);
  return answer;
}

}  // namespace

Failure Registry::mismatch() {
  return Failure(FailureKind::fingerprint_mismatch, "fingerprint_mismatch",
                 "this idempotency key was used with another payload; use a new key for a new "
                 "request, or repeat the first payload unchanged");
}

// Before anything ran. Not for what is told to come again: its retry leaves the row.
void Registry::refuse(Invocation& invocation, Failure failure) {
  refused(invocation.audit_row({}, {}), failure, anonymous(invocation.command), invocation.command.client,
          invocation.lane->clock().now(), invocation.command.ns.shadow());
  invocation.deliver(Answer::of(std::move(failure)));
}

Status Registry::authorise(Invocation& invocation) {
  const auto& command = invocation.command;
  const auto& spec = *invocation.spec_;
  if (spec.anonymous && anonymous(command)) {
    if (!command.ns.shadow()) return {};
    return fail(FailureKind::forbidden, "shadow_forbidden", "shadow traffic needs a token");
  }
  if (anonymous(command))
    return fail(FailureKind::unauthenticated, "unauthenticated",
                "this needs a token: Authorization: Bearer <token>");
  if (spec.app == kServersApp && command.ns.app() != kServersApp)
    return fail(FailureKind::forbidden, "forbidden",
                "command '" + spec.name + "' acts on the whole server: it runs in app 'sluice' alone, not in '" +
                    std::string(command.ns.app()) + "'");
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

Status Registry::check_key(Invocation& invocation) const {
  const auto& spec = *invocation.spec_;
  const auto& key = invocation.command.idempotency_key;
  if (!key) {
    if (spec.idempotency != KeyUse::required) return {};
    return fail(FailureKind::invalid_argument, "idempotency_key_required",
                "command '" + spec.name + "' needs an Idempotency-Key");
  }
  // Not passed over in silence: who sends a key relies on it.
  if (spec.idempotency == KeyUse::none)
    return fail(FailureKind::invalid_argument, "key_not_used",
                "command '" + spec.name + "' keeps no replies and so takes no Idempotency-Key: each request runs; "
                "send it without");
  if (key->empty() || key->size() > options_.max_key_bytes)
    return fail(FailureKind::invalid_argument, "bad_idempotency_key",
                "Idempotency-Key: expected 1–" + std::to_string(options_.max_key_bytes) +
                    " bytes, got " + std::to_string(key->size()));
  for (const unsigned char c : *key)
    if (c < 0x20 || c == 0x7F)
      return fail(FailureKind::invalid_argument, "bad_idempotency_key",
                  "Idempotency-Key: control characters are not allowed");
  if (!anonymous(invocation.command)) {
    invocation.key_owner_ = invocation.command.principal->id;
    return {};
  }
  if (!spec.client_id)
    return fail(FailureKind::invalid_argument, "key_needs_principal",
                "an Idempotency-Key belongs to who sends it: send a token with it");
  std::string client;
  SLUICE_TRY(ask_author("client_id", [&] { client = spec.client_id(invocation.command); }));
  if (client.empty() || client.size() > kMaxClientId)
    return fail(FailureKind::invalid_argument, "key_needs_client_id",
                "an Idempotency-Key belongs to who sends it: without a token, command '" + spec.name +
                    "' needs a client id of 1–" + std::to_string(kMaxClientId) + " bytes with it, got " +
                    std::to_string(client.size()));
  invocation.key_owner_ = kNoPrincipal + client;
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
  if (!spec) return refuse(invocation, std::move(spec).error());
  invocation.spec_ = std::move(*spec);
  invocation.unnamed_ = command.version == 0;
  command.version = invocation.spec_->version;
  if (check(invocation)) proceed(invocation);
}

// Authorised, of a bearable size, with a usable key. False: answered.
bool Registry::check(Invocation& invocation) {
  const auto& command = invocation.command;
  Status ok = authorise(invocation);
  if (ok && command.payload.size() > invocation.spec_->max_payload)
    ok = fail(FailureKind::too_large, "payload_too_large",
              "command '" + command.name + "' takes at most " + std::to_string(invocation.spec_->max_payload) +
                  " bytes, got " + std::to_string(command.payload.size()));
  if (ok) ok = check_key(invocation);
  if (!ok) {
    refuse(invocation, std::move(ok).error());
    return false;
  }
  invocation.has_key_ =
      command.idempotency_key.has_value() && invocation.spec_->idempotency != KeyUse::none;
  return true;
}

Bytes Registry::scope_of(const Invocation& invocation, std::uint32_t version) {
  const auto& command = invocation.command;
  return idempotency::make_scope(command.ns, invocation.key_owner_, command.name, version, *command.idempotency_key);
}

// Of a request that names no version by the oldest one's projection, which the most nodes of a roll have, of
// those that can read the payload: what only a later version takes, no node without it could have answered.
Digest Registry::print_of(const Invocation& invocation) const {
  const auto& command = invocation.command;
  if (!invocation.unnamed_) return fingerprint_of(*invocation.spec_, command);
  const auto& versions = specs_.find(command.name)->second;
  const CommandSpec& newest = *versions.rbegin()->second;
  Digest print;
  for (const auto& [version, spec] : versions)
    if (spec.get() != &newest &&
        ask_author("projection", [&] { print = fingerprint_of(*spec, command, idempotency::kUnnamedVersion); }))
      return print;
  return fingerprint_of(newest, command, idempotency::kUnnamedVersion);
}

// Where else the key of this very request may stand, and as what: an earlier release filed it under the newest
// version that it had; a node whose oldest version is another one prints it by that one's projection.
void Registry::note_the_same_elsewhere(Invocation& invocation) const {
  const auto& command = invocation.command;
  auto& pending = invocation.pending_claim_;
  pending.also_matches.clear();
  pending.also_under.clear();
  const auto earlier = [&](const CommandSpec& spec, std::uint32_t version) {
    if (const auto print = earlier_fingerprint_of(spec, command, version)) pending.also_matches.push_back(*print);
  };
  const auto now = [&](const CommandSpec& spec, std::uint32_t version) {
    // What throws is told where it is asked for the request itself.
    (void)ask_author("projection", [&] { pending.also_matches.push_back(fingerprint_of(spec, command, version)); });
  };
  if (!invocation.unnamed_) return earlier(*invocation.spec_, command.version);
  const auto& versions = specs_.find(command.name)->second;
  earlier(*versions.begin()->second, idempotency::kUnnamedVersion);
  for (const auto& [version, spec] : versions) {
    if (version != versions.begin()->first && spec->projection) now(*spec, idempotency::kUnnamedVersion);
    if (version == idempotency::kUnnamedVersion) continue;
    now(*spec, version);
    earlier(*spec, version);
    pending.also_under.push_back(scope_of(invocation, version));
  }
}

// Keys are claimed before the gate: a duplicate is answered, or waits, without a slot or a permit.
void Registry::proceed(Invocation& invocation) {
  auto& command = invocation.command;
  if (invocation.has_key_) {
    const Status asked = ask_author("projection", [&] { invocation.fingerprint_ = print_of(invocation); });
    if (!asked) return refuse(invocation, asked.error());
    auto& pending = invocation.pending_claim_;
    pending.scope = scope_of(invocation, invocation.unnamed_ ? idempotency::kUnnamedVersion : command.version);
    pending.fingerprint = invocation.fingerprint_;
    if (auto cached = keys_.lookup(pending.scope)) {
      if (cached->fingerprint != pending.fingerprint) note_the_same_elsewhere(invocation);
      if (!pending.same_request(cached->fingerprint)) return refuse(invocation, mismatch());
      return invocation.deliver(replay(std::move(cached)));
    }
  }
  if (invocation.spec_->ordering_key) {
    const Status asked = ask_author("ordering_key", [&] { invocation.ordering_key_ = invocation.spec_->ordering_key(command); });
    if (!asked) return refuse(invocation, asked.error());
  }
  invocation.exchange_ = ids_.exchange();
  invocation.listener_.link(invocation.scope, &Invocation::cancelled, &invocation);
  if (invocation.has_key_) return claim(invocation);
  enter(invocation);
}

void Registry::enter(Invocation& invocation) {
  invocation.stage_ = Invocation::Stage::entering;
  if (gatekeeper_ != nullptr) return gatekeeper_->enter(invocation);
  invocation.entered({});
}

void Invocation::entered(Status status) {
  SLUICE_ASSERT(stage_ == Stage::entering, "the gate let an invocation in twice");
  if (!status) return deliver(Answer::of(std::move(status).error()));
  admitted_ = registry_->gatekeeper_ != nullptr;
  registry_->handle(*this);
}

void Registry::claim(Invocation& invocation) {
  auto& pending = invocation.pending_claim_;
  invocation.stage_ = Invocation::Stage::claiming;
  pending.self = &invocation;
  note_the_same_elsewhere(invocation);
  pending.exchange = invocation.exchange_;
  pending.policy = invocation.spec_->keys;
  pending.policy.ttl = std::max(pending.policy.ttl, invocation.keep_key_for);
  pending.deadline = invocation.command.deadline;
  pending.lane = invocation.lane;
  pending.run = [](Job* job) noexcept { static_cast<Invocation::ClaimJob*>(job)->self->claimed(); };
  if (keys_.claim(pending)) invocation.claimed();
}

void Invocation::claimed() {
  auto& answer = pending_claim_.answer;
  if (!answer) return deliver(Answer::of(std::move(answer).error()));
  if (auto* run = std::get_if<idempotency::Run>(&*answer)) {
    if (replay_only) {
      const idempotency::Claim given_back = std::move(run->claim);
      exchange_ = {};  // there is none to look up
      return deliver(Answer::of(Failure(FailureKind::not_found, "no_reply", "no reply is stored under this idempotency key; nothing was run")));
    }
    claim_ = std::move(run->claim);
    if (!claim_) has_key_ = false;  // the store failed, and the command declared fail_open
    return registry_->enter(*this);
  }
  if (auto* found = std::get_if<idempotency::Replay>(&*answer))
    return deliver(replay(std::move(found->cached)));
  if (auto* running = std::get_if<idempotency::InProgress>(&*answer)) {
    const auto told = [](void* invocation, bool doubtful) noexcept {
      auto& self = *static_cast<Invocation*>(invocation);
      const auto& runs = std::get<idempotency::InProgress>(*self.pending_claim_.answer);
      // In doubt is not "still running": it is told as what it is.
      if (doubtful) return self.deliver(Answer::in_doubt(runs.exchange));
      self.deliver(Answer::of(
          Failure(FailureKind::in_progress, "in_progress",
                  "the first request with this idempotency key is still running; try again later")
              .with_retry_after(runs.retry_after)
              .with("transaction", to_string(runs.exchange))));
    };
    const Duration left = command.deadline - lane->clock().now();
    if (!running->exchange || left <= Duration(0)) return told(this, false);
    return flow::ask_in_doubt(registry_->store_, running->exchange, lane, std::min(flow::kDoubtAskedFor, left), told, this);
  }
  // Unlike a full gate or a key that runs still, these are never answered otherwise later.
  Failure never = std::holds_alternative<idempotency::ExpiredKey>(*answer)
                      ? Failure(FailureKind::invalid_argument, "expired_key", "this idempotency key has expired and is not run again; to do it once more use a new key")
                      : Registry::mismatch();
  auto row = audit_row(store::AuditOutcome::error, {});
  row.exchange = {};  // nothing ran that could be looked up
  registry_->refused(std::move(row), never, anonymous(command), command.client, lane->clock().now(), command.ns.shadow());
  deliver(Answer::of(std::move(never)));
}

void Registry::handle(Invocation& invocation) {
  invocation.stage_ = Invocation::Stage::running;
  // It has done its work; a large one is not held as long as the handler runs.
  if (auto& canonical = invocation.command.canonical; canonical.capacity() > kCanonicalKept) Bytes().swap(canonical);
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
