#include "flow/keyed_run.hpp"

#include <algorithm>

#include "flow/observe.hpp"
#include "sluice/flow/recovery.hpp"

namespace sluice::flow {

namespace {
constexpr std::size_t kVersionsBefore = 8;  // each is a question to the store for a new key
}

KeyedRun::KeyedRun(Flow& flow, ExchangePtr exchange_in, RunOptions options, Flow::Done done,
                   void* owner)
    : flow_(flow),
      exchange_(std::move(exchange_in)),
      options_(std::move(options)),
      done_(done),
      owner_(owner) {}

void KeyedRun::start(Flow& flow, std::string key, ExchangePtr exchange, RunOptions options,
                     Flow::Done done, void* owner) {
  std::unique_ptr<KeyedRun> self(
      new KeyedRun(flow, std::move(exchange), std::move(options), done, owner));
  const FlowOptions& chosen = flow.options();
  Exchange& x = *self->exchange_;
  const auto scope_under = [&](std::uint32_t version) {
    return idempotency::make_scope(x.ns(), x.principal, x.command.empty() ? std::string_view(flow.name()) : x.command,
                                   version, key);
  };
  // Nobody who sends a request knows the flow's version: nodes of two releases must agree on where its key is.
  // An earlier release filed it under the version that its flow had.
  self->scope = scope_under(idempotency::kUnnamedVersion);
  for (std::uint32_t version = chosen.version; version > idempotency::kUnnamedVersion && self->also_under.size() < kVersionsBefore; --version)
    self->also_under.push_back(scope_under(version));
  self->fingerprint = sha256(x.request());
  self->exchange = x.id();
  self->policy = chosen.key_policy;
  self->deadline = self->options_.deadline;
  self->lane = self->options_.lane;
  self->run = [](Job* job) noexcept {
    answered(std::unique_ptr<KeyedRun>(
        static_cast<KeyedRun*>(static_cast<idempotency::PendingClaim*>(job))));
  };
  if (chosen.keys->claim(*self)) return answered(std::move(self));
  self->caller_gone_.link(x.scope(), &KeyedRun::cancelled, self.get());
  (void)self.release();
}

// A duplicate that waits for the first, and whose caller has left.
void KeyedRun::cancelled(void* owner) noexcept {
  auto* waiting = static_cast<KeyedRun*>(owner);
  if (!waiting->flow_.options().keys->forget(*waiting)) return;  // answered: run() is on its way
  const std::unique_ptr<KeyedRun> self(waiting);
  Outcome outcome;
  outcome.kind = OutcomeKind::aborted;
  outcome.exchange = self->exchange_->id();
  outcome.cause = Failure(self->exchange_->scope().reason(), "cancelled while the first request ran");
  self->done_(self->owner_, std::move(outcome));
}

Outcome KeyedRun::replay(const idempotency::Cached& cached) {
  Outcome outcome;
  outcome.exchange = cached.exchange;
  outcome.replayed = true;
  outcome.reply_bytes = cached.reply;
  auto reply = Reply::decode(cached.reply);
  if (!reply) {
    outcome.kind = OutcomeKind::aborted;
    outcome.cause = reply.error();
    return outcome;
  }
  if (reply->kind != FailureKind::none) {
    outcome.kind = reply->kind == FailureKind::in_doubt ? OutcomeKind::in_doubt : OutcomeKind::aborted;
    outcome.cause = reply->to_failure();
  }
  if (reply->declined && outcome.kind == OutcomeKind::committed) {
    outcome.kind = OutcomeKind::aborted;
    outcome.cause = Failure(FailureKind::rejected, "aborted", "declined, as the first time");
  }
  outcome.reply = *std::move(reply);
  tell(flow_, *exchange_, EventKind::idempotent_hit, {}, options_.lane->clock().wall());
  return outcome;
}

void KeyedRun::still_runs(std::unique_ptr<KeyedRun> self, bool doubtful) noexcept {
  const auto& running = std::get<idempotency::InProgress>(*self->answer);
  Outcome outcome;
  outcome.exchange = running.exchange;
  outcome.kind = doubtful ? OutcomeKind::in_doubt : OutcomeKind::pending;
  outcome.cause = Failure(FailureKind::in_progress, "the first request with this key is running")
                      .with_retry_after(running.retry_after);
  self->done_(self->owner_, std::move(outcome));
}

void KeyedRun::answered(std::unique_ptr<KeyedRun> self) {
  self->caller_gone_.unlink();
  Outcome outcome;
  outcome.kind = OutcomeKind::aborted;
  outcome.exchange = self->exchange_->id();
  if (!self->answer) {
    outcome.cause = self->answer.error();
  } else if (auto* fresh = std::get_if<idempotency::Run>(&*self->answer)) {
    self->options_.claim = std::move(fresh->claim);
    return self->flow_.begin(std::move(self->exchange_), std::move(self->options_), self->done_,
                             self->owner_);
  } else if (auto* known = std::get_if<idempotency::Replay>(&*self->answer)) {
    outcome = self->replay(*known->cached);
  } else if (auto* running = std::get_if<idempotency::InProgress>(&*self->answer)) {
    auto* store = self->flow_.options().store;
    const Duration left = self->lane == nullptr ? kDoubtAskedFor : self->deadline - self->lane->clock().now();
    if (store == nullptr || !running->exchange || left <= Duration(0)) return still_runs(std::move(self), false);
    auto* const held = self.release();
    return ask_in_doubt(*store, running->exchange, held->lane, std::min(kDoubtAskedFor, left),
                        [](void* owner, bool doubtful) noexcept { still_runs(std::unique_ptr<KeyedRun>(static_cast<KeyedRun*>(owner)), doubtful); },
                        held);
  } else if (std::holds_alternative<idempotency::ExpiredKey>(*self->answer)) {
    outcome.cause = Failure(FailureKind::invalid_argument, "expired_key",
                            "this idempotency key has expired and is not run again; to do it once more use a new key");
  } else {
    outcome.cause = Failure(FailureKind::fingerprint_mismatch,
                            "the key was used with another request");
  }
  self->done_(self->owner_, std::move(outcome));
}

}  // namespace sluice::flow
