#include "store/sqlite/key_index.hpp"

#include <algorithm>
#include <bit>
#include <mutex>

namespace sluice::store {

void KeyIndex::place(Entry entry) noexcept {
  std::size_t at = home(entry.hash);
  while (table_[at].seq != 0) at = (at + 1) & (table_.size() - 1);
  table_[at] = entry;
}

void KeyIndex::grow(std::size_t capacity) {
  std::vector<Entry> old(capacity);
  old.swap(table_);
  for (const Entry& entry : old)
    if (entry.seq != 0) place(entry);
}

void KeyIndex::reserve(std::size_t keys) {
  const std::unique_lock lock(mutex_);
  const std::size_t capacity = std::bit_ceil(keys + keys / 4 + 1024);
  if (capacity > table_.size()) grow(capacity);
}

void KeyIndex::insert(Entry entry) {
  const std::unique_lock lock(mutex_);
  if ((size_ + 1) * 8 > table_.size() * 7) grow(table_.size() * 2);
  place(entry);
  ++size_;
}

void KeyIndex::erase(Entry entry) noexcept {
  const std::unique_lock lock(mutex_);
  const std::size_t mask = table_.size() - 1;
  std::size_t at = home(entry.hash);
  while (table_[at].seq != 0 && (table_[at].hash != entry.hash || table_[at].seq != entry.seq))
    at = (at + 1) & mask;
  if (table_[at].seq == 0) return;
  // Linear probing: later entries of the run move back into the hole, so no tombstones are left.
  std::size_t hole = at;
  for (std::size_t next = (hole + 1) & mask; table_[next].seq != 0; next = (next + 1) & mask) {
    const std::size_t distance_home = (next - home(table_[next].hash)) & mask;
    const std::size_t distance_hole = (next - hole) & mask;
    if (distance_home < distance_hole) continue;
    table_[hole] = table_[next];
    hole = next;
  }
  table_[hole] = {};
  --size_;
}

std::size_t KeyIndex::find(std::uint64_t hash, std::uint64_t (&seqs)[kMaxCandidates]) const noexcept {
  const std::shared_lock lock(mutex_);
  std::size_t found = 0;
  for (std::size_t at = home(hash); table_[at].seq != 0; at = (at + 1) & (table_.size() - 1)) {
    if (table_[at].hash != hash) continue;
    if (found < kMaxCandidates) {
      seqs[found++] = table_[at].seq;
      continue;
    }
    // Entries of released keys may be left from sealed segments; a live one is the newest.
    auto* const oldest = std::min_element(seqs, seqs + kMaxCandidates);
    *oldest = std::max(*oldest, table_[at].seq);
  }
  return found;
}

std::vector<KeyIndex::Entry> KeyIndex::next_entries(std::size_t slots) {
  const std::unique_lock lock(mutex_);
  std::vector<Entry> found;
  for (std::size_t i = 0; i < std::min(slots, table_.size()); ++i, ++walked_)
    if (const Entry& entry = table_[walked_ & (table_.size() - 1)]; entry.seq != 0) found.push_back(entry);
  return found;
}

std::uint64_t KeyIndex::size() const noexcept {
  const std::shared_lock lock(mutex_);
  return size_;
}

}  // namespace sluice::store
