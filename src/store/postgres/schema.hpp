// Tables, functions and their versions. All of it stands in the database schema `sluice`.
#pragma once
#include <span>

#include "store/postgres/connection.hpp"

namespace sluice::store {

struct PgMigration {
  const char* sql;
  /// The oldest schema version whose binaries still work on this one: nodes are replaced one by one,
  /// so every migration must leave the version before it working.
  int suits_binaries_of;
};
/// Those this binary knows, from an empty database on.
std::span<const PgMigration> postgres_migrations() noexcept;
/// Newest schema this binary knows, and the oldest binary-side version that may run beside it.
int postgres_schema_version() noexcept;
/// Makes or upgrades the schema, one migration a transaction, under an advisory lock, so that nodes
/// that start together do not meet. One that no longer suits binaries which may be running shuts every node out, and
/// each asks check_postgres_suits() before it joins again. Fails corrupt when the schema is newer and does not suit us.
Status migrate_postgres(PgConnection& connection, std::span<const PgMigration> migrations = postgres_migrations());
/// For a node that runs: fails unavailable (schema_too_new) when a newer one migrated to what does not suit this binary.
Status check_postgres_suits(PgConnection& connection);
/// The version of the schema that is there; 0: none.
Result<int> postgres_schema_found(PgConnection& connection);
/// Fails database_rights, naming each right on table or function that the user lacks.
Status check_postgres_rights(PgConnection& connection);
/// Without changing anything: fails unavailable when the schema is missing or older.
Status check_postgres_schema(PgConnection& connection);

}  // namespace sluice::store
