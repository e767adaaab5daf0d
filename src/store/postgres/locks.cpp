#include "store/postgres/locks.hpp"

#include <fmt/format.h>

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

// Its state is told to those alone who may see its query.
PostgresFinding told(const PgRows& rows, std::size_t i) {
  const auto pid = rows.integer(i, 0), held = rows.integer(i, 1);
  const std::string holds = fmt::format("holds up {} session{}, for {} s", held, held == 1 ? "" : "s", rows.integer(i, 2));
  if (pid == 0)
    return {Level::error, "locks", "a prepared transaction " + holds, "see pg_prepared_xacts; COMMIT PREPARED or ROLLBACK PREPARED it"};
  const std::string user = rows.bytes(i, 3), application = rows.bytes(i, 4), state = rows.bytes(i, 5);
  std::string who = user.empty() ? "no user" : user;
  if (!application.empty()) who += ", " + application;
  who += state.empty() ? "; what it runs may not be seen" : ", " + state + ": " + rows.bytes(i, 6);
  std::string advice = fmt::format("end it: SELECT pg_terminate_backend({}), as its user or an administrator", pid);
  if (state.empty()) advice += "; GRANT pg_monitor TO the user to see what it runs";
  if (rows.integer(i, 7) != 0) advice = "it waits for a standby: see synchronous_standby_names";
  return {Level::error, "locks", fmt::format("pid {} ({}) {}", pid, who, holds), advice};
}

}  // namespace

std::vector<PostgresFinding> find_lock_holders(PgConnection& connection, milliseconds patience) {
  const auto rows = connection.run(kHolders, std::move(PgParams().integer(patience.count()).integer(kHoldersTold)));
  if (!rows) return {{Level::warning, "locks", std::string(rows.error().detail()), "ask again; see pg_locks and pg_stat_activity"}};
  std::vector<PostgresFinding> found;
  for (std::size_t i = 0; i < rows->size(); ++i) found.push_back(told(*rows, i));
  if (found.empty()) found.push_back({Level::good, "locks", "nobody has waited for one for longer than a moment", ""});
  return found;
}

}  // namespace sluice::store
