#include "store/sqlite/key_index.hpp"

#include <algorithm>
#include <bit>
#include <functional>

namespace sluice::store {

void KeyIndex::Part::place(Entry entry) noexcept {
  std::size_t at = home(entry.hash);
  while (table[at].seq != 0) at = (at + 1) & (table.size() - 1);
  table[at] = entry;
}

void KeyIndex::Part::grow(std::size_t capacity) {
  std::vector<Entry> old(capacity);
  old.swap(table);
  for (const Entry& entry : old)
    if (entry.seq != 0) place(entry);
}

void KeyIndex::reserve(std::size_t keys) {
  // Parts differ by a few standard deviations of their mean.
  const std::size_t each = keys / parts_.size();
  const std::size_t capacity = std::bit_ceil(each + each / 4 + 64);
  for (Part& part : parts_) {
    const std::scoped_lock lock(part.mutex);
    if (capacity > part.table.size()) part.grow(capacity);
  }
}

void KeyIndex::insert(Entry entry) {
  Part& part = part_of(entry.hash);
  const std::scoped_lock lock(part.mutex);
  if ((part.size + 1) * 8 > part.table.size() * 7) part.grow(part.table.size() * 2);
  part.place(entry);
  ++part.size;
  size_.fetch_add(1, std::memory_order_relaxed);
}

void KeyIndex::erase(Entry entry) noexcept {
  Part& part = part_of(entry.hash);
  const std::scoped_lock lock(part.mutex);
  auto& table = part.table;
  const std::size_t mask = table.size() - 1;
  std::size_t at = part.home(entry.hash);
  while (table[at].seq != 0 && (table[at].hash != entry.hash || table[at].seq != entry.seq))
    at = (at + 1) & mask;
  if (table[at].seq == 0) return;
  // Linear probing: later entries of the run move back into the hole, so no tombstones are left.
  std::size_t hole = at;
  for (std::size_t next = (hole + 1) & mask; table[next].seq != 0; next = (next + 1) & mask) {
    const std::size_t distance_home = (next - part.home(table[next].hash)) & mask;
    const std::size_t distance_hole = (next - hole) & mask;
    if (distance_home < distance_hole) continue;
    table[hole] = table[next];
    hole = next;
  }
  table[hole] = {};
  --part.size;
  size_.fetch_sub(1, std::memory_order_relaxed);
}

void KeyIndex::find(std::uint64_t hash, std::vector<std::uint64_t>& seqs) const {
  seqs.clear();
  const Part& part = part_of(hash);
  {
    const std::scoped_lock lock(part.mutex);
    const auto& table = part.table;
    for (std::size_t at = part.home(hash); table[at].seq != 0; at = (at + 1) & (table.size() - 1))
      if (table[at].hash == hash) seqs.push_back(table[at].seq);
  }
  // Entries of released keys may be left from sealed segments; a live one is newer.
  std::ranges::sort(seqs, std::greater<>());
}

std::vector<KeyIndex::Entry> KeyIndex::next_entries(std::size_t slots) {
  std::vector<Entry> found;
  for (std::size_t parts = 0; slots > 0 && parts < parts_.size(); ++parts) {
    const Part& part = parts_[walked_part_];
    const std::scoped_lock lock(part.mutex);
    for (; slots > 0 && walked_place_ < part.table.size(); --slots, ++walked_place_)
      if (const Entry& entry = part.table[walked_place_]; entry.seq != 0) found.push_back(entry);
    if (slots == 0) break;
    walked_place_ = 0;
    walked_part_ = (walked_part_ + 1) % parts_.size();
  }
  return found;
}

}  // namespace sluice::store
