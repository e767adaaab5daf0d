// The shared store: rows in a PostgreSQL database that many equal nodes use. Each node has one
// writing connection, which puts everything waiting into one transaction, and a few reading ones.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "sluice/base/executor.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/random.hpp"
#include "sluice/store/nodes.hpp"

namespace sluice::store {

struct PostgresOptions {
  std::string url;                     ///< postgres://…, or libpq's "key=value …"; sslmode and the like are libpq's
  std::size_t max_queue = 100'000;     ///< waiting Commits, and waiting queries; past it: overloaded
  std::size_t max_group = 1024;        ///< Commits in one transaction
  milliseconds lazy_delay{5};          ///< longest wait of a lazy Commit
  std::size_t max_readers = 2;         ///< reading connections
  milliseconds connect_timeout{3000};  ///< for one attempt over all hosts
  milliseconds io_timeout{5000};       ///< for one answer of the server; past it the connection is dropped
  milliseconds lease{10'000};          ///< a node not heard of for this long is taken over by another
  milliseconds settle_timeout{10'000};  ///< how long a lost COMMIT is asked after; past it: unknown_outcome
  bool migrate = true;                 ///< make or upgrade the schema on opening
  /// No prepared statements: for a pooler that gives every transaction another connection.
  bool pooled = false;
  /// When set, decides TTLs and leases instead of the database's clock: tests move it by hand.
  Clock* clock = nullptr;
  /// When set, is told when this node takes a dead one over and when it was shut out itself; must outlive the store.
  Logger* logger = nullptr;
};

/// Whether `text` names a PostgreSQL database: postgres://… or postgresql://….
bool is_postgres_url(std::string_view text) noexcept;
/// The same address without its password, for logs and messages.
std::string without_password(std::string_view url);

/// What only a PostgreSQL store can do. Thread-safe.
class PostgresStore : public Store, public Nodes {
 public:
  /// Re-reads every index against its table (amcheck is not needed); fails `corrupt` naming what is wrong.
  virtual Status integrity_check() = 0;
  /// Whether the opening found the tables in another database than before (restored from a dump, or moved) and so drew
  /// a new incarnation, which old fencing tokens do not fit.
  virtual bool of_another_database() const = 0;
};

/// What `sluice doctor` says about one thing.
struct PostgresFinding {
  enum class Level : std::uint8_t { good, warning, error };
  Level level = Level::good;
  std::string what;    ///< what was looked at
  std::string found;   ///< and what it was
  std::string advice;  ///< what to change; empty when good
};
/// Looks at version, settings, rights, clock, replication, schema, nodes. Fails as opening does.
Result<std::vector<PostgresFinding>> examine_postgres(const PostgresOptions& options, Clock& clock);

/// Reads every row and holds the tables against each other; changes nothing and joins no node. Fails corrupt
/// naming what is wrong, or as opening does.
Status check_postgres_database(const PostgresOptions& options);

struct PostgresMigration {
  int from = 0, to = 0;
  bool new_incarnation = false;
};
/// Makes or upgrades the schema. `restored`: the database was restored to an earlier point, so a new
/// incarnation is drawn, which old fencing tokens do not fit; so it is when the tables were in another database before.
Result<PostgresMigration> migrate_postgres_database(const PostgresOptions& options, Random& random, bool restored);

/// Connects, checks the server's version and settings, makes or upgrades the schema under a lock.
/// Failures: unavailable (no server, starting up, too many connections), forbidden (password, rights),
/// corrupt (a newer schema, a foreign one), invalid_argument (the address), each without the password.
/// `clock` (monotonic time), `random` and `executor` must outlive the store.
Result<std::unique_ptr<PostgresStore>> open_postgres_store(PostgresOptions options, Clock& clock,
                                                           Random& random, Executor& executor);

}  // namespace sluice::store
