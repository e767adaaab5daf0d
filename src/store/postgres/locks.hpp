// Sessions that hold others up: somebody who locked a table, or forgot a COMMIT.
#pragma once
#include <vector>

#include "store/postgres/connection.hpp"

namespace sluice::store {

/// A finding `locks` for each session that others of this database have waited for longer than `patience`, the one
/// with the most waiting first; then for each session of nobody's node, and each prepared transaction, that keeps locks
/// on the store's tables and is older than that: a caller's wait for these has ended by then. `kHoldersTold` of each at
/// most; one that is good when there is none. The short locks of groups are over by then.
std::vector<PostgresFinding> find_lock_holders(PgConnection& connection, milliseconds patience);

inline constexpr int kHoldersTold = 5;

}  // namespace sluice::store
