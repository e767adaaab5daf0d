// Tables, functions and their versions. All of it stands in the database schema `sluice`.
#pragma once
#include "store/postgres/connection.hpp"

namespace sluice::store {

/// Newest schema this binary knows, and the oldest binary-side version that may run beside it.
int postgres_schema_version() noexcept;
/// Makes or upgrades the schema, one migration a transaction, under an advisory lock, so that nodes
/// that start together do not meet. Fails corrupt when the schema is newer and says it does not suit us.
Status migrate_postgres(PgConnection& connection);
/// The version of the schema that is there; 0: none.
Result<int> postgres_schema_found(PgConnection& connection);
/// Fails database_rights, naming each right on table or function that the user lacks.
Status check_postgres_rights(PgConnection& connection);
/// Without changing anything: fails unavailable when the schema is missing or older.
Status check_postgres_schema(PgConnection& connection);

}  // namespace sluice::store
