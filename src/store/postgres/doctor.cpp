// What an operator asks of the database apart from the store's work: doctor and migrate.
#include <fmt/format.h>

#include <cstdlib>

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
  void setting(const char* name, auto good, Level otherwise, const char* advice) {
    const auto found = ask(std::string("current_setting('") + name + "', true)");
    say(found && good(*found) ? Level::good : otherwise, name, found.value_or("unknown"), advice);
  }

 private:
  PgConnection& connection_;
};

}  // namespace

Result<std::vector<PostgresFinding>> examine_postgres(const PostgresOptions& options, Clock& clock) {
  SLUICE_ASSIGN(auto connection, PgConnection::open(options));
  Doctor doctor(*connection);
  const auto on = [](const std::string& v) { return v == "on"; };
  const int version = std::atoi(doctor.ask("current_setting('server_version_num')").value_or("0").c_str());
  doctor.say(version >= 130000 ? Level::good : Level::error, "server version",
             doctor.ask("current_setting('server_version')").value_or("unknown"), "run PostgreSQL 13 or newer; 15 is what is tested");
  doctor.setting("fsync", on, Level::error, "turn it on: without it a power cut loses what was acknowledged, and may damage the database");
  doctor.setting("full_page_writes", on, Level::error, "turn it on, unless the file system never tears a page");
  doctor.setting("synchronous_commit", [](const auto& v) { return v != "off" && v != "local"; }, Level::warning,
                 "set it to on; sluice sets it for its own transactions when it is off");
  doctor.setting("wal_level", [](const auto& v) { return v != "minimal"; }, Level::warning, "set it to replica, for backups by log and for standbys");
  doctor.setting("autovacuum", on, Level::error, "turn it on: idempotency keys and leases leave dead rows behind");
  doctor.setting("default_transaction_read_only", [](const auto& v) { return v == "off"; }, Level::error, "turn it off for this user and database");
  const auto standbys = doctor.ask("current_setting('synchronous_standby_names')").value_or("");
  doctor.say(standbys.empty() ? Level::warning : Level::good, "synchronous_standby_names", standbys.empty() ? "none" : standbys,
             "with one machine that is what there is; with several, name synchronous standbys or a failover loses the last commits");
  const auto connections = std::atoi(doctor.ask("current_setting('max_connections')").value_or("0").c_str());
  const auto used = std::atoi(doctor.ask("SELECT count(*) FROM pg_stat_activity").value_or("0").c_str());
  doctor.say(used * 10 < connections * 8 ? Level::good : Level::warning, "connections", fmt::format("{} of {}", used, connections),
             fmt::format("each node takes {}; raise max_connections or use a pooler with store.pooled", 2 + options.max_readers));
  const auto tls = doctor.ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").value_or("false");
  const bool remote = doctor.ask("inet_server_addr() IS NOT NULL AND NOT inet_server_addr() <<= '127.0.0.0/8'::inet").value_or("false") == "true";
  doctor.say(tls == "true" || !remote ? Level::good : Level::warning, "TLS", tls == "true" ? "yes" : remote ? "no" : "no, on this machine",
             "add sslmode=verify-full and sslrootcert=… to the address");
  const auto before = clock.wall();
  const auto theirs = std::strtoll(doctor.ask("floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint").value_or("0").c_str(), nullptr, 10);
  const auto skew = theirs - before.time_since_epoch().count();
  doctor.say(std::abs(skew) < 1000 ? Level::good : Level::warning, "clock", fmt::format("the database is {} ms ahead of this node", skew),
             "let both be set by NTP; leases go by the database's clock, ids by the node's");
  const bool has_rights = doctor.ask("has_database_privilege(current_database(), 'CREATE') OR "
                                     "coalesce(has_schema_privilege(to_regnamespace('sluice')::oid, 'CREATE'), false)")
                              .value_or("false") == "true";
  doctor.say(has_rights ? Level::good : Level::warning, "rights", has_rights ? "may migrate" : "may not migrate",
             "GRANT CREATE ON DATABASE … TO the user, or run sluice migrate as another one");
  const auto schema = check_postgres_schema(*connection);
  doctor.say(schema ? Level::good : Level::error, "schema", schema ? fmt::format("version {}", postgres_schema_version()) : std::string(schema.error().detail()),
             "run sluice migrate");
  if (schema) {
    const auto nodes = doctor.ask("SELECT count(*) FROM sluice.writers WHERE expires_at > sluice.now_ms()").value_or("0");
    const auto dead = doctor.ask("SELECT count(*) FROM sluice.writers w WHERE node IS NOT NULL AND expires_at <= sluice.now_ms() "
                                 "AND EXISTS (SELECT 1 FROM sluice.open_exchanges o WHERE (o.exchange >> 12) & 1023 = w.node)").value_or("0");
    doctor.say(dead == "0" || nodes != "0" ? Level::good : Level::warning, "nodes",
               fmt::format("{} alive, {} dead with open exchanges", nodes, dead), "start a node: what a dead one left is finished by the living");
    const auto doubt = doctor.ask("SELECT count(*) FROM sluice.open_exchanges WHERE state = 4").value_or("0");
    doctor.say(doubt == "0" ? Level::good : Level::warning, "in doubt", doubt, "see sluice tx list --in-doubt");
  }
  const auto oldest = doctor.ask("SELECT coalesce(max(extract(epoch FROM now() - xact_start))::bigint, 0) FROM pg_stat_activity "
                                 "WHERE datname = current_database() AND pid <> pg_backend_pid()").value_or("0");
  doctor.say(std::atoi(oldest.c_str()) < 300 ? Level::good : Level::warning, "oldest transaction", oldest + " s",
             "end it: vacuum cannot clean up behind it, and the tables grow");
  return std::move(doctor.findings);
}

Result<PostgresMigration> migrate_postgres_database(const PostgresOptions& options, Random& random, bool restored) {
  SLUICE_ASSIGN(auto connection, PgConnection::open(options));
  connection->set_timeout(std::chrono::minutes(30));
  PostgresMigration done;
  SLUICE_ASSIGN(done.from, postgres_schema_found(*connection));
  SLUICE_TRY(migrate_postgres(*connection));
  SLUICE_ASSIGN(done.to, postgres_schema_found(*connection));
  if (restored) {
    // Leases of the lost time end, and their tokens belong to another incarnation.
    SLUICE_TRY(connection->run("INSERT INTO sluice.meta VALUES ('incarnation', $1::bigint) ON CONFLICT (name) DO UPDATE "
                               "SET value = excluded.value",
                               std::move(PgParams().integer(static_cast<std::int64_t>(random.next() >> 1 | 1)))));
    SLUICE_TRY(connection->run("UPDATE sluice.writers SET epoch = epoch + 1, expires_at = 0"));
    done.new_incarnation = true;
  }
  return done;
}

}  // namespace sluice::store
