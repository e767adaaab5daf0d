// The turns that are taken, by ordering key. One search tells whether a turn is free and where to put
// it; ending one searches nothing. A warm table allocates nothing.
#pragma once
#include <boost/intrusive/unordered_set.hpp>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "admission/pending_queue.hpp"

namespace sluice::admission {

namespace intrusive = boost::intrusive;

/// The turn of one ordering key: it exists while someone has it.
struct KeySlot : intrusive::unordered_set_base_hook<intrusive::store_hash<true>, intrusive::link_mode<intrusive::normal_link>> {
  std::string key;
  PendingQueue behind;
};

class TurnTable {
  struct KeyOf {
    using type = std::string_view;
    std::string_view operator()(const KeySlot& slot) const noexcept { return slot.key; }
  };
  using Set = intrusive::unordered_set<KeySlot, intrusive::key_of_value<KeyOf>, intrusive::hash<std::hash<std::string_view>>,
                                       intrusive::power_2_buckets<true>, intrusive::compare_hash<true>>;

 public:
  /// Where a key's turn is, or would be. Good until the table changes.
  struct Found {
    KeySlot* taken = nullptr;

   private:
    friend class TurnTable;
    Set::insert_commit_data at;
  };

  TurnTable() : buckets_(kFewest), set_(Set::bucket_traits(buckets_.data(), buckets_.size())) { spare_.reserve(kMaxSpare); }
  ~TurnTable() { set_.clear_and_dispose([](KeySlot* slot) { delete slot; }); }
  TurnTable(const TurnTable&) = delete;
  TurnTable& operator=(const TurnTable&) = delete;

  Found find(std::string_view key) {
    Found found;
    const auto [at, is_free] = set_.insert_check(key, found.at);
    if (!is_free) found.taken = &*at;
    return found;
  }
  /// `found` is of this key and nobody has the turn.
  KeySlot* take(const std::string& key, const Found& found) {
    std::unique_ptr<KeySlot> slot;
    if (spare_.empty()) {
      slot = std::make_unique<KeySlot>();
    } else {
      slot = std::move(spare_.back());
      spare_.pop_back();
    }
    slot->key = key;
    set_.insert_commit(*slot, found.at);
    if (set_.size() > buckets_.size()) grow();
    return slot.release();
  }
  void end(KeySlot* slot) noexcept {
    set_.erase(set_.iterator_to(*slot));
    std::unique_ptr<KeySlot> ended(slot);
    if (spare_.size() < kMaxSpare && ended->key.capacity() <= kMaxSpareKey) spare_.push_back(std::move(ended));
  }
  std::size_t size() const noexcept { return set_.size(); }
  bool empty() const noexcept { return set_.empty(); }
  auto begin() noexcept { return set_.begin(); }
  auto end() noexcept { return set_.end(); }

 private:
  static constexpr std::size_t kFewest = 64, kMaxSpare = 256;
  static constexpr std::size_t kMaxSpareKey = 1024;  // bytes: long keys are not kept in memory for others
  void grow() {
    std::vector<Set::bucket_type> wider(buckets_.size() * 2);
    set_.rehash(Set::bucket_traits(wider.data(), wider.size()));
    buckets_.swap(wider);
  }
  std::vector<Set::bucket_type> buckets_;
  Set set_;
  std::vector<std::unique_ptr<KeySlot>> spare_;
};

}  // namespace sluice::admission
