// What is known about one key in this process: a store being asked, a claim that runs, or a
// finished reply. Guarded by its shard's mutex, but for what only the holder of the claim writes.
#pragma once
#include <memory>

#include "sluice/idempotency/keys.hpp"

namespace sluice::idempotency {

/// Intrusive, first come first served.
class Waiters {
 public:
  bool empty() const noexcept { return first_ == nullptr; }
  PendingClaim* first() const noexcept { return first_; }

  void push(PendingClaim& pending, void* entry) noexcept {
    auto& w = pending.waiting;
    w.entry = entry;
    w.next = nullptr;
    w.previous = last_;
    (last_ != nullptr ? last_->waiting.next : first_) = &pending;
    last_ = &pending;
  }
  void remove(PendingClaim& pending) noexcept {
    auto& w = pending.waiting;
    (w.previous != nullptr ? w.previous->waiting.next : first_) = w.next;
    (w.next != nullptr ? w.next->waiting.previous : last_) = w.previous;
    w.entry = nullptr;
  }
  PendingClaim* pop() noexcept {
    PendingClaim* pending = first_;
    if (pending != nullptr) remove(*pending);
    return pending;
  }

 private:
  PendingClaim* first_ = nullptr;
  PendingClaim* last_ = nullptr;
};

struct KeyEntry;

/// The one question per key that is in flight at the store.
struct KeyQuestion : store::PendingQuery {
  Keys* keys = nullptr;
  KeyEntry* entry = nullptr;
  std::size_t others = 0;  // asked so far of where an earlier release may have filed it
};

struct KeyEntry {
  enum class State : std::uint8_t { looking, running, completed };

  Bytes scope;
  std::uint64_t hash = 0;
  State state = State::looking;
  // Of the claim that runs; written before it is handed over, then by its holder alone.
  Digest fingerprint{};
  Bytes whole;  // the scope of which this is a part
  milliseconds whole_ttl{0};
  ExchangeId exchange;
  milliseconds ttl{0};   // its reply is replayed
  milliseconds kept{0};  // its row stays, so that a reuse can be refused
  std::uint64_t token = 0;

  Waiters waiters;
  std::unique_ptr<KeyQuestion> question;
  std::shared_ptr<const Cached> cached;

  KeyEntry* next_in_bucket = nullptr;
  KeyEntry* newer = nullptr;  // recency ring of completed entries
  KeyEntry* older = nullptr;
  std::size_t bytes = 0;
};

}  // namespace sluice::idempotency
