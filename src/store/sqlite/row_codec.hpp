// Rows out of result columns, in the order the statements of this folder select them.
#pragma once
#include "sluice/store/rows.hpp"
#include "store/sqlite/database.hpp"

namespace sluice::store {

// version, number, value
inline KvRow read_kv(const Statement& s, int first = 0) {
  return {static_cast<std::uint64_t>(s.integer(first)), s.integer(first + 1), s.bytes(first + 2)};
}
// exchange, scope, fingerprint, state, token, stored_at, expires_at, reply
inline constexpr const char* kKeyColumns =
    "exchange, scope, fingerprint, state, token, stored_at, expires_at, reply";
inline KeyRow read_key(const Statement& s, int first = 0) {
  KeyRow row;
  row.exchange = {static_cast<std::uint64_t>(s.integer(first))};
  row.scope = s.bytes(first + 1);
  if (const ByteView f = s.view(first + 2); f.size() == sizeof row.fingerprint.bytes)
    std::memcpy(row.fingerprint.bytes, f.data(), f.size());
  row.state = static_cast<KeyState>(s.integer(first + 3));
  row.token = static_cast<std::uint64_t>(s.integer(first + 4));
  row.stored_at = s.time(first + 5);
  row.expires_at = s.time(first + 6);
  row.reply = s.bytes(first + 7);
  return row;
}
// exchange, ns, flow, state, since
inline OpenRow read_open(const Statement& s) {
  return {{static_cast<std::uint64_t>(s.integer(0))},
          s.bytes(1),
          s.bytes(2),
          static_cast<OpenState>(s.integer(3)),
          s.time(4)};
}
// name, owner, token, incarnation, expires_at
inline LeaseRow read_lease(const Statement& s) {
  return {s.bytes(0), s.bytes(1), static_cast<std::uint64_t>(s.integer(2)),
          static_cast<std::uint64_t>(s.integer(3)), s.time(4)};
}
// exchange, n, record
inline JournalRow read_journal(const Statement& s) {
  return {{static_cast<std::uint64_t>(s.integer(0))}, static_cast<std::uint32_t>(s.integer(1)),
          s.bytes(2)};
}

}  // namespace sluice::store
