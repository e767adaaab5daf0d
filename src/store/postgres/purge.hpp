// What is done to the whole database now and then: deleting what is over, looking for damage, and
// finding the largest id at the start.
#pragma once
#include "sluice/store/store.hpp"
#include "store/postgres/connection.hpp"

namespace sluice::store {

/// In one transaction; several nodes may purge at once and take different rows.
Result<PurgeResult> purge_postgres(PgConnection& connection, WallTime now, milliseconds keep, std::size_t limit);
Result<std::uint64_t> read_largest_id(PgConnection& connection);
/// Journals without gaps, events numbered up to their heads, open exchanges with a journal.
Status check_postgres_rows(PgConnection& connection);

}  // namespace sluice::store
