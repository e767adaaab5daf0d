#include "store/postgres/failures.hpp"

namespace sluice::store {
namespace {

struct Row {
  std::string_view state;  // whole code, or its class of two characters
  FailureKind kind;
  std::string_view code;
  std::string_view next;
};

// Source: PostgreSQL's appendix A, error codes. Whole codes stand before their class.
constexpr Row kRows[] = {
    {"53100", FailureKind::unavailable, "disk_full", "make free space on the database's disk; writes resume by themselves"},
    {"53200", FailureKind::unavailable, "out_of_memory", "the database server is out of memory; see its log"},
    {"53300", FailureKind::unavailable, "too_many_connections", "raise max_connections, or put a pooler in between"},
    {"53", FailureKind::unavailable, "database_resources", "the database server ran out of something; see its log"},
    {"57014", FailureKind::unavailable, "statement_cancelled", "an operator or a time limit cancelled it; try again"},
    {"57P05", FailureKind::unavailable, "database_idle", "idle_session_timeout ends sessions between two requests; it will be tried again"},
    {"57P03", FailureKind::unavailable, "database_starting", "the database is starting, stopping or recovering; it will be tried again"},
    {"57", FailureKind::unavailable, "database_stopping", "the database is being shut down; it will be tried again"},
    {"58030", FailureKind::unavailable, "database_io", "the database server met an I/O error; see its log and its disks"},
    {"08", FailureKind::unavailable, "database_unreachable", "see that the server runs and can be reached; it will be tried again"},
    {"25006", FailureKind::unavailable, "store_read_only", "this server takes no writes (a standby, or default_transaction_read_only); name the primary"},
    {"25P03", FailureKind::unavailable, "held_too_long", "the node stood still inside a transaction; it will be tried again"},
    {"55P03", FailureKind::unavailable, "database_busy", "a lock was not free in time; sluice doctor names who has held it for two seconds"},
    {"40", FailureKind::unavailable, "database_conflict", "other nodes changed the same rows again and again; try again"},
    {"SLTLS", FailureKind::unavailable, "database_tls", "check sslmode and sslrootcert in the address, and the server's certificate and its name; it will be tried again"},
    {"SL002", FailureKind::unavailable, "node_fenced", "this node stood still and another has taken over; it joins again by itself"},
    {"SL", FailureKind::unavailable, "database_conflict", "other nodes changed the same rows again and again; try again"},
    // Faults of whoever runs the server: no caller can do anything about them, and they pass when they are mended.
    {"28", FailureKind::unavailable, "database_login", "check user, password and pg_hba.conf"},
    {"42501", FailureKind::unavailable, "database_rights", "grant the user rights on the schema sluice; see docs/how-to/postgres.md"},
    {"3D000", FailureKind::unavailable, "no_such_database", "create it: CREATE DATABASE …"},
    {"42P01", FailureKind::unavailable, "schema_missing", "run sluice migrate"},
    {"3F000", FailureKind::unavailable, "schema_missing", "run sluice migrate"},
    {"42883", FailureKind::unavailable, "schema_missing", "run sluice migrate"},
    {"42P05", FailureKind::unavailable, "database_pooler", "a pooler in transaction mode? set store.pooled"},
    {"26000", FailureKind::unavailable, "database_pooler", "a pooler in transaction mode? set store.pooled"},
    {"54", FailureKind::invalid_argument, "row_too_large", "a value or key is larger than PostgreSQL stores"},
    {"22", FailureKind::invalid_argument, "row_refused", "PostgreSQL refuses the value"},
    {"XX001", FailureKind::corrupt, "database_damaged", "restore a backup; see docs/operations.md"},
    {"XX002", FailureKind::corrupt, "database_damaged", "REINDEX, or restore a backup; see docs/operations.md"},
};

}  // namespace

Failure postgres_failure(std::string_view sqlstate, std::string_view message, const std::string& where) {
  while (message.ends_with('\n')) message.remove_suffix(1);
  std::string detail = "PostgreSQL at " + where + ": " + std::string(message);
  if (!sqlstate.empty()) detail += " (" + std::string(sqlstate) + ")";
  for (const Row& row : kRows)
    if (sqlstate.starts_with(row.state)) {
      Failure failure(row.kind, row.code, detail + "; " + std::string(row.next));
      if (row.kind == FailureKind::unavailable) return failure.with_retry_after(std::chrono::seconds(1));
      return failure;
    }
  return {FailureKind::internal, "database_error", detail + "; this is a defect of sluice or of the schema"};
}

Failure database_went_back() {
  return {FailureKind::unavailable, "database_went_back",
          "the database does not have what this node has written to it: it was restored to an earlier point, or "
          "another took its place; do not start the server again before you know what was lost: then stop every node, "
          "run sluice migrate --restored, and start them; see docs/operations.md"};
}

Failure at_opening(const Failure& failure, std::string_view verb) {
  constexpr std::pair<std::string_view, FailureKind> kForGood[] = {{"database_login", FailureKind::forbidden},
                                                                   {"database_rights", FailureKind::forbidden},
                                                                   {"no_such_database", FailureKind::not_found},
                                                                   {"schema_missing", FailureKind::corrupt}};
  for (const auto& [code, kind] : kForGood)
    if (failure.code() == code) return {kind, failure.code(), std::string(failure.detail())};
  // Nobody tries again by himself before the store is open.
  std::string detail(failure.detail());
  const std::string_view promise = "it will be tried again";
  const auto at = detail.find(promise);
  if (at == std::string::npos) return failure;
  const std::string_view once = failure.code() == "database_tls" ? " once they fit" : " once the database answers";
  Failure told(failure.kind(), failure.code(), detail.replace(at, promise.size(), std::string(verb) + std::string(once)));
  if (const auto after = failure.retry_after()) return told.with_retry_after(*after);
  return told;
}

bool worth_another_try(std::string_view sqlstate) noexcept {
  return sqlstate == kRowsChanged || sqlstate == kTooLate || sqlstate == "40001" || sqlstate == "40P01" || sqlstate == "23505";
}

bool leaves_open(std::string_view sqlstate) noexcept { return sqlstate.starts_with("57") || sqlstate.starts_with("08"); }

bool fault_of_the_data(std::string_view sqlstate) noexcept {
  return sqlstate.starts_with("22") || sqlstate.starts_with("23") || sqlstate.starts_with("54");
}

}  // namespace sluice::store
