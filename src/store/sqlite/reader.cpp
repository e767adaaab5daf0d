#include "store/sqlite/reader.hpp"

#include "store/sqlite/row_codec.hpp"

namespace sluice::store {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

// Collects every row of a bound statement.
template <class Rows, class Read>
Result<Answer> collect(Statement& statement, Read read) {
  Rows rows;
  while (true) {
    SLUICE_ASSIGN(const bool row, statement.step());
    if (!row) return Answer(std::move(rows));
    rows.push_back(read(statement));
  }
}

std::int64_t limit_of(std::size_t limit) { return static_cast<std::int64_t>(limit); }

EventRow read_event(const Statement& s) {
  EventRow row;
  row.ns = s.bytes(0);
  row.sequence = static_cast<std::uint64_t>(s.integer(1));
  row.id = {static_cast<std::uint64_t>(s.integer(2))};
  row.topic = s.bytes(3);
  row.payload = s.bytes(4);
  row.trace = s.bytes(5);
  row.exchange = {static_cast<std::uint64_t>(s.integer(6))};
  row.depth = static_cast<std::uint32_t>(s.integer(7));
  row.at = s.time(8);
  return row;
}

AuditRow read_audit(const Statement& s) {
  AuditRow row;
  row.sequence = static_cast<std::uint64_t>(s.integer(0));
  row.at = s.time(1);
  row.ns = s.bytes(2);
  row.principal = s.bytes(3);
  row.command = s.bytes(4);
  row.outcome = static_cast<AuditOutcome>(s.integer(5));
  row.exchange = {static_cast<std::uint64_t>(s.integer(6))};
  row.correlation = s.bytes(7);
  row.detail = s.bytes(8);
  return row;
}

}  // namespace

Result<std::unique_ptr<SqliteReader>> SqliteReader::over(sqlite3* handle, const KeyIndex& index) {
  std::unique_ptr<SqliteReader> reader(new SqliteReader(index));
  SLUICE_TRY(reader->prepare(handle));
  return reader;
}

Result<std::unique_ptr<SqliteReader>> SqliteReader::open(Database handle, const KeyIndex& index) {
  SLUICE_ASSIGN(auto reader, over(handle.get(), index));
  reader->owned_ = std::move(handle);
  return reader;
}

Status SqliteReader::prepare(sqlite3* handle) {
  const struct {
    Statement* statement;
    const char* sql;
  } all[] = {
      {&begin_, "SAVEPOINT reading"},
      {&end_, "RELEASE reading"},
      {&get_kv_, "SELECT version, number, value FROM kv WHERE ns=?1 AND collection=?2 AND key=?3"},
      {&list_kv_,
       "SELECT key, version, number, value FROM kv WHERE ns=?1 AND collection=?2 AND key>=?3 AND "
       "key>?4 ORDER BY key LIMIT ?5"},
      {&get_key_,
       "SELECT exchange, scope, fingerprint, state, token, stored_at, expires_at, reply FROM keys "
       "WHERE seq=?1"},
      {&read_journal_, "SELECT exchange, n, record FROM journal WHERE exchange=?1 ORDER BY n"},
      {&list_journal_,
       "SELECT exchange, n, record FROM journal WHERE exchange<?1 AND n=0 ORDER BY exchange DESC "
       "LIMIT ?2"},
      {&list_open_,
       "SELECT exchange, ns, flow, state, since FROM open_exchanges WHERE exchange>?1 AND (?2=0 OR "
       "state=?2) ORDER BY exchange LIMIT ?3"},
      {&list_events_,
       "SELECT ns, sequence, id, topic, payload, trace, exchange, depth, at FROM events WHERE ns=?1 "
       "AND sequence>?2 ORDER BY sequence LIMIT ?3"},
      {&list_audit_,
       "SELECT sequence, at, ns, principal, command, outcome, exchange, correlation, detail FROM "
       "audit WHERE sequence<?1 ORDER BY sequence DESC LIMIT ?2"},
      {&get_lease_, "SELECT name, owner, token, incarnation, expires_at FROM leases WHERE name=?1"},
  };
  for (const auto& [statement, sql] : all) {
    SLUICE_ASSIGN(*statement, Statement::prepare(handle, sql));
  }
  return {};
}

Result<Answer> SqliteReader::get_rows(const GetRows& q) {
  GetRows::Answer rows;
  // Several rows are read inside one transaction, so that they are one snapshot.
  if (q.keys.size() > 1) SLUICE_TRY(begin_.run());
  for (const auto& key : q.keys) {
    get_kv_.bind_text(1, key.ns).bind_text(2, key.collection).bind_text(3, key.key);
    const auto row = get_kv_.step();
    if (!row) {
      if (q.keys.size() > 1) (void)end_.run();
      return fail(row.error());
    }
    rows.push_back(*row ? std::optional(read_kv(get_kv_)) : std::nullopt);
    get_kv_.reset();
  }
  if (q.keys.size() > 1) SLUICE_TRY(end_.run());
  return Answer(std::move(rows));
}

Result<Answer> SqliteReader::list_rows(const ListRows& q) {
  ListRows::Answer rows;
  list_kv_.bind_text(1, q.ns).bind_text(2, q.collection).bind_text(3, q.prefix).bind_text(4, q.after);
  list_kv_.bind(5, limit_of(q.limit));
  while (true) {
    SLUICE_ASSIGN(const bool row, list_kv_.step());
    if (!row) break;
    if (!list_kv_.view(0).starts_with(q.prefix)) {
      list_kv_.reset();
      break;
    }
    rows.push_back({{q.ns, q.collection, list_kv_.bytes(0)}, read_kv(list_kv_, 1)});
  }
  return Answer(std::move(rows));
}

Result<Answer> SqliteReader::find_key(const FindKey& q, WallTime now) {
  index_.find(KeyIndex::hash_of(q.scope), candidates_);
  for (const std::uint64_t seq : candidates_) {
    get_key_.bind(1, stored(seq));
    SLUICE_ASSIGN(const bool row, get_key_.step());
    if (!row) continue;
    std::optional<KeyRow> found;
    if (get_key_.view(1) == q.scope) found = read_key(get_key_);
    get_key_.reset();
    if (!found) continue;
    if (found->expires_at <= now) found.reset();
    return Answer(std::move(found));
  }
  return Answer(FindKey::Answer{});
}

Result<Answer> SqliteReader::journal(Statement& statement) {
  return collect<ReadJournal::Answer>(statement, read_journal);
}

Result<Answer> SqliteReader::list_open(const ListOpen& q) {
  list_open_.bind(1, stored(q.after.value)).bind(2, q.state ? static_cast<std::int64_t>(*q.state) : 0);
  list_open_.bind(3, limit_of(q.limit));
  return collect<ListOpen::Answer>(list_open_, read_open);
}

Result<Answer> SqliteReader::list_events(const ListEvents& q) {
  list_events_.bind_text(1, q.ns).bind(2, stored(q.after)).bind(3, limit_of(q.limit));
  return collect<ListEvents::Answer>(list_events_, read_event);
}

Result<Answer> SqliteReader::list_audit(const ListAudit& q) {
  list_audit_.bind(1, q.before == 0 ? INT64_MAX : stored(q.before)).bind(2, limit_of(q.limit));
  return collect<ListAudit::Answer>(list_audit_, read_audit);
}

Result<Answer> SqliteReader::get_lease(const GetLease& q) {
  get_lease_.bind_text(1, q.name);
  SLUICE_ASSIGN(const bool row, get_lease_.step());
  if (!row) return Answer(GetLease::Answer{});
  GetLease::Answer found = read_lease(get_lease_);
  get_lease_.reset();
  return Answer(std::move(found));
}

Result<Answer> SqliteReader::answer(const Query& query, WallTime now) {
  return std::visit(
      Overloaded{
          [&](const GetRows& q) { return get_rows(q); },
          [&](const ListRows& q) { return list_rows(q); },
          [&](const FindKey& q) { return find_key(q, now); },
          [&](const ReadJournal& q) { return journal(read_journal_.bind(1, stored(q.exchange.value))); },
          [&](const ListJournal& q) {
            list_journal_.bind(1, q.before ? stored(q.before.value) : INT64_MAX).bind(2, limit_of(q.limit));
            return journal(list_journal_);
          },
          [&](const ListOpen& q) { return list_open(q); },
          [&](const ListEvents& q) { return list_events(q); },
          [&](const ListAudit& q) { return list_audit(q); },
          [&](const GetLease& q) { return get_lease(q); },
      },
      query);
}

}  // namespace sluice::store
