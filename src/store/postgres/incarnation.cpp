#include "store/postgres/incarnation.hpp"

namespace sluice::store {
namespace {

// Numbers of the database and of a table do not come along with a dump; the cluster's does with a copy of its files,
// and its name is what is left to a role that may not ask for it. 0: not known.
struct Place {
  std::int64_t database = 0, tables = 0, cluster = 0, name = 0;
};

struct Kept {
  std::int64_t incarnation = 0;
  Place place;
};

Result<Place> place_of(PgConnection& connection) {
  SLUICE_ASSIGN(const PgRows rows, connection.run("SELECT d.oid::bigint, 'sluice.meta'::regclass::oid::bigint, hashtextextended(d.datname::text, 0), "
                                                  "has_function_privilege('pg_control_system()', 'EXECUTE') "
                                                  "FROM pg_database d WHERE d.datname = current_database()"));
  Place place{.database = rows.integer(0, 0), .tables = rows.integer(0, 1), .name = rows.integer(0, 2)};
  if (rows.integer(0, 3) == 0) return place;
  SLUICE_ASSIGN(const PgRows cluster, connection.run("SELECT system_identifier FROM pg_control_system()"));
  place.cluster = cluster.integer(0, 0);
  return place;
}

Result<Kept> kept(PgConnection& connection) {
  SLUICE_ASSIGN(const PgRows rows, connection.run("SELECT name, value FROM sluice.meta"));
  Kept kept;
  const std::pair<std::string_view, std::int64_t*> known[] = {{"incarnation", &kept.incarnation},
                                                              {"database", &kept.place.database},
                                                              {"tables", &kept.place.tables},
                                                              {"cluster", &kept.place.cluster},
                                                              {"database_name", &kept.place.name}};
  for (std::size_t i = 0; i < rows.size(); ++i)
    for (const auto& [name, value] : known)
      if (rows.view(i, 0) == name) *value = rows.integer(i, 1);
  return kept;
}

bool differs(const Place& here, const Place& before) noexcept {
  if (before.database == 0) return false;  // made before this was kept
  if (here.database != before.database || here.tables != before.tables) return true;
  if (here.cluster != 0 && before.cluster != 0) return here.cluster != before.cluster;
  return here.name != before.name;
}

PgParams words(const Place& here) {
  return std::move(PgParams().integer(here.database).integer(here.tables).integer(here.cluster).integer(here.name));
}

#define SLUICE_PLACE_ROWS \
  "INSERT INTO sluice.meta VALUES ('database', $1::bigint), ('tables', $2::bigint), ('cluster', $3::bigint), ('database_name', $4::bigint) "

Result<Incarnation> know(PgConnection& connection, Random& random) {
  SLUICE_TRY(connection.script("SELECT pg_advisory_xact_lock(7310868734)"));  // that of the migrations
  SLUICE_ASSIGN(const Place here, place_of(connection));
  SLUICE_ASSIGN(Kept before, kept(connection));
  const bool another = before.incarnation != 0 && differs(here, before.place);
  if (another) {
    SLUICE_TRY(draw_incarnation(connection, random));
  } else {
    SLUICE_TRY(connection.run(SLUICE_PLACE_ROWS "ON CONFLICT (name) DO NOTHING", words(here)));
    SLUICE_TRY(connection.run("INSERT INTO sluice.meta VALUES ('incarnation', $1::bigint) ON CONFLICT (name) DO NOTHING",
                              std::move(PgParams().integer(static_cast<std::int64_t>(random.next() >> 1 | 1)))));
  }
  SLUICE_ASSIGN(before, kept(connection));
  return Incarnation{static_cast<std::uint64_t>(before.incarnation), another};
}

}  // namespace

Status draw_incarnation(PgConnection& connection, Random& random) {
  SLUICE_ASSIGN(const Place here, place_of(connection));
  SLUICE_TRY(connection.run(SLUICE_PLACE_ROWS "ON CONFLICT (name) DO UPDATE SET value = excluded.value", words(here)));
  SLUICE_TRY(connection.run("INSERT INTO sluice.meta VALUES ('incarnation', $1::bigint) ON CONFLICT (name) DO UPDATE "
                            "SET value = excluded.value",
                            std::move(PgParams().integer(static_cast<std::int64_t>(random.next() >> 1 | 1)))));
  // Leases of the lost time end, and their tokens belong to another incarnation.
  SLUICE_TRY(connection.run("UPDATE sluice.writers SET epoch = epoch + 1, expires_at = 0"));
  return {};
}

#undef SLUICE_PLACE_ROWS

Result<Incarnation> know_incarnation(PgConnection& connection, Random& random) {
  SLUICE_ASSIGN(const Place here, place_of(connection));
  SLUICE_ASSIGN(const Kept before, kept(connection));
  // Most starts find what the last one left, and need no lock.
  const bool complete = before.incarnation != 0 && before.place.database != 0;
  if (complete && !differs(here, before.place)) return Incarnation{static_cast<std::uint64_t>(before.incarnation), false};
  SLUICE_TRY(connection.script("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '30s'"));
  auto known = know(connection, random);
  if (known) SLUICE_TRY(connection.script("COMMIT"));
  else if (!connection.broken()) (void)connection.script("ROLLBACK");
  return known;
}

Result<bool> in_another_database(PgConnection& connection) {
  SLUICE_ASSIGN(const Place here, place_of(connection));
  SLUICE_ASSIGN(const Kept before, kept(connection));
  return before.incarnation != 0 && differs(here, before.place);
}

}  // namespace sluice::store
