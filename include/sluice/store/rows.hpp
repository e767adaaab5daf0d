// The rows a store keeps, as every backend sees them. docs/formats.md gives their columns.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/base/ids.hpp"

namespace sluice::store {

/// Names one application row. `ns` is Namespace::text().
struct KvKey {
  std::string ns;
  std::string collection;
  std::string key;
  auto operator<=>(const KvKey&) const = default;
};

/// One application row: an opaque value and a number that can be added to under a floor.
/// `version` is 1 for a new row and grows by one per commit that touches it; 0 means absent.
struct KvRow {
  std::uint64_t version = 0;
  std::int64_t number = 0;
  Bytes value;
  bool operator==(const KvRow&) const = default;
};

/// Stored; append only.
enum class KeyState : std::uint8_t { claimed = 1, completed = 2 };

/// An idempotency key. `scope` is the whole length-prefixed scope, compared byte by byte.
struct KeyRow {
  ExchangeId exchange;  ///< who claimed or completed it; also the row's id
  Bytes scope;
  Digest fingerprint{};
  KeyState state = KeyState::claimed;
  Bytes reply;           ///< the stored bytes when completed
  WallTime stored_at{};  ///< set by the store from its own clock
  WallTime expires_at{}; ///< at or after this instant the key counts as absent
  std::uint64_t token = 0;  ///< fencing token of a claim; grows with each takeover
};

/// One record of an exchange's journal; `n` counts from 0 without gaps.
struct JournalRow {
  ExchangeId exchange;
  std::uint32_t n = 0;
  Bytes record;
};

/// Exchanges that recovery or an operator must look at. Store-only exchanges never appear.
enum class OpenState : std::uint8_t { running = 1, paused = 2, deciding = 3, in_doubt = 4 };
struct OpenRow {
  ExchangeId exchange;
  std::string ns;
  std::string flow;
  OpenState state = OpenState::running;
  WallTime since{};
};

/// A committed event. `sequence` is per namespace, gapless, assigned by the store.
struct EventRow {
  EventId id;
  std::string ns;
  std::uint64_t sequence = 0;
  std::string topic;
  Bytes payload;
  std::string trace;
  ExchangeId exchange;
  std::uint32_t depth = 0;
  WallTime at{};
};

/// Stored; append only.
enum class AuditOutcome : std::uint8_t { ok = 1, error = 2, denied = 3, replayed = 4 };
struct AuditRow {
  std::uint64_t sequence = 0;  ///< assigned by the store
  WallTime at{};               ///< assigned by the store
  std::string ns;
  std::string principal;
  std::string command;
  AuditOutcome outcome = AuditOutcome::ok;
  ExchangeId exchange;
  std::string correlation;
  std::string detail;  ///< failure code, or the operator's reason
};

struct LeaseRow {
  std::string name;
  std::string owner;
  std::uint64_t token = 0;
  std::uint64_t incarnation = 0;
  WallTime expires_at{};
};

}  // namespace sluice::store
