// The rows one group has touched: what is stored, and what will be. Slots stay where they are
// until clear(), so pointers into them hold for the whole group.
#pragma once
#include <deque>
#include <unordered_map>

#include "sluice/base/bytes.hpp"

namespace sluice::store {

/// One touched row. `current` is what the group has made of it so far.
template <class Row>
struct Slot {
  std::optional<Row> current;
  bool existed = false;
  bool dirty = false;
};

struct ViewHash {
  std::size_t operator()(ByteView view) const noexcept {
    return static_cast<std::size_t>(hash64(view));
  }
};

/// Slots by name, in order of first touch. Names are owned by the overlay.
template <class SlotType>
class Overlay {
 public:
  struct Entry {
    Bytes name;
    SlotType slot;
  };
  Entry* find(ByteView name) {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : found->second;
  }
  Entry& add(ByteView name) {
    Entry& entry = entries_.emplace_back();
    entry.name = name;
    index_.emplace(ByteView(entry.name), &entry);
    return entry;
  }
  std::deque<Entry>& entries() noexcept { return entries_; }
  void clear() {
    index_.clear();
    entries_.clear();
  }

 private:
  std::deque<Entry> entries_;
  std::unordered_map<ByteView, Entry*, ViewHash> index_;
};

}  // namespace sluice::store
