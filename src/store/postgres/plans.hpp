// How a transaction begins, and how PostgreSQL is to plan what follows in it. Left to itself it decides by what it
// last saw of a table: of one that was young then it reads all rows for each lookup, and keeps that
// plan while the table grows.
#pragma once
#include "store/postgres/connection.hpp"

namespace sluice::store {

/// Each statement sees what was committed before it, and so what another node wrote before it gave a lock back. The
/// level is named because the database, or the role, may have another default.
inline constexpr PgStatement kBegin{"begin", "BEGIN ISOLATION LEVEL READ COMMITTED"};
inline constexpr PgStatement kCommit{"commit", "COMMIT"};

/// What waits for a lock ends by itself, also when whoever asked has gone: a session that waits does not notice that, and
/// would keep its place among max_connections. What is committed is durable, whatever the default is.
inline constexpr PgStatement kPatient{
    "patient",
    "SELECT set_config('lock_timeout', '3s', true), set_config('synchronous_commit', CASE WHEN current_setting('synchronous_commit') "
    "IN ('off', 'local') THEN 'on' ELSE current_setting('synchronous_commit') END, true), set_config('client_min_messages', 'warning', true)"};

/// Lookups of keys go by index. A list of keys is joined with LATERAL and OFFSET 0, which leaves no
/// other order than key by key.
inline constexpr PgStatement kByIndex{
    "by_index",
    "SELECT set_config('lock_timeout', '3s', true), set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_hashjoin', 'off', true), "
    "set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true)"};
/// Rows that were read are found again by where they stand (ctid), and by nothing else: an UPDATE takes
/// no LATERAL. After this only such statements and plain inserts may follow in the transaction. A row that another node
/// holds is free after its commit; one that somebody else holds must not keep the group for long.
#define SLUICE_BY_PLACE(patience)                                                                                            \
  "SELECT set_config('lock_timeout', '" patience "', true), set_config('plan_cache_mode', 'force_generic_plan', true), "    \
  "set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), "                               \
  "set_config('enable_seqscan', 'off', true), set_config('enable_indexscan', 'off', true), "                                \
  "set_config('enable_indexonlyscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
inline constexpr PgStatement kByPlace{"by_place", SLUICE_BY_PLACE("300ms")};
/// With every other node kept out.
inline constexpr PgStatement kByPlaceAlone{"by_place_alone", SLUICE_BY_PLACE("100ms")};
#undef SLUICE_BY_PLACE

}  // namespace sluice::store
