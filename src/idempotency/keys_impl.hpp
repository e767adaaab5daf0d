// The transitions of a key. Each takes the shard's lock, settles the entry and every waiter it
// concerns, and only then, without the lock, lets the waiters run.
#pragma once
#include <atomic>
#include <memory>

#include "idempotency/key_shard.hpp"

namespace sluice::idempotency {

struct Keys::Impl {
  Impl(Keys& owner, Clock& c, store::Store* s, KeysOptions o);

  KeyShard& shard_of(std::uint64_t hash) noexcept { return shards[(hash >> 48) & mask]; }
  WallTime now() { return store != nullptr ? store->now() : clock.wall(); }

  /// Counts a claim that will look or run; false when there are too many already.
  bool reserve() noexcept;
  /// looking → running, under the lock: `pending` gets the claim.
  void start(KeyShard& shard, KeyEntry& entry, PendingClaim& pending, std::uint64_t token);
  /// Under the lock. True: answered, it may not wait any longer.
  bool wait(KeyShard& shard, KeyEntry& entry, PendingClaim& pending);
  /// Makes the entry's question for the store.
  void question_to(KeyEntry& entry);
  /// Asks the store for an entry whose first waiter is `pending`.
  bool ask(KeyEntry& entry, PendingClaim& pending);
  /// Asks until it is settled. False: goes on when the store has answered.
  bool ask_on(KeyEntry& entry, PendingClaim* caller);
  /// The store's answer. `caller`, if it is among the waiters, is answered but not run. False: the store
  /// is to be asked something else first.
  bool settle(KeyEntry& entry, PendingClaim* caller);
  /// running → completed.
  void finish(KeyEntry& entry, std::shared_ptr<const Cached> cached);
  /// running → unknown here: another exchange holds the key durably.
  void give_up_to(KeyEntry& entry, const store::KeyRow& holder);
  /// running → running by the next waiter (once the store was asked), or unknown.
  void hand_on(KeyEntry& entry);
  /// When the reply of a stored key expires.
  static WallTime expiry_of(const store::KeyRow& row, milliseconds ttl, milliseconds kept) noexcept;
  static void on_deadline(void* owner) noexcept;

  Keys& keys;
  Clock& clock;
  store::Store* store;
  KeysOptions options;
  std::size_t mask;
  std::unique_ptr<KeyShard[]> shards;
  std::atomic<std::size_t> running{0};  // looking or running
};

/// expires_at without overflow.
WallTime expiry(WallTime now, milliseconds ttl) noexcept;

}  // namespace sluice::idempotency
