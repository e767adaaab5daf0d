// Turns a group's net result into a few multi-row statements. Each carries what was read of the rows
// it changes, so that the database refuses the whole group when another node was faster.
#pragma once
#include "store/postgres/loader.hpp"

namespace sluice::store {

/// Queues the statements. Rows are written in one order everywhere (table, then key), so that two
/// nodes wait for each other in one direction only. Returns how many there are.
/// `alone`: nobody else writes meanwhile, so what was only read need not be checked again.
std::size_t send_group_writes(PgConnection& connection, const GroupWrites& writes, PgLoader& read, bool alone);

}  // namespace sluice::store
