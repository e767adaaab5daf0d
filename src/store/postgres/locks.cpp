#include "store/postgres/locks.hpp"

#include <fmt/format.h>

#include <set>

namespace sluice::store {
namespace {

using Level = PostgresFinding::Level;

// Who waits and for whom is everybody's to see; what the others run is not. Whoever waits behind somebody who waits
// himself is put down to the one at the head, who waits for nobody. Before PostgreSQL 14 it is not said since when a
// lock is waited for, and the statement's beginning stands for it.
constexpr const char* kHolders = R"sql(
WITH RECURSIVE waiting AS MATERIALIZED (
  SELECT l.pid, pg_blocking_pids(l.pid) AS behind,
         max(coalesce(extract(epoch FROM clock_timestamp() - coalesce((to_jsonb(l) ->> 'waitstart')::timestamptz, a.query_start)), 0)) AS s,
         bool_or(a.datname = current_database()) AS here
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid WHERE NOT l.granted GROUP BY l.pid),
chain AS (
  SELECT w.pid AS waiter, w.s, b AS holder FROM waiting w, unnest(w.behind) b WHERE w.here AND w.s * 1000 >= $1::bigint
  UNION SELECT c.waiter, c.s, b FROM chain c JOIN waiting w ON w.pid = c.holder, unnest(w.behind) b)
SELECT c.holder::bigint, count(DISTINCT c.waiter), floor(max(c.s))::bigint,
       convert_to(coalesce(max(a.usename::text), ''), 'UTF8'), convert_to(coalesce(max(a.application_name), ''), 'UTF8'),
       convert_to(coalesce(max(a.state), ''), 'UTF8'),
       convert_to(coalesce(max(left(regexp_replace(a.query, '\s+', ' ', 'g'), 80)), ''), 'UTF8'),
       coalesce(max(a.wait_event) = 'SyncRep', false)
  FROM chain c LEFT JOIN pg_stat_activity a ON a.pid = c.holder
 WHERE NOT EXISTS (SELECT 1 FROM waiting w WHERE w.pid = c.holder)
 GROUP BY c.holder ORDER BY 2 DESC, 1 LIMIT $2::bigint)sql";

// A wait ends after kPatient's time, or sooner, with database_busy: who still holds what is waited for is found by what he
// holds. From RowShareLock on a table's rows may be held; reading (AccessShareLock) and VACUUM, ANALYZE, CREATE INDEX
// CONCURRENTLY (ShareUpdateExclusiveLock) hold up no commit. Nodes are known by their name; whose transaction's age may not
// be seen is told with s < 0.
constexpr const char* kKeepers = R"sql(
SELECT a.pid::bigint, coalesce(floor(extract(epoch FROM clock_timestamp() - max(a.xact_start)))::bigint, -1),
       bool_or(l.mode NOT IN ('RowShareLock', 'RowExclusiveLock')),
       convert_to(coalesce(max(a.usename::text), ''), 'UTF8'), convert_to(coalesce(max(a.application_name), ''), 'UTF8'),
       convert_to(coalesce(max(a.state), ''), 'UTF8'),
       convert_to(coalesce(max(left(regexp_replace(a.query, '\s+', ' ', 'g'), 80)), ''), 'UTF8'),
       coalesce(max(a.wait_event) = 'SyncRep', false),
       convert_to(string_agg(DISTINCT c.relname::text, ', '), 'UTF8')
  FROM pg_locks l JOIN pg_class c ON c.oid = l.relation AND c.relkind = 'r' AND c.relnamespace = to_regnamespace('sluice')
  JOIN pg_stat_activity a ON a.pid = l.pid AND a.datname = current_database()
 WHERE l.locktype = 'relation' AND l.granted AND l.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
   AND a.pid <> pg_backend_pid() AND a.application_name NOT LIKE 'sluice@%'
   AND coalesce(a.xact_start <= clock_timestamp() - $1::bigint * interval '1 ms', a.state IS NULL)
 GROUP BY a.pid ORDER BY 2 DESC, 1 LIMIT $2::bigint)sql";

// A prepared transaction has no session; its locks bear the same virtual number as the one on its own number, which is
// that of the session it was prepared in, and -1 with its own number after a restart.
constexpr const char* kPrepared = R"sql(
SELECT floor(extract(epoch FROM clock_timestamp() - p.prepared))::bigint, convert_to(quote_literal(p.gid), 'UTF8'),
       convert_to(p.owner::text, 'UTF8'), convert_to((CASE WHEN bool_or(l.mode NOT IN ('RowShareLock', 'RowExclusiveLock')) THEN 'a lock on ' ELSE 'rows of ' END)
       || string_agg(DISTINCT c.relname::text, ', '), 'UTF8')
  FROM pg_prepared_xacts p
  JOIN pg_locks own ON own.locktype = 'transactionid' AND own.transactionid = p.transaction AND own.granted AND own.pid IS NULL
  JOIN pg_locks l ON l.virtualtransaction = own.virtualtransaction AND l.pid IS NULL AND l.locktype = 'relation'
  JOIN pg_class c ON c.oid = l.relation AND c.relkind = 'r' AND c.relnamespace = to_regnamespace('sluice')
 WHERE p.database = current_database() AND l.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
   AND p.prepared <= clock_timestamp() - $1::bigint * interval '1 ms'
 GROUP BY p.gid, p.owner, p.prepared ORDER BY 1 DESC, 2 LIMIT $2::bigint)sql";

// The columns of a session: user, application, state, query, whether it waits for a standby. Its state is told to those
// alone who may see its query.
PostgresFinding session(const PgRows& rows, std::size_t i, std::size_t user_at, Level level, const std::string& does) {
  const auto pid = rows.integer(i, 0);
  const std::string user = rows.bytes(i, user_at), application = rows.bytes(i, user_at + 1), state = rows.bytes(i, user_at + 2);
  std::string who = user.empty() ? "no user" : user;
  if (!application.empty()) who += ", " + application;
  who += state.empty() ? "; what it runs may not be seen" : ", " + state + ": " + rows.bytes(i, user_at + 3);
  std::string advice = fmt::format("end it: SELECT pg_terminate_backend({}), as its user or an administrator", pid);
  if (state.empty()) advice += "; GRANT pg_monitor TO the user to see what it runs";
  if (rows.integer(i, user_at + 4) != 0) advice = "it waits for a standby: see synchronous_standby_names, and do not end it";
  return {level, "locks", fmt::format("pid {} ({}) {}", pid, who, does), advice};
}

PostgresFinding holder(const PgRows& rows, std::size_t i) {
  const auto held = rows.integer(i, 1);
  const std::string holds = fmt::format("holds up {} session{}, for {} s", held, held == 1 ? "" : "s", rows.integer(i, 2));
  if (rows.integer(i, 0) == 0)
    return {Level::error, "locks", "a prepared transaction " + holds, "see pg_prepared_xacts; COMMIT PREPARED or ROLLBACK PREPARED it"};
  return session(rows, i, 3, Level::error, holds);
}

PostgresFinding keeper(const PgRows& rows, std::size_t i) {
  const auto s = rows.integer(i, 1);
  const std::string what = (rows.integer(i, 2) != 0 ? "locks " : "may hold rows of ") + rows.bytes(i, 8);
  if (s < 0) return session(rows, i, 3, Level::warning, what + ", since when may not be seen");
  return session(rows, i, 3, Level::error, fmt::format("{}, its transaction open for {} s", what, s));
}

PostgresFinding prepared(const PgRows& rows, std::size_t i) {
  const std::string gid = rows.bytes(i, 1);
  return {Level::error, "locks",
          fmt::format("the prepared transaction {} of {} keeps {}, for {} s", gid, rows.bytes(i, 2), rows.bytes(i, 3), rows.integer(i, 0)),
          fmt::format("COMMIT PREPARED {0} or ROLLBACK PREPARED {0}, as {1} or a superuser, in this database", gid, rows.bytes(i, 2))};
}

}  // namespace

std::vector<PostgresFinding> find_lock_holders(PgConnection& connection, milliseconds patience) {
  const auto ask = [&](const char* sql) { return connection.run(sql, std::move(PgParams().integer(patience.count()).integer(kHoldersTold))); };
  std::vector<PostgresFinding> found;
  const auto unread = [&](const Failure& failure) {
    found.push_back({Level::warning, "locks", std::string(failure.detail()), "ask again; see pg_locks and pg_stat_activity"});
    return found;
  };
  std::set<std::int64_t> named;
  const auto holders = ask(kHolders);
  if (!holders) return unread(holders.error());
  for (std::size_t i = 0; i < holders->size(); ++i) {
    named.insert(holders->integer(i, 0));
    found.push_back(holder(*holders, i));
  }
  const auto keepers = ask(kKeepers);
  if (!keepers) return unread(keepers.error());
  for (std::size_t i = 0; i < keepers->size(); ++i)
    if (named.insert(keepers->integer(i, 0)).second) found.push_back(keeper(*keepers, i));
  const auto left = ask(kPrepared);
  if (!left) return unread(left.error());
  for (std::size_t i = 0; i < left->size(); ++i) found.push_back(prepared(*left, i));
  if (found.empty()) found.push_back({Level::good, "locks", "nobody has waited for one, or held one, for longer than a moment", ""});
  return found;
}

}  // namespace sluice::store
