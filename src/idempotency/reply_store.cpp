#include "sluice/idempotency/reply_store.hpp"

#include "sluice/base/runtime.hpp"

namespace sluice::idempotency {
namespace {

Bytes scope_of(std::string_view key, const Identity& who) {
  return make_scope(who.ns, who.principal, who.command, who.version, key);
}

struct BlockingClaim : PendingClaim {
  Parker done;
  BlockingClaim() {
    run = [](Job* job) noexcept {
      static_cast<BlockingClaim*>(static_cast<PendingClaim*>(job))->done.wake();
    };
  }
};

}  // namespace

std::shared_ptr<const Cached> lookup(Keys& keys, std::string_view key, const Identity& identity) {
  return keys.lookup(scope_of(key, identity));
}

Status store(Keys& keys, store::Store* store, std::string_view key, const Identity& identity,
             ReplyToStore what) {
  BlockingClaim pending;
  pending.scope = scope_of(key, identity);
  pending.fingerprint = what.fingerprint;
  pending.exchange = what.exchange;
  pending.policy.ttl = what.ttl;
  pending.policy.wait = false;
  if (!keys.claim(pending)) pending.done.park();
  auto& answer = pending.answer;
  if (!answer) return fail(std::move(answer).error());
  if (std::holds_alternative<Replay>(*answer)) return {};
  if (std::holds_alternative<Mismatch>(*answer))
    return fail(FailureKind::fingerprint_mismatch, {},
                "the key already has the reply of another payload");
  auto* run = std::get_if<Run>(&*answer);
  if (run == nullptr)
    return fail(FailureKind::in_progress, {}, "the key is claimed by a request that runs");
  Claim claim = std::move(run->claim);
  if (store != nullptr) {
    store::Commit commit;
    claim.complete_in(commit, what.reply);
    const auto outcome = store::commit_and_wait(*store, std::move(commit));
    if (!outcome) return fail(outcome.error());  // the claim is released as it goes
    if (!outcome->applied) {
      SLUICE_ASSERT(outcome->key.has_value(), "a refused key precondition tells the row");
      const bool same = outcome->key->fingerprint == what.fingerprint;
      claim.lost(*outcome->key);
      if (!same)
        return fail(FailureKind::fingerprint_mismatch, {},
                    "the key already has the reply of another payload");
      return {};
    }
  }
  claim.completed(std::move(what.reply));
  return {};
}

}  // namespace sluice::idempotency
