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

/// Lookups of keys go by index. A list of keys is joined with LATERAL and OFFSET 0, which leaves no
/// other order than key by key.
inline constexpr PgStatement kByIndex{
    "by_index",
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_hashjoin', 'off', true), "
    "set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true)"};
/// Rows that were read are found again by where they stand (ctid), and by nothing else: an UPDATE takes
/// no LATERAL. After this only such statements and plain inserts may follow in the transaction.
inline constexpr PgStatement kByPlace{
    "by_place",
    "SELECT set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_hashjoin', 'off', true), "
    "set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true), "
    "set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true), "
    "set_config('enable_bitmapscan', 'off', true)"};

}  // namespace sluice::store
