// A part of the keys: a hash table of entries and the recency of the completed ones. Entries are
// linked into both, so that a hit touches no allocator. Callers hold `mutex`.
#pragma once
#include <mutex>
#include <vector>

#include "idempotency/key_entry.hpp"

namespace sluice::idempotency {

class alignas(64) KeyShard {
 public:
  // What an entry costs beyond its scope and reply: itself, the shared Cached, two buckets.
  static constexpr std::size_t kEntryOverhead = sizeof(KeyEntry) + sizeof(Cached) + 48;

  KeyShard();
  ~KeyShard();
  KeyShard(const KeyShard&) = delete;
  KeyShard& operator=(const KeyShard&) = delete;
  void set_bounds(std::size_t max_entries, std::size_t max_bytes) noexcept;

  KeyEntry* find(ByteView scope, std::uint64_t hash) noexcept;
  /// A new entry in state looking; the scope must not be there.
  KeyEntry& insert(ByteView scope, std::uint64_t hash);
  /// Removes an entry without waiters and frees it.
  void erase(KeyEntry& entry) noexcept;

  /// Makes `cached` the entry's reply and the entry the most recent; then makes room, which may
  /// free this very entry.
  void complete(KeyEntry& entry, std::shared_ptr<const Cached> cached) noexcept;
  /// Forgets the reply: the entry is no longer completed, and not yet anything else.
  void reopen(KeyEntry& entry) noexcept;
  void touch(KeyEntry& entry) noexcept;

  std::mutex mutex;
  KeysStats stats;  // entries and bytes count completed ones

 private:
  void grow();
  void link_newest(KeyEntry& entry) noexcept;
  void unlink(KeyEntry& entry) noexcept;

  std::vector<KeyEntry*> buckets_;  // a power of two
  std::size_t size_ = 0;
  std::size_t max_entries_ = 0;
  std::size_t max_bytes_ = 0;
  KeyEntry ring_;  // newer: the oldest; older: the newest
};

}  // namespace sluice::idempotency
