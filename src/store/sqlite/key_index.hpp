// Finds idempotency keys without an index on disk: hash of the scope → row number, 16 bytes a key.
// An index table would dirty one random page per insert, which costs four times the throughput at
// a million keys (docs/architecture.md). Thread-safe.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
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
  /// Row numbers that may have this scope, the newest first: usually none or one, but all, however many.
  /// The hash has no secret, so scopes can be made that share one; a key left out would run twice.
  void find(std::uint64_t hash, std::vector<std::uint64_t>& seqs) const;
  std::uint64_t size() const noexcept { return size_.load(std::memory_order_relaxed); }
  /// Entries from the next `slots` places of the table, beginning where the last call ended. By one thread at a time.
  std::vector<Entry> next_entries(std::size_t slots);
  void reserve(std::size_t keys);

 private:
  // The writer inserts while lanes look keys up: on one lock they put each other to sleep, a hundred times a group.
  // A part also grows alone, so that no insert waits for the whole table to move.
  static constexpr unsigned kPartBits = 6;
  struct alignas(64) Part {
    mutable std::mutex mutex;
    std::vector<Entry> table = std::vector<Entry>(64);  // a power of two, at most 7/8 full
    std::uint64_t size = 0;

    std::size_t home(std::uint64_t hash) const noexcept { return (hash >> 1) & (table.size() - 1); }
    void place(Entry entry) noexcept;
    void grow(std::size_t capacity);
  };
  Part& part_of(std::uint64_t hash) noexcept { return parts_[hash >> (64 - kPartBits)]; }
  const Part& part_of(std::uint64_t hash) const noexcept { return parts_[hash >> (64 - kPartBits)]; }

  std::array<Part, std::size_t{1} << kPartBits> parts_;
  std::atomic<std::uint64_t> size_{0};
  std::size_t walked_part_ = 0, walked_place_ = 0;  // where next_entries() goes on
};

}  // namespace sluice::store
