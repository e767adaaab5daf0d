// Rows out of result columns, in the order the statements of this folder select them.
#pragma once
#include "sluice/store/rows.hpp"
#include "store/postgres/connection.hpp"

namespace sluice::store {

inline std::int64_t stored(std::uint64_t value) noexcept { return static_cast<std::int64_t>(value); }
inline std::int64_t stored(WallTime at) noexcept { return at.time_since_epoch().count(); }

// version, number, value
inline KvRow read_kv(const PgRows& rows, std::size_t row, int first) {
  return {rows.number(row, first), rows.integer(row, first + 1), rows.bytes(row, first + 2)};
}
// exchange, scope, fingerprint, state, token, stored_at, expires_at, reply
inline KeyRow read_key(const PgRows& rows, std::size_t row, int first) {
  KeyRow key;
  key.exchange = {rows.number(row, first)};
  key.scope = rows.bytes(row, first + 1);
  if (const ByteView f = rows.view(row, first + 2); f.size() == sizeof key.fingerprint.bytes)
    std::memcpy(key.fingerprint.bytes, f.data(), f.size());
  key.state = static_cast<KeyState>(rows.integer(row, first + 3));
  key.token = rows.number(row, first + 4);
  key.stored_at = rows.time(row, first + 5);
  key.expires_at = rows.time(row, first + 6);
  key.reply = rows.bytes(row, first + 7);
  return key;
}
// exchange, ns, flow, state, since
inline OpenRow read_open(const PgRows& rows, std::size_t row, int first) {
  return {{rows.number(row, first)}, rows.bytes(row, first + 1), rows.bytes(row, first + 2),
          static_cast<OpenState>(rows.integer(row, first + 3)), rows.time(row, first + 4)};
}
// name, owner, token, incarnation, expires_at
inline LeaseRow read_lease(const PgRows& rows, std::size_t row, int first) {
  return {rows.bytes(row, first), rows.bytes(row, first + 1), rows.number(row, first + 2),
          rows.number(row, first + 3), rows.time(row, first + 4)};
}
// exchange, n, record
inline JournalRow read_journal(const PgRows& rows, std::size_t row) {
  return {{rows.number(row, 0)}, static_cast<std::uint32_t>(rows.integer(row, 1)), rows.bytes(row, 2)};
}

}  // namespace sluice::store
