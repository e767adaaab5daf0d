// Finds idempotency keys without an index on disk: hash of the scope → row number, 16 bytes a key.
// An index table would dirty one random page per insert, which costs four times the throughput at
// a million keys (docs/architecture.md). Thread-safe.
#pragma once
#include <cstdint>
#include <shared_mutex>
#include <vector>

#include "sluice/base/bytes.hpp"

namespace sluice::store {

class KeyIndex {
 public:
  struct Entry {
    std::uint64_t hash = 0;
    std::uint64_t seq = 0;  ///< 0: empty
  };
  static std::uint64_t hash_of(ByteView scope) noexcept { return hash64(scope) | 1; }

  void insert(Entry entry);
  void erase(Entry entry) noexcept;
  /// Row numbers that may have this scope (usually none or one): the newest `kMaxCandidates`.
  static constexpr std::size_t kMaxCandidates = 8;
  std::size_t find(std::uint64_t hash, std::uint64_t (&seqs)[kMaxCandidates]) const noexcept;
  std::uint64_t size() const noexcept;
  /// Entries from the next `slots` places of the table, beginning where the last call ended.
  std::vector<Entry> next_entries(std::size_t slots);
  void reserve(std::size_t keys);

 private:
  std::size_t home(std::uint64_t hash) const noexcept { return (hash >> 1) & (table_.size() - 1); }
  void place(Entry entry) noexcept;
  void grow(std::size_t capacity);
  mutable std::shared_mutex mutex_;
  std::vector<Entry> table_ = std::vector<Entry>(1024);  // a power of two, at most 7/8 full
  std::uint64_t size_ = 0;
  std::size_t walked_ = 0;  // where next_entries() goes on
};

}  // namespace sluice::store
