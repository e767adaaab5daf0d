#include "idempotency/key_shard.hpp"

namespace sluice::idempotency {

KeyShard::KeyShard() : buckets_(16, nullptr) { ring_.newer = ring_.older = &ring_; }

KeyShard::~KeyShard() {
  for (KeyEntry* entry : buckets_)
    while (entry != nullptr) delete std::exchange(entry, entry->next_in_bucket);
}

void KeyShard::set_bounds(std::size_t max_entries, std::size_t max_bytes) noexcept {
  max_entries_ = max_entries;
  max_bytes_ = max_bytes;
}

KeyEntry* KeyShard::find(ByteView scope, std::uint64_t hash) noexcept {
  KeyEntry* entry = buckets_[hash & (buckets_.size() - 1)];
  while (entry != nullptr && (entry->hash != hash || entry->scope != scope))
    entry = entry->next_in_bucket;
  return entry;
}

KeyEntry& KeyShard::insert(ByteView scope, std::uint64_t hash) {
  if (size_ == buckets_.size()) grow();
  auto* entry = new KeyEntry;
  entry->scope = scope;
  entry->hash = hash;
  KeyEntry*& bucket = buckets_[hash & (buckets_.size() - 1)];
  entry->next_in_bucket = bucket;
  bucket = entry;
  ++size_;
  return *entry;
}

void KeyShard::erase(KeyEntry& entry) noexcept {
  SLUICE_ASSERT(entry.waiters.empty(), "a key with waiters was erased");
  if (entry.state == KeyEntry::State::completed) unlink(entry);
  KeyEntry** link = &buckets_[entry.hash & (buckets_.size() - 1)];
  while (*link != &entry) link = &(*link)->next_in_bucket;
  *link = entry.next_in_bucket;
  --size_;
  delete &entry;
}

void KeyShard::complete(KeyEntry& entry, std::shared_ptr<const Cached> cached) noexcept {
  entry.state = KeyEntry::State::completed;
  entry.bytes = kEntryOverhead + entry.scope.size() + cached->reply.size();
  entry.cached = std::move(cached);
  link_newest(entry);
  ++stats.entries;
  stats.bytes += entry.bytes;
  while (stats.entries > max_entries_ || stats.bytes > max_bytes_) {
    ++stats.evicted;
    erase(*ring_.newer);
  }
}

void KeyShard::reopen(KeyEntry& entry) noexcept {
  unlink(entry);
  entry.cached.reset();
  entry.state = KeyEntry::State::looking;
}

void KeyShard::touch(KeyEntry& entry) noexcept {
  if (ring_.older == &entry) return;
  entry.newer->older = entry.older;
  entry.older->newer = entry.newer;
  link_newest(entry);
}

void KeyShard::link_newest(KeyEntry& entry) noexcept {
  entry.newer = &ring_;
  entry.older = ring_.older;
  entry.older->newer = &entry;
  ring_.older = &entry;
}

void KeyShard::unlink(KeyEntry& entry) noexcept {
  entry.newer->older = entry.older;
  entry.older->newer = entry.newer;
  --stats.entries;
  stats.bytes -= entry.bytes;
}

void KeyShard::grow() {
  std::vector<KeyEntry*> wider(buckets_.size() * 2, nullptr);
  for (KeyEntry* entry : buckets_) {
    while (entry != nullptr) {
      KeyEntry* next = entry->next_in_bucket;
      KeyEntry*& bucket = wider[entry->hash & (wider.size() - 1)];
      entry->next_in_bucket = bucket;
      bucket = entry;
      entry = next;
    }
  }
  buckets_ = std::move(wider);
}

}  // namespace sluice::idempotency
