// What an administrator does to a database while nodes work on it.
#pragma once
#include <string>

#include "support/private_postgres.hpp"

namespace sluice::crash {

struct Maintained {
  int rewritten = 0;  ///< tables whose rows got new places
  int cancelled = 0;  ///< statements of nodes
  int refused = 0;    ///< what the administrator himself lost: deadlocks

  void operator+=(const Maintained& more) noexcept {
    rewritten += more.rewritten;
    cancelled += more.cancelled;
    refused += more.refused;
  }
};

/// VACUUM FULL and CLUSTER of each table, by turns.
Maintained rewrite_tables(testing_support::PrivatePostgres& server, const std::string& database);
/// REINDEX, a lock of two seconds, and the cancelling of sessions, those at their COMMIT above all.
Maintained hold_up_sessions(testing_support::PrivatePostgres& server, const std::string& database);

}  // namespace sluice::crash
