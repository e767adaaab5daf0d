// A least-recently-used cache that cannot grow without bound: limited by entries and by bytes,
// with an optional time to live by an injected clock. Not thread-safe: one lane, or the owner's
// lock. Expired entries are dropped when met and when room is needed, never served.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <utility>

#include "sluice/base/time.hpp"

namespace sluice {

struct CacheBounds {
  std::size_t max_entries = 10'000;
  std::size_t max_bytes = SIZE_MAX;  ///< of the sizes told to put()
  Duration ttl = Duration::max();    ///< since put()
};

struct CacheStats {
  std::uint64_t hits = 0, misses = 0, evicted = 0, expired = 0;
};

template <class Key, class Value, class Hash = std::hash<Key>, class Equal = std::equal_to<Key>>
class BoundedCache {
 public:
  /// `clock` must outlive the cache.
  explicit BoundedCache(Clock& clock, CacheBounds bounds = {}) : clock_(clock), bounds_(bounds) {
    newest_.older = newest_.newer = &newest_;
  }
  BoundedCache(const BoundedCache&) = delete;
  BoundedCache& operator=(const BoundedCache&) = delete;

  /// The value, now the most recently used, or null. Valid until the next change.
  Value* find(const Key& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return ++stats_.misses, nullptr;
    Entry& entry = found->second;
    if (entry.expires_at <= clock_.now()) {
      ++stats_.expired;
      ++stats_.misses;
      drop(found);
      return nullptr;
    }
    ++stats_.hits;
    unlink(entry);
    link_newest(entry);
    return &entry.value;
  }

  /// Inserts or replaces. Returns false, and keeps nothing under the key, when the value alone is
  /// larger than the cache.
  bool put(Key key, Value value, std::size_t bytes = 0) {
    erase(key);
    if (bytes > bounds_.max_bytes || bounds_.max_entries == 0) return false;
    while (entries_.size() >= bounds_.max_entries || bytes_ > bounds_.max_bytes - bytes)
      evict_oldest();
    const auto [at, inserted] = entries_.try_emplace(std::move(key));
    Entry& entry = at->second;
    entry.value = std::move(value);
    entry.bytes = bytes;
    entry.key = &at->first;
    const Instant now = clock_.now();
    entry.expires_at = bounds_.ttl < kNever - now ? now + bounds_.ttl : kNever;
    bytes_ += bytes;
    link_newest(entry);
    return true;
  }

  bool erase(const Key& key) {
    const auto found = entries_.find(key);
    if (found == entries_.end()) return false;
    drop(found);
    return true;
  }
  void clear() {
    entries_.clear();
    bytes_ = 0;
    newest_.older = newest_.newer = &newest_;
  }

  std::size_t size() const noexcept { return entries_.size(); }
  std::size_t bytes() const noexcept { return bytes_; }
  const CacheStats& stats() const noexcept { return stats_; }

 private:
  struct Link {
    Link* older = nullptr;
    Link* newer = nullptr;
  };
  struct Entry : Link {
    Value value{};
    std::size_t bytes = 0;
    Instant expires_at = kNever;
    const Key* key = nullptr;
  };
  using Map = std::unordered_map<Key, Entry, Hash, Equal>;

  static void unlink(Link& link) noexcept {
    link.older->newer = link.newer;
    link.newer->older = link.older;
  }
  void link_newest(Link& link) noexcept {
    link.older = newest_.older;
    link.newer = &newest_;
    newest_.older->newer = &link;
    newest_.older = &link;
  }
  void drop(typename Map::iterator at) {
    unlink(at->second);
    bytes_ -= at->second.bytes;
    entries_.erase(at);
  }
  void evict_oldest() {
    auto& oldest = static_cast<Entry&>(*newest_.newer);
    ++stats_.evicted;
    drop(entries_.find(*oldest.key));
  }

  Clock& clock_;
  CacheBounds bounds_;
  Map entries_;
  Link newest_;  // sentinel of a ring: older is the newest entry, newer the oldest
  std::size_t bytes_ = 0;
  CacheStats stats_;
};

}  // namespace sluice
