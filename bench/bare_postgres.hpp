// The limits beside the durable bench on PostgreSQL: the same rows written with plain libpq, one
// transaction per connection as an ordinary client does it, and in groups of three designs.
#pragma once
#include <string>

#include "bench/bare_disk.hpp"

namespace sluice::bench {

struct PostgresResult {
  double per_second = 0;
  double p50 = 0, p99 = 0;  ///< us of one transaction, or of one group
  double statements = 0;    ///< per transaction
  double round_trips = 0;   ///< per transaction
};

/// `connections` threads, each with a connection of its own: BEGIN, four prepared statements, COMMIT,
/// each a round trip; or, `pipelined`, all six in one.
PostgresResult bare_commits(const std::string& url, const BareRows& rows, int connections, double seconds, bool pipelined);

enum class GroupDesign {
  savepoints,   ///< one transaction, a savepoint around each member
  one_sync,     ///< a transaction each without waiting for the disk, closed by one that waits
  multi_row,    ///< one transaction, one statement per table with arrays, preconditions in SQL
};
/// Groups of `group` transactions on one connection, in one round trip each.
PostgresResult bare_groups(const std::string& url, const BareRows& rows, GroupDesign design, int group, double seconds);

}  // namespace sluice::bench
