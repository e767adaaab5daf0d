// Which life of the database this is. A copy is another life of it, whoever made it: the leases and fencing tokens of
// the other mean nothing here.
#pragma once
#include "sluice/base/random.hpp"
#include "store/postgres/connection.hpp"

namespace sluice::store {

struct Incarnation {
  std::uint64_t value = 0;
  bool another = false;  ///< drawn just now, because this is another database than these tables were in before
};
/// Draws one where there is none, and where the tables were in another database before. Nodes that start together do
/// so once.
Result<Incarnation> know_incarnation(PgConnection& connection, Random& random);
/// Draws a new one and ends the leases of all nodes. Inside a transaction.
Status draw_incarnation(PgConnection& connection, Random& random);
/// Whether the next opening will draw a new one. Changes nothing.
Result<bool> in_another_database(PgConnection& connection);

}  // namespace sluice::store
