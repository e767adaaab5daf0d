#include "store/sqlite/schema.hpp"

#include <array>

namespace sluice::store {
namespace {

// Every table that grows with traffic is written in key order, so that a group dirties few pages
// however large the table is. docs/formats.md explains the columns.
constexpr std::array kMigrations{
    // 1: the first schema.
    R"sql(
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE kv (
  ns TEXT NOT NULL, collection TEXT NOT NULL, key TEXT NOT NULL,
  version INTEGER NOT NULL, number INTEGER NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY (ns, collection, key)) WITHOUT ROWID;
CREATE TABLE keys (
  seq INTEGER PRIMARY KEY, exchange INTEGER NOT NULL, scope BLOB NOT NULL,
  fingerprint BLOB NOT NULL, state INTEGER NOT NULL, token INTEGER NOT NULL,
  stored_at INTEGER NOT NULL, expires_at INTEGER NOT NULL, reply BLOB NOT NULL);
CREATE TABLE key_segments (last INTEGER PRIMARY KEY, entries BLOB NOT NULL);
CREATE TABLE journal (
  exchange INTEGER NOT NULL, n INTEGER NOT NULL, record BLOB NOT NULL,
  PRIMARY KEY (exchange, n)) WITHOUT ROWID;
CREATE TABLE open_exchanges (
  exchange INTEGER PRIMARY KEY, ns TEXT NOT NULL, flow TEXT NOT NULL, state INTEGER NOT NULL,
  since INTEGER NOT NULL);
CREATE TABLE events (
  ns TEXT NOT NULL, sequence INTEGER NOT NULL, id INTEGER NOT NULL, topic TEXT NOT NULL,
  payload BLOB NOT NULL, trace TEXT NOT NULL, exchange INTEGER NOT NULL, depth INTEGER NOT NULL,
  at INTEGER NOT NULL, PRIMARY KEY (ns, sequence)) WITHOUT ROWID;
CREATE TABLE audit (
  sequence INTEGER PRIMARY KEY, at INTEGER NOT NULL, ns TEXT NOT NULL, principal TEXT NOT NULL,
  command TEXT NOT NULL, outcome INTEGER NOT NULL, exchange INTEGER NOT NULL,
  correlation TEXT NOT NULL, detail TEXT NOT NULL);
CREATE TABLE leases (
  name TEXT PRIMARY KEY, owner TEXT NOT NULL, token INTEGER NOT NULL, incarnation INTEGER NOT NULL,
  expires_at INTEGER NOT NULL) WITHOUT ROWID;
)sql",
};

Result<std::int64_t> pragma(sqlite3* handle, const char* sql) {
  SLUICE_ASSIGN(Statement statement, Statement::prepare(handle, sql));
  SLUICE_TRY(statement.step());
  const std::int64_t value = statement.integer(0);
  statement.reset();
  return value;
}

}  // namespace

Status migrate(sqlite3* handle) {
  constexpr auto kNewest = static_cast<std::int64_t>(kMigrations.size());
  SLUICE_ASSIGN(const std::int64_t have, pragma(handle, "PRAGMA user_version"));
  SLUICE_ASSIGN(const std::int64_t application, pragma(handle, "PRAGMA application_id"));
  SLUICE_ASSIGN(const std::int64_t objects, pragma(handle, "SELECT count(*) FROM sqlite_master"));
  if ((have == 0 && objects != 0) || (have != 0 && application != kApplicationId))
    return fail(database_failure(SQLITE_NOTADB, sqlite3_db_filename(handle, "main"),
                                 "it holds another program's tables", "opening"));
  if (have > kNewest)
    return fail(FailureKind::corrupt, "schema_too_new",
                std::string("opening ") + sqlite3_db_filename(handle, "main") + ": expected schema " +
                    std::to_string(kNewest) + " or older, got " + std::to_string(have) +
                    "; run the newer version of sluice that wrote it, or restore an older backup");
  for (std::int64_t version = have; version < kNewest; ++version) {
    std::string sql = "BEGIN IMMEDIATE;";
    sql += kMigrations[static_cast<std::size_t>(version)];
    sql += "PRAGMA application_id=" + std::to_string(kApplicationId) + ";PRAGMA user_version=" +
           std::to_string(version + 1) + ";COMMIT;";
    SLUICE_TRY(execute(handle, sql.c_str()));
  }
  return {};
}

}  // namespace sluice::store
