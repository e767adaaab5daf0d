#include "store/postgres/purge.hpp"

#include "sluice/base/ids.hpp"
#include "store/postgres/plans.hpp"
#include "store/postgres/row_codec.hpp"

namespace sluice::store {
namespace {

constexpr PgStatement kPurgeKeys{
    "purge_keys",
    "DELETE FROM sluice.keys WHERE id IN (SELECT id FROM sluice.keys k WHERE expires_at <= $1::bigint AND NOT EXISTS "
    "(SELECT 1 FROM sluice.open_exchanges o WHERE o.exchange = k.exchange) ORDER BY expires_at LIMIT $2::bigint "
    "FOR UPDATE SKIP LOCKED)"};
// A journal goes whole: half of one tells less than the truth, or what is not so. Who deletes it holds its first row, so that
// nodes that purge at once take different ones. The list goes as an array, by which rows are found by index.
constexpr PgStatement kPurgeJournals{
    "purge_journals",
    "DELETE FROM sluice.journal WHERE exchange = ANY(ARRAY(SELECT exchange FROM sluice.journal j WHERE exchange < $1::bigint "
    "AND n = (SELECT min(n) FROM sluice.journal f WHERE f.exchange = j.exchange) "
    "AND NOT EXISTS (SELECT 1 FROM sluice.open_exchanges o WHERE o.exchange = j.exchange) ORDER BY exchange "
    "LIMIT $2::bigint FOR UPDATE SKIP LOCKED))"};
constexpr PgStatement kPurgeAudit{
    "purge_audit",
    "DELETE FROM sluice.audit WHERE sequence IN (SELECT sequence FROM sluice.audit WHERE sequence <= "
    "(SELECT min(sequence) + $2::bigint FROM sluice.audit) AND at < $1::bigint ORDER BY sequence LIMIT $2::bigint "
    "FOR UPDATE SKIP LOCKED)"};
// The newest of a namespace stays, as in every store.
constexpr PgStatement kPurgeEvents{
    "purge_events",
    "DELETE FROM sluice.events WHERE (ns, sequence) IN (SELECT e.ns, e.sequence FROM sluice.event_heads h CROSS JOIN LATERAL "
    "(SELECT ns, sequence, at FROM sluice.events x WHERE x.ns = h.ns AND x.sequence < h.last ORDER BY x.sequence "
    "LIMIT $2::bigint) e WHERE e.at < $1::bigint LIMIT $2::bigint)"};
constexpr PgStatement kPurgeWriters{
    "purge_writers", "DELETE FROM sluice.writers WHERE at < sluice.now_ms() - 7 * 86400000::bigint AND expires_at < sluice.now_ms()"};

std::uint64_t affected(const PgRows& rows) {
  const std::string_view tag = rows.tag();
  return std::strtoull(std::string(tag.substr(tag.rfind(' ') + 1)).c_str(), nullptr, 10);
}

}  // namespace

Result<PurgeResult> purge_postgres(PgConnection& connection, WallTime now, milliseconds keep, std::size_t limit) {
  const std::int64_t most = static_cast<std::int64_t>(limit), oldest = stored(now - keep);
  connection.send(kBegin);
  connection.send(kPatient);
  connection.send(kPurgeKeys, std::move(PgParams().integer(stored(now)).integer(most)));
  connection.send(kPurgeJournals,
                  std::move(PgParams().integer(static_cast<std::int64_t>(IdSource::first_at(now - keep))).integer(most)));
  connection.send(kPurgeAudit, std::move(PgParams().integer(oldest).integer(most)));
  connection.send(kPurgeEvents, std::move(PgParams().integer(oldest).integer(most)));
  connection.send(kPurgeWriters);
  connection.send(kCommit);
  SLUICE_ASSIGN(const auto rows, connection.finish());
  PurgeResult result;
  result.keys = affected(rows.at(2));
  result.journal = affected(rows.at(3));
  result.audit = affected(rows.at(4));
  result.events = affected(rows.at(5));
  result.more = result.keys == limit || result.journal >= limit || result.audit == limit || result.events == limit;
  return result;
}

// Read at the ends of indexes, so that opening costs the same at any size. Keys have no index in
// order of time; every id in them is also an exchange's of an audit or journal row, or is recent by
// its expiry.
Result<std::uint64_t> read_largest_id(PgConnection& connection) {
  std::uint64_t largest = 0;
  for (const char* sql :
       {"SELECT max(exchange) FROM sluice.journal", "SELECT max(exchange) FROM sluice.open_exchanges",
        "SELECT max(exchange) FROM (SELECT exchange FROM sluice.audit ORDER BY sequence DESC LIMIT 5000) a",
        "SELECT max(exchange) FROM (SELECT exchange FROM sluice.keys ORDER BY expires_at DESC LIMIT 5000) k",
        "SELECT max(greatest(e.id, e.exchange)) FROM sluice.event_heads h CROSS JOIN LATERAL "
        "(SELECT id, exchange FROM sluice.events x WHERE x.ns = h.ns ORDER BY sequence DESC LIMIT 1000) e"}) {
    SLUICE_ASSIGN(const PgRows rows, connection.run(sql));
    if (!rows.null(0, 0)) largest = std::max(largest, rows.number(0, 0));
  }
  return largest;
}

Status check_postgres_rows(PgConnection& connection) {
  const std::pair<const char*, const char*> checks[] = {
      {"journals with a gap or without their first record",
       "SELECT exchange FROM sluice.journal GROUP BY exchange HAVING min(n) <> 0 OR max(n) + 1 <> count(*) LIMIT 10"},
      {"namespaces whose events have gaps or pass their head",
       "SELECT h.last FROM sluice.event_heads h JOIN sluice.events e USING (ns) GROUP BY h.ns, h.last "
       "HAVING max(e.sequence) <> h.last OR max(e.sequence) - min(e.sequence) + 1 <> count(*) LIMIT 10"},
      {"open exchanges without a journal",
       "SELECT exchange FROM sluice.open_exchanges o WHERE NOT EXISTS (SELECT 1 FROM sluice.journal j WHERE "
       "j.exchange = o.exchange) LIMIT 10"},
      {"keys whose id is not their scope's",
       "SELECT exchange FROM sluice.keys WHERE id <> encode(substring(sha256(scope) FROM 1 FOR 16), 'hex')::uuid LIMIT 10"},
  };
  std::string findings;
  for (const auto& [what, sql] : checks) {
    SLUICE_ASSIGN(const PgRows rows, connection.run(sql));
    if (rows.size() == 0) continue;
    findings += (findings.empty() ? "" : "; ") + std::string(what) + ":";
    for (std::size_t i = 0; i < rows.size(); ++i) findings += " " + std::to_string(rows.integer(i, 0));
  }
  if (findings.empty()) return {};
  return fail(FailureKind::corrupt, "integrity", "checking the database: " + findings +
                                                     "; keep it as it is, restore a backup, see docs/operations.md");
}

}  // namespace sluice::store
