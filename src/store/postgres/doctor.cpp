// What an operator asks of the database apart from the store's work: doctor and migrate.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "store/postgres/failures.hpp"
#include "store/postgres/incarnation.hpp"
#include "store/postgres/locks.hpp"
#include "store/postgres/purge.hpp"
#include "store/postgres/row_codec.hpp"
#include "store/postgres/schema.hpp"

namespace sluice::store {
namespace {

using Level = PostgresFinding::Level;

class Doctor {
 public:
  explicit Doctor(PgConnection& connection) : connection_(connection) {}
  std::vector<PostgresFinding> findings;

  void say(Level level, std::string what, std::string found, std::string advice = {}) {
    findings.push_back({level, std::move(what), std::move(found), level == Level::good ? "" : std::move(advice)});
  }
  /// The first column of the first row as text; nothing when it may not be asked.
  std::optional<std::string> ask(const std::string& expression) {
    const auto rows = connection_.run(("SELECT convert_to((" + expression + ")::text, 'UTF8')").c_str());
    if (!rows || rows->size() == 0 || rows->null(0, 0)) return std::nullopt;
    return rows->bytes(0, 0);
  }
  long number(const std::string& expression) { return std::atol(ask(expression).value_or("0").c_str()); }
  void setting(const char* name, auto good, Level otherwise, const char* advice) {
    const auto found = ask(std::string("current_setting('") + name + "', true)");
    say(found && good(*found) ? Level::good : otherwise, name, found.value_or("unknown"), advice);
  }

  void settings();
  void standbys();
  void connections(long need);
  void pooler(const PostgresOptions& options);
  void rights(bool migrates);
  bool schema(bool migrates);
  void place();
  void left_behind();
  void oldest();

 private:
  bool may_migrate();
  void bound(const char* what, long used, long bound, long need, const std::string& advice);
  PgConnection& connection_;
};

void Doctor::settings() {
  const auto on = [](const std::string& v) { return v == "on"; };
  setting("fsync", on, Level::error, "turn it on: without it a power cut loses what was acknowledged, and may damage the database");
  setting("full_page_writes", on, Level::error, "turn it on, unless the file system never tears a page");
  setting("synchronous_commit", [](const auto& v) { return v == "on" || v == "remote_apply"; }, Level::warning,
          "set it to on; sluice sets it for its own transactions when it is off or local, but not when it is remote_write: a "
          "standby that loses power then has not what was acknowledged");
  setting("wal_level", [](const auto& v) { return v != "minimal"; }, Level::warning, "set it to replica, for backups by log and for standbys");
  setting("autovacuum", on, Level::error, "turn it on: idempotency keys and leases leave dead rows behind");
  setting("default_transaction_read_only", [](const auto& v) { return v == "off"; }, Level::error, "turn it off for this user and database");
  setting("default_transaction_isolation", [](const auto& v) { return v == "read committed"; }, Level::warning,
          "sluice names its own level, read committed, in each transaction; other programs that work on these tables may not");
}

// That one is named does not say that it stands: without it every COMMIT waits.
void Doctor::standbys() {
  const char* const kName = "synchronous_standby_names";
  const auto names = ask("current_setting('synchronous_standby_names')").value_or("");
  if (names.empty())
    return say(Level::warning, kName, "none", "with one machine that is what there is; with several, name synchronous standbys or a "
                                              "failover loses the last commits");
  if (ask("pg_has_role('pg_read_all_stats', 'USAGE')") != "true")
    return say(Level::warning, kName, names + "; whether one stands may not be seen",
               "GRANT pg_monitor TO the user, or look at sync_state in pg_stat_replication");
  const long stand = number("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')");
  say(stand > 0 ? Level::good : Level::error, kName, fmt::format("{}; {} of them stand", names, stand),
      "start the standby, or name another: every COMMIT waits for one of these names");
}

void Doctor::bound(const char* what, long used, long bound, long need, const std::string& advice) {
  say(bound >= need && used * 10 < bound * 8 ? Level::good : Level::warning, what, fmt::format("{} of {}", used, bound), advice);
}

// Who may not look into the others' sessions still sees that they are, and in which database: which workers of the
// server's own mostly are not.
void Doctor::connections(long need) {
  const std::string count = "SELECT count(*) FROM pg_stat_activity a WHERE coalesce(a.backend_type = 'client backend', a.datid IS NOT NULL)";
  const std::string takes = fmt::format("each node takes {}; ", need);
  bound("connections", number(count), number("current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"),
        need, takes + "raise max_connections or use a pooler with store.pooled");
  const long role = number("SELECT CASE WHEN rolsuper THEN -1 ELSE rolconnlimit END FROM pg_roles WHERE rolname = current_user");
  if (role >= 0)
    bound("connections of the role", number(count + " AND a.usename = current_user"), role, need, takes + "ALTER ROLE … CONNECTION LIMIT");
  const long database = number("SELECT datconnlimit FROM pg_database WHERE datname = current_database()");
  if (database >= 0)
    bound("connections of the database", number(count + " AND a.datname = current_database()"), database, need,
          takes + "ALTER DATABASE … CONNECTION LIMIT");
}

// As serve does, two connections prepare a statement of one name: behind a pooler of transactions they come to one
// session, where the second finds it there already. A pooler makes up the number of the session that it tells.
void Doctor::pooler(const PostgresOptions& options) {
  static constexpr PgStatement kProbe{"doctor_probe", "SELECT pg_backend_pid()"};
  const auto probe = [](PgConnection& connection) -> Result<std::int64_t> {
    connection.send(kProbe);
    auto rows = connection.finish();
    if (!rows) return fail(std::move(rows).error());
    return rows->back().integer(0, 0);
  };
  const char* const kThere = "the address is a pooler's";
  if (number("pg_backend_pid()") == connection_.backend()) return say(Level::good, "pooler", "none");
  if (options.pooled) return say(Level::good, "pooler", std::string(kThere) + ", and store.pooled is set");
  auto another = PgConnection::open(options);
  const auto first = probe(connection_);
  const auto second = another ? probe(**another) : Result<std::int64_t>(fail(another.error()));
  if (first) (void)connection_.script("DEALLOCATE doctor_probe");
  if (second) (void)(*another)->script("DEALLOCATE doctor_probe");
  const auto mixed_up = [](const auto& asked) { return !asked && asked.error().code() == "database_pooler"; };
  if (mixed_up(first) || mixed_up(second))
    return say(Level::error, "pooler", std::string(kThere) + " that pools transactions", "set store.pooled = true: without it a start ends with database_pooler");
  // One session for both, and it did not matter.
  const bool keeps_apart = first && second && *first == *second;
  say(keeps_apart ? Level::good : Level::warning, "pooler", kThere, "if it pools transactions, set store.pooled = true");
}

bool Doctor::may_migrate() {
  return ask("has_database_privilege(current_database(), 'CREATE') OR "
             "coalesce(has_schema_privilege(to_regnamespace('sluice')::oid, 'CREATE'), false)") == "true";
}

void Doctor::rights(bool migrates) {
  if (const auto rights = check_postgres_rights(connection_); !rights)
    say(Level::error, "rights", std::string(rights.error().detail()), "GRANT them; the lines stand in docs/how-to/postgres.md");
  else
    say(Level::good, "rights", "all that are needed on the tables");
  const bool may = may_migrate();
  if (migrates)
    say(may ? Level::good : Level::warning, "right to migrate", may ? "yes" : "no",
        "GRANT CREATE ON DATABASE … TO the user; or run sluice migrate as another one, and set store.migrate = false");
  else
    say(Level::good, "right to migrate", may ? "yes" : "no, and store.migrate is false");
}

bool Doctor::schema(bool migrates) {
  if (const auto there = postgres_schema_found(connection_); there && *there == 0 && migrates && may_migrate()) {
    say(Level::warning, "schema", "none yet", "nothing: the first sluice serve makes it");
    return false;
  }
  const auto known = check_postgres_schema(connection_);
  const auto found = postgres_schema_found(connection_);
  const bool too_new = !known && known.error().code() == "schema_too_new";
  if (known && found)
    say(Level::good, "schema", *found == postgres_schema_version() ? fmt::format("version {}", *found)
                                                                    : fmt::format("version {}; this binary knows {}, which suits it", *found, postgres_schema_version()));
  else if (too_new && found)
    say(Level::error, "schema", fmt::format("the database is at {}, this binary knows {}", *found, postgres_schema_version()), "take a newer sluice");
  else
    say(Level::error, "schema", std::string(known ? found.error().detail() : known.error().detail()),
        !known && known.error().code() == "schema_old" ? "run sluice migrate" : "see that it can be read, and ask again");
  return known.has_value();
}

void Doctor::place() {
  if (const auto another = in_another_database(connection_); another && *another)
    say(Level::warning, "database", "another one than these tables were in before: restored from a dump, or moved",
        "nothing, if that was meant: the next start draws a new incarnation, leases and fencing tokens from before are void; what was "
        "acknowledged after the dump was made is not in it");
}

void Doctor::left_behind() {
  const char* const kUnread = "could not be read";
  const auto nodes = ask("SELECT count(*) FROM sluice.writers WHERE expires_at > sluice.now_ms()");
  const auto dead = ask("SELECT count(*) FROM sluice.writers w WHERE node IS NOT NULL AND expires_at <= sluice.now_ms() "
                        "AND EXISTS (SELECT 1 FROM sluice.open_exchanges o WHERE (o.exchange >> 12) & 1023 = w.node)");
  if (!nodes || !dead)
    say(Level::warning, "nodes", kUnread, "see who locks the tables, and ask again");
  else
    say(*dead == "0" || *nodes != "0" ? Level::good : Level::warning, "nodes",
        fmt::format("{} alive, {} dead with open exchanges", *nodes, *dead), "start a node: what a dead one left is finished by the living");
  const auto doubt = ask("SELECT count(*) FROM sluice.open_exchanges WHERE state = 4");
  say(doubt == "0" ? Level::good : Level::warning, "in doubt", doubt.value_or(kUnread),
      doubt ? "see sluice tx list --state in_doubt" : "see who locks the tables, and ask again");
}

void Doctor::oldest() {
  const auto age = ask("SELECT coalesce(max(extract(epoch FROM now() - xact_start))::bigint, 0) FROM pg_stat_activity "
                       "WHERE datname = current_database() AND pid <> pg_backend_pid()");
  say(age && std::atoi(age->c_str()) < 300 ? Level::good : Level::warning, "oldest transaction", age ? *age + " s" : "could not be read",
      age ? "end it: vacuum cannot clean up behind it, and the tables grow" : "ask again");
}

}  // namespace

static Result<std::unique_ptr<PgConnection>> connect(const PostgresOptions& options, std::string_view verb) {
  auto opened = PgConnection::open(options);
  if (!opened) return fail(at_opening(opened.error(), verb));
  return opened;
}

// Asked last: where a table is locked, this connection may have waited for it in vain, been dropped, and be one of
// those who still wait, longer than for an answer.
static std::vector<PostgresFinding> find_locks(const PostgresOptions& options, PgConnection& connection) {
  const milliseconds patience = std::min(milliseconds(2000), options.io_timeout);
  if (!connection.broken()) return find_lock_holders(connection, patience);
  auto another = connect(options, "ask again");
  if (!another) return {{Level::warning, "locks", std::string(another.error().detail()), "ask again"}};
  return find_lock_holders(**another, patience);
}

Result<std::vector<PostgresFinding>> examine_postgres(const PostgresOptions& options, Clock& clock) {
  SLUICE_ASSIGN(auto connection, connect(options, "ask again"));
  Doctor doctor(*connection);
  const long version = doctor.number("current_setting('server_version_num')");
  doctor.say(version >= 130000 ? Level::good : Level::error, "server version",
             doctor.ask("current_setting('server_version')").value_or("unknown"), "run PostgreSQL 13 or newer; 15 is what is tested");
  doctor.settings();
  doctor.standbys();
  doctor.connections(static_cast<long>(2 + options.max_readers));
  doctor.pooler(options);
  const auto tls = doctor.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").value_or("false");
  const bool remote = doctor.ask("inet_server_addr() IS NOT NULL AND NOT inet_server_addr() <<= '127.0.0.0/8'::inet").value_or("false") == "true";
  doctor.say(tls == "true" || !remote ? Level::good : Level::warning, "TLS", tls == "true" ? "yes" : remote ? "no" : "no, on this machine",
             "add sslmode=verify-full and sslrootcert=… to the address");
  const auto before = clock.wall();
  const auto theirs = std::strtoll(doctor.ask("floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint").value_or("0").c_str(), nullptr, 10);
  const auto skew = theirs - before.time_since_epoch().count();
  doctor.say(std::abs(skew) < 1000 ? Level::good : Level::warning, "clock", fmt::format("the database is {} ms ahead of this node", skew),
             "let both be set by NTP; what ends, leases and ids go by the database's clock, log lines by the node's");
  doctor.oldest();
  doctor.rights(options.migrate);
  if (doctor.schema(options.migrate)) {
    doctor.place();
    doctor.left_behind();
  }
  auto locks = find_locks(options, *connection);
  doctor.findings.insert(doctor.findings.end(), std::make_move_iterator(locks.begin()), std::make_move_iterator(locks.end()));
  return std::move(doctor.findings);
}

Status check_postgres_database(const PostgresOptions& options) {
  SLUICE_ASSIGN(auto connection, connect(options, "ask again"));
  connection->set_timeout(std::chrono::hours(1));
  SLUICE_TRY(check_postgres_schema(*connection));
  return check_postgres_rows(*connection);
}

// A node that runs keeps the old incarnation: what it gives out would fit nothing.
static Status check_no_node_lives(PgConnection& connection) {
  SLUICE_TRY(connection.script("SELECT pg_advisory_xact_lock(7310868736)"));  // that of nodes that join
  SLUICE_ASSIGN(const PgRows rows, connection.run("SELECT coalesce(string_agg(node::text, ', ' ORDER BY node), ''), "
                                                  "coalesce(max(expires_at) - sluice.now_ms(), 0) FROM sluice.writers "
                                                  "WHERE node IS NOT NULL AND expires_at > sluice.now_ms()"));
  if (rows.view(0, 0).empty()) return {};
  return fail(FailureKind::unavailable, "nodes_alive",
              "nodes " + rows.bytes(0, 0) + " live on this database; stop every node first (one that was killed lives until its lease "
              "ends, in " + std::to_string(rows.integer(0, 1)) + " ms); no incarnation was drawn");
}

static Status draw_alone(PgConnection& connection, Random& random, bool another) {
  SLUICE_TRY(connection.script("BEGIN ISOLATION LEVEL READ COMMITTED"));
  Status drawn;
  // Leases that came along with a dump are nobody's here.
  if (!another) drawn = check_no_node_lives(connection);
  if (drawn) drawn = draw_incarnation(connection, random);
  if (drawn) return connection.script("COMMIT");
  if (!connection.broken()) (void)connection.script("ROLLBACK");
  return drawn;
}

Result<PostgresMigration> migrate_postgres_database(const PostgresOptions& options, Random& random, bool restored) {
  SLUICE_ASSIGN(auto connection, connect(options, "run it again"));
  connection->set_timeout(std::chrono::minutes(30));
  PostgresMigration done;
  SLUICE_ASSIGN(done.from, postgres_schema_found(*connection));
  SLUICE_TRY(migrate_postgres(*connection));
  SLUICE_ASSIGN(done.to, postgres_schema_found(*connection));
  SLUICE_ASSIGN(const bool another, in_another_database(*connection));
  if (restored || another) {
    SLUICE_TRY(draw_alone(*connection, random, another));
    done.new_incarnation = true;
  }
  return done;
}

}  // namespace sluice::store
