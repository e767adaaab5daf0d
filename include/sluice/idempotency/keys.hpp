// The life cycle of an idempotency key: claim → complete | release. In process first; the durable
// row is written by the deciding Commit of whoever holds the claim. docs/concepts.md draws it.
#pragma once
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/base/lane.hpp"
#include "sluice/base/namespace.hpp"
#include "sluice/store/store.hpp"

namespace sluice::idempotency {

/// Where a request that names no version has its key: two nodes of which one knows a newer version must agree on it.
inline constexpr std::uint32_t kUnnamedVersion = 1;

/// The length-prefixed scope of a key: (namespace, principal, command, version, key).
Bytes make_scope(const Namespace& ns, std::string_view principal, std::string_view command,
                 std::uint32_t version, std::string_view key);

/// A completed key: what a duplicate gets. Immutable, shared.
struct Cached {
  Bytes reply;  ///< Reply::encode() bytes
  Digest fingerprint{};
  ExchangeId exchange;
  WallTime stored_at{};
  WallTime expires_at{};
  bool expired(WallTime now) const noexcept { return now >= expires_at; }
};

class Keys;

/// The right to run under a key; move-only. Destroyed without completed() or lost(), it releases.
class Claim {
 public:
  Claim() = default;
  Claim(Claim&& other) noexcept
      : keys_(std::exchange(other.keys_, nullptr)), entry_(std::exchange(other.entry_, nullptr)) {}
  Claim& operator=(Claim&& other) noexcept {
    if (this == &other) return *this;
    if (keys_ != nullptr) release();
    keys_ = std::exchange(other.keys_, nullptr);
    entry_ = std::exchange(other.entry_, nullptr);
    return *this;
  }
  ~Claim() {
    if (keys_ != nullptr) release();
  }
  explicit operator bool() const noexcept { return keys_ != nullptr; }
  const Bytes& scope() const noexcept;
  ExchangeId exchange() const noexcept;
  const Digest& fingerprint() const noexcept;
  /// How long its row is kept once it is completed.
  milliseconds kept() const noexcept;

  /// Adds to a deciding Commit what makes the reply durable with it: the precondition that nobody
  /// else completed the key (name "idempotency_key") and the key row; of a part (PendingClaim::whole)
  /// also the row of the whole, and that it fits (name "idempotency_key_of_whole").
  void complete_in(store::Commit& commit, ByteView reply) const;
  /// Adds a durable claim (for exchanges with external effects or a pause): same precondition, claimed
  /// row. It names an exchange that only its own recovery may end, so it does not expire. Not of a part.
  void claim_in(store::Commit& commit) const;
  /// After a durable claim, for complete_in: the row is ours with this token.
  void claimed(std::uint64_t token) noexcept;
  /// The deciding Commit is durable: wakes the waiters with the reply. Ends the claim.
  void completed(Bytes reply);
  /// Another node won: wakes the waiters with its reply. Ends the claim.
  void lost(const store::KeyRow& winner);
  /// Nothing took effect: the next waiter (or retry) runs as new. Ends the claim.
  void release();

 private:
  friend class Keys;
  Keys* keys_ = nullptr;
  void* entry_ = nullptr;
};

/// The claim is empty only when the store failed and the policy is fail_open.
struct Run {
  Claim claim;
};
struct Replay {
  std::shared_ptr<const Cached> cached;
};
struct InProgress {
  ExchangeId exchange;
  milliseconds retry_after{0};
};
struct Mismatch {};    ///< same key, other fingerprint
struct ExpiredKey {};  ///< only where the command refuses expired keys
using Claimed = std::variant<Run, Replay, InProgress, Mismatch, ExpiredKey>;

/// What a command declares about its keys.
struct KeyPolicy {
  milliseconds ttl = std::chrono::hours(24);
  bool wait = true;  ///< duplicates wait for the first; false: in_progress at once
  milliseconds max_wait = seconds(30);
  /// An expired key is refused, for `refuse_for` after its expiry (the row is kept that much
  /// longer); false: it runs as new.
  bool refuse_expired = false;
  milliseconds refuse_for = std::chrono::hours(24 * 30);
  /// How long the row of a completed key is kept.
  milliseconds kept() const noexcept {
    if (!refuse_expired) return ttl;
    return ttl < milliseconds::max() - refuse_for ? ttl + refuse_for : milliseconds::max();
  }
  bool fail_open = false;  ///< a failing store runs it without the key, and a duplicate too: only for what may be done twice; nothing checks that
};

/// A claim on its way. The caller sets the upper fields, `lane` and `run`, and keeps it alive until
/// it is answered or forgotten; then it may be used again. A waiter that is cancelled must call
/// Keys::forget.
struct PendingClaim : Job {
  Bytes scope;
  Digest fingerprint{};
  /// What the same request has as a fingerprint elsewhere: of an earlier release, of another version.
  std::vector<Digest> also_matches;
  /// Where an earlier release may have filed the key: looked at when it is not found under `scope`.
  std::vector<Bytes> also_under;
  /// The scope of a key of which this one is a part, with the same fingerprint: a batch's, of an item. What
  /// completes this key completes that one, with an empty reply, and is refused where that one has another
  /// fingerprint. Empty: no part.
  Bytes whole;
  /// How long the whole is remembered from here: shorter than its parts, which must not run again while it is
  /// known. Zero: it is known already, and keeps its end.
  milliseconds whole_ttl{0};
  ExchangeId exchange;
  KeyPolicy policy;
  /// Waiting ends then with InProgress, or fails `timeout` if the store has not said yet whether
  /// the key is known.
  Instant deadline = kNever;
  /// Claimed and forgotten on this lane. Null: `run` is called by whoever answers, and neither
  /// deadline nor max_wait is watched.
  Lane* lane = nullptr;
  Result<Claimed> answer = Claimed{Mismatch{}};

  bool same_request(const Digest& stored) const noexcept {
    return stored == fingerprint || std::ranges::find(also_matches, stored) != also_matches.end();
  }

  /// Kept by Keys.
  struct Waiting {
    Keys* keys = nullptr;
    void* entry = nullptr;  // guarded by the entry's shard; null once answered
    std::uint64_t hash = 0;
    PendingClaim* next = nullptr;
    PendingClaim* previous = nullptr;
    Timer timer;
  } waiting;
};

/// Bounds hold per shard, at an equal part each: a reply larger than max_bytes / shards is not kept
/// in memory.
struct KeysOptions {
  std::size_t max_entries = 10'000;  ///< completed replies kept in memory
  std::size_t max_bytes = 64 << 20;
  std::size_t max_claims = 100'000;  ///< running claims; past it: overloaded
  std::size_t shards = 16;
};

struct KeysStats {
  std::uint64_t claims = 0, replays = 0, waits = 0, mismatches = 0, evicted = 0, running = 0,
                entries = 0, bytes = 0;
};

/// Thread-safe. With a store, completed keys outlive the process; without one they live in memory
/// within the bounds of KeysOptions. Destroy it after every claim has ended and the store has
/// answered (Store::close).
class Keys {
 public:
  Keys(Clock& clock, store::Store* store, KeysOptions options = {});
  ~Keys();

  /// Memory only, no allocation on a hit: the finished reply, if it is at hand.
  std::shared_ptr<const Cached> lookup(ByteView scope) noexcept;
  /// True: `answer` is there already. False: `run` is called on the lane when it is.
  bool claim(PendingClaim& pending);
  /// Takes a waiting claim back; true if `run` will not be called any more.
  bool forget(PendingClaim& pending);
  KeysStats stats() const noexcept;

 private:
  friend class Claim;
  Keys(const Keys&) = delete;
  Keys& operator=(const Keys&) = delete;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::idempotency
