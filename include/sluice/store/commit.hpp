// A Commit is requires → then → otherwise: named preconditions, the mutations applied when all of
// them hold, and per precondition the mutations applied when it is the first that does not.
// It is applied whole or refused whole; either way what it wrote is durable when it is answered.
#pragma once
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "sluice/store/rows.hpp"

namespace sluice::store {

// --- Preconditions ---------------------------------------------------------------------------
/// The row's version is exactly this; 0: it does not exist.
struct KvVersionIs {
  KvKey key;
  std::uint64_t version = 0;
};
/// The row's number (0 when absent) is at least / at most this, before `then`.
struct KvAtLeast {
  KvKey key;
  std::int64_t minimum = 0;
};
struct KvAtMost {
  KvKey key;
  std::int64_t maximum = 0;
};
/// The row exists.
struct KvExists {
  KvKey key;
};
/// No live key row has this scope. When refused, CommitOutcome::key is the row found.
struct KeyFree {
  Bytes scope;
};
/// No live key row has this scope, or it has this fingerprint. When refused, CommitOutcome::key is the row
/// found.
struct KeyFits {
  Bytes scope;
  Digest fingerprint{};
};
/// The key is claimed by this exchange with this token.
struct KeyHeldBy {
  Bytes scope;
  ExchangeId exchange;
  std::uint64_t token = 0;
};
/// The lease has this token and is not expired.
struct Fence {
  std::string lease;
  std::uint64_t token = 0;
};
/// The lease is absent, expired, or already `owner`'s.
struct LeaseFree {
  std::string lease;
  std::string owner;
};
/// The next journal record of the exchange is `n`: nobody else appended meanwhile.
struct JournalAt {
  ExchangeId exchange;
  std::uint32_t n = 0;
};
using Precondition = std::variant<KvVersionIs, KvAtLeast, KvAtMost, KvExists, KeyFree, KeyFits, KeyHeldBy,
                                  Fence, LeaseFree, JournalAt>;

struct Requirement {
  Precondition what;
  std::string name;             ///< told to the caller when it does not hold
  std::int32_t otherwise = -1;  ///< index into Commit::otherwise, or -1: nothing is written
};

// --- Mutations -------------------------------------------------------------------------------
/// Replaces value and, if given, number.
struct KvPut {
  KvKey key;
  Bytes value;
  std::optional<std::int64_t> number;
};
struct KvDelete {
  KvKey key;
};
/// number += delta; an absent row starts at 0 with an empty value.
struct KvAdd {
  KvKey key;
  std::int64_t delta = 0;
};
/// Inserts or replaces the key row with the same scope. stored_at is set by the store; a claim
/// (state claimed) over an expired or taken-over row gets a token one higher.
struct KeyPut {
  KeyRow row;
  milliseconds ttl{0};  ///< expires_at = store time + ttl
};
struct KeyDelete {
  Bytes scope;
};
struct JournalAppend {
  JournalRow row;
};
/// Inserts or updates the open row; `since` is set by the store on insert.
struct OpenPut {
  OpenRow row;
};
struct OpenDelete {
  ExchangeId exchange;
};
/// sequence and at are set by the store.
struct EventAppend {
  EventRow row;
};
struct AuditAppend {
  AuditRow row;
};
/// Takes or renews: a new owner gets token + 1, the same owner keeps it. Pair with LeaseFree.
struct LeaseTake {
  std::string lease;
  std::string owner;
  milliseconds ttl{0};
};
struct LeaseDrop {
  std::string lease;
};
using Mutation = std::variant<KvPut, KvDelete, KvAdd, KeyPut, KeyDelete, JournalAppend, OpenPut,
                              OpenDelete, EventAppend, AuditAppend, LeaseTake, LeaseDrop>;

struct Commit {
  std::vector<Requirement> requires_;
  std::vector<Mutation> then;
  std::vector<std::vector<Mutation>> otherwise;
  /// A lazy commit does not start a group of its own; it rides in the next one, or waits at most
  /// the store's `lazy_delay`.
  bool lazy = false;
};

/// What became of a Commit. Durable when it is answered.
struct CommitOutcome {
  bool applied = true;
  std::int32_t refused = -1;         ///< index of the first requirement that did not hold
  std::int64_t observed = 0;         ///< the number or version found by that requirement
  std::optional<KeyRow> key;         ///< the row KeyFree / KeyFits / KeyHeldBy found
  std::optional<LeaseRow> lease;     ///< the row LeaseTake wrote or LeaseFree / Fence found
};

}  // namespace sluice::store
