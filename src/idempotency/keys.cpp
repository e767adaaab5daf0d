#include "sluice/idempotency/keys.hpp"

#include <algorithm>
#include <bit>

#include "idempotency/keys_impl.hpp"

namespace sluice::idempotency {

Bytes make_scope(const Namespace& ns, std::string_view principal, std::string_view command,
                 std::uint32_t version, std::string_view key) {
  Bytes scope;
  scope.reserve(ns.text().size() + principal.size() + command.size() + key.size() + 16);
  ByteWriter out(scope);
  out.bytes(ns.text());
  out.bytes(principal);
  out.bytes(command);
  out.varint(version);
  out.bytes(key);
  return scope;
}

Keys::Keys(Clock& clock, store::Store* store, KeysOptions options)
    : impl_(std::make_unique<Impl>(*this, clock, store, options)) {}
Keys::~Keys() = default;

std::shared_ptr<const Cached> Keys::lookup(ByteView scope) noexcept {
  const std::uint64_t hash = hash64(scope);
  const WallTime now = impl_->now();
  KeyShard& shard = impl_->shard_of(hash);
  const std::lock_guard lock(shard.mutex);
  KeyEntry* entry = shard.find(scope, hash);
  if (entry == nullptr || entry->state != KeyEntry::State::completed) return nullptr;
  if (entry->cached->expired(now)) return nullptr;
  ++shard.stats.replays;
  shard.touch(*entry);
  return entry->cached;
}

bool Keys::claim(PendingClaim& pending) {
  Impl& impl = *impl_;
  auto& waiting = pending.waiting;
  waiting.timer.cancel();
  waiting.keys = this;
  waiting.entry = nullptr;
  waiting.hash = hash64(pending.scope);
  const WallTime now = impl.now();
  KeyShard& shard = impl.shard_of(waiting.hash);
  std::unique_lock lock(shard.mutex);
  ++shard.stats.claims;

  KeyEntry* entry = shard.find(pending.scope, waiting.hash);
  if (entry != nullptr) {
    if (entry->state != KeyEntry::State::completed) return impl.wait(shard, *entry, pending);
    const bool live = !entry->cached->expired(now);
    if (live && !pending.same_request(entry->fingerprint)) {
      ++shard.stats.mismatches;
      pending.answer = Claimed{Mismatch{}};
      return true;
    }
    if (live) {
      ++shard.stats.replays;
      shard.touch(*entry);
      pending.answer = Claimed{Replay{entry->cached}};
      return true;
    }
    // As long as its row stands in a store; the memory of it may last longer.
    if (pending.policy.refuse_expired && now - entry->cached->expires_at < pending.policy.refuse_for) {
      pending.answer = Claimed{ExpiredKey{}};
      return true;
    }
  }
  if (!impl.reserve()) {
    pending.answer =
        fail(Failure(FailureKind::overloaded, "too_many_claims",
                     "all " + std::to_string(impl.options.max_claims) +
                         " idempotency claims are in use; try again when requests have finished")
                 .with_retry_after(seconds(1)));
    return true;
  }
  if (entry != nullptr)
    shard.reopen(*entry);
  else
    entry = &shard.insert(pending.scope, waiting.hash);
  if (impl.store == nullptr) {
    impl.start(shard, *entry, pending, 0);
    return true;
  }
  entry->waiters.push(pending, entry);
  lock.unlock();
  return impl.ask(*entry, pending);
}

bool Keys::forget(PendingClaim& pending) {
  auto& waiting = pending.waiting;
  waiting.timer.cancel();
  if (waiting.keys != this) return false;
  KeyShard& shard = impl_->shard_of(waiting.hash);
  const std::lock_guard lock(shard.mutex);
  if (waiting.entry == nullptr) return false;
  static_cast<KeyEntry*>(waiting.entry)->waiters.remove(pending);
  return true;
}

KeysStats Keys::stats() const noexcept {
  KeysStats sum;
  for (std::size_t i = 0; i <= impl_->mask; ++i) {
    KeyShard& shard = impl_->shards[i];
    const std::lock_guard lock(shard.mutex);
    sum.claims += shard.stats.claims;
    sum.replays += shard.stats.replays;
    sum.waits += shard.stats.waits;
    sum.mismatches += shard.stats.mismatches;
    sum.evicted += shard.stats.evicted;
    sum.entries += shard.stats.entries;
    sum.bytes += shard.stats.bytes;
  }
  sum.running = impl_->running.load(std::memory_order_relaxed);
  return sum;
}

Keys::Impl::Impl(Keys& owner, Clock& c, store::Store* s, KeysOptions o)
    : keys(owner),
      clock(c),
      store(s),
      options(o),
      mask(std::bit_ceil(std::clamp<std::size_t>(o.shards, 1, 1024)) - 1),
      shards(std::make_unique<KeyShard[]>(mask + 1)) {
  const std::size_t count = mask + 1;
  for (std::size_t i = 0; i < count; ++i)
    shards[i].set_bounds((o.max_entries + count - 1) / count, (o.max_bytes + count - 1) / count);
}

}  // namespace sluice::idempotency
