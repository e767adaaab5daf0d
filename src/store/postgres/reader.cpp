#include "store/postgres/reader.hpp"

#include "store/postgres/failures.hpp"
#include "store/postgres/plans.hpp"
#include "store/postgres/row_codec.hpp"

namespace sluice::store {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

constexpr PgStatement kGetRows{
    "get_rows",
    "SELECT d.o, k.* FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS d(ns, c, k, o) CROSS JOIN LATERAL "
    "(SELECT t.version, t.number, t.value FROM sluice.kv t WHERE t.ns = d.ns AND t.collection = d.c AND t.key = d.k OFFSET 0) k"};
constexpr PgStatement kListRows{
    "list_rows",
    "SELECT key, version, number, value FROM sluice.kv WHERE ns = $1::bytea AND collection = $2::bytea AND key >= $3::bytea "
    "AND key > $4::bytea AND substring(key FROM 1 FOR length($3::bytea)) = $3::bytea ORDER BY key LIMIT $5::bigint"};
constexpr PgStatement kListAllRows{
    "list_all_rows",
    "SELECT key, version, number, value FROM sluice.kv WHERE ns = $1::bytea AND collection = $2::bytea AND key > $3::bytea "
    "ORDER BY key LIMIT $4::bigint"};
constexpr PgStatement kFirstRows{
    "first_rows",
    "SELECT key, version, number, value FROM sluice.kv WHERE ns = $1::bytea AND collection = $2::bytea ORDER BY key LIMIT $3::bigint"};
constexpr PgStatement kFindKey{
    "find_key",
    "SELECT exchange, scope, fingerprint, state, token, stored_at, expires_at, reply FROM sluice.keys WHERE id = $1::uuid"};
constexpr PgStatement kReadJournal{
    "read_journal", "SELECT exchange, n, record FROM sluice.journal WHERE exchange = $1::bigint ORDER BY n"};
constexpr PgStatement kListJournal{
    "list_journal",
    "SELECT exchange, n, record FROM sluice.journal WHERE exchange < $1::bigint AND n = 0 ORDER BY exchange DESC LIMIT $2::bigint"};
constexpr PgStatement kListOpen{
    "list_open",
    "SELECT exchange, ns, flow, state, since FROM sluice.open_exchanges WHERE exchange > $1::bigint AND "
    "($2::bigint = 0 OR state = $2::bigint) ORDER BY exchange LIMIT $3::bigint"};
constexpr PgStatement kListEvents{
    "list_events",
    "SELECT ns, sequence, id, topic, payload, trace, exchange, depth, at FROM sluice.events WHERE ns = $1::bytea AND "
    "sequence > $2::bigint ORDER BY sequence LIMIT $3::bigint"};
constexpr PgStatement kListAudit{
    "list_audit",
    "SELECT sequence, at, ns, principal, command, outcome, exchange, correlation, detail FROM sluice.audit "
    "WHERE sequence < $1::bigint ORDER BY sequence DESC LIMIT $2::bigint"};
constexpr PgStatement kGetLease{
    "get_lease", "SELECT name, owner, token, incarnation, expires_at FROM sluice.leases WHERE name = $1::bytea"};

std::int64_t limit_of(std::size_t limit) {
  return static_cast<std::int64_t>(std::min<std::size_t>(limit, INT64_MAX));
}

template <class Rows, class Read>
Answer collect(const PgRows& rows, Read read) {
  Rows all;
  all.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) all.push_back(read(i));
  return Answer(std::move(all));
}

}  // namespace

void PgReader::ask(const Query& query) {
  const auto send = [this](const PgStatement& statement, PgParams& params) { connection_->send(statement, std::move(params)); };
  PgParams p;
  std::visit(
      Overloaded{
          [&](const GetRows& q) {
            send(kGetRows, p.byte_arrays(q.keys, [](const KvKey& k) { return ByteView(k.ns); })
                               .byte_arrays(q.keys, [](const KvKey& k) { return ByteView(k.collection); })
                               .byte_arrays(q.keys, [](const KvKey& k) { return ByteView(k.key); }));
          },
          [&](const ListRows& q) {
            p.bytes(q.ns).bytes(q.collection);
            if (q.prefix.empty() && q.after.empty())
              send(kFirstRows, p.integer(limit_of(q.limit)));
            else if (q.prefix.empty())
              send(kListAllRows, p.bytes(q.after).integer(limit_of(q.limit)));
            else
              send(kListRows, p.bytes(q.prefix).bytes(q.after).integer(limit_of(q.limit)));
          },
          [&](const FindKey& q) { send(kFindKey, p.uuid(KeyId::of(q.scope).view())); },
          [&](const ReadJournal& q) { send(kReadJournal, p.integer(stored(q.exchange.value))); },
          [&](const ListJournal& q) {
            send(kListJournal, p.integer(q.before ? stored(q.before.value) : INT64_MAX).integer(limit_of(q.limit)));
          },
          [&](const ListOpen& q) {
            send(kListOpen, p.integer(stored(q.after.value)).integer(q.state ? static_cast<std::int64_t>(*q.state) : 0).integer(limit_of(q.limit)));
          },
          [&](const ListEvents& q) { send(kListEvents, p.bytes(q.ns).integer(stored(q.after)).integer(limit_of(q.limit))); },
          [&](const ListAudit& q) {
            send(kListAudit, p.integer(q.before == 0 ? INT64_MAX : stored(q.before)).integer(limit_of(q.limit)));
          },
          [&](const GetLease& q) { send(kGetLease, p.bytes(q.name)); },
      },
      query);
}

Result<Answer> PgReader::read(const Query& query, const PgRows& rows) {
  const auto journal = [&](std::size_t i) { return read_journal(rows, i); };
  return std::visit(
      Overloaded{
          [&](const GetRows& q) -> Result<Answer> {
            GetRows::Answer found(q.keys.size());
            for (std::size_t i = 0; i < rows.size(); ++i) found.at(rows.number(i, 0) - 1) = read_kv(rows, i, 1);
            return Answer(std::move(found));
          },
          [&](const ListRows& q) -> Result<Answer> {
            return collect<ListRows::Answer>(rows, [&](std::size_t i) {
              return ListRows::Item{{q.ns, q.collection, rows.bytes(i, 0)}, read_kv(rows, i, 1)};
            });
          },
          [&](const FindKey& q) -> Result<Answer> {
            FindKey::Answer found;
            if (rows.size() != 0) found = read_key(rows, 0, 0);
            if (found && (found->expires_at <= store_clock_.now() || found->scope != q.scope)) found.reset();
            return Answer(std::move(found));
          },
          [&](const ReadJournal&) -> Result<Answer> { return collect<ReadJournal::Answer>(rows, journal); },
          [&](const ListJournal&) -> Result<Answer> { return collect<ListJournal::Answer>(rows, journal); },
          [&](const ListOpen&) -> Result<Answer> {
            return collect<ListOpen::Answer>(rows, [&](std::size_t i) { return read_open(rows, i, 0); });
          },
          [&](const ListEvents&) -> Result<Answer> {
            return collect<ListEvents::Answer>(rows, [&](std::size_t i) {
              return EventRow{{rows.number(i, 2)}, rows.bytes(i, 0), rows.number(i, 1), rows.bytes(i, 3), rows.bytes(i, 4),
                              rows.bytes(i, 5), {rows.number(i, 6)}, static_cast<std::uint32_t>(rows.integer(i, 7)), rows.time(i, 8)};
            });
          },
          [&](const ListAudit&) -> Result<Answer> {
            return collect<ListAudit::Answer>(rows, [&](std::size_t i) {
              return AuditRow{rows.number(i, 0), rows.time(i, 1), rows.bytes(i, 2), rows.bytes(i, 3), rows.bytes(i, 4),
                              static_cast<AuditOutcome>(rows.integer(i, 5)), {rows.number(i, 6)}, rows.bytes(i, 7), rows.bytes(i, 8)};
            });
          },
          [&](const GetLease&) -> Result<Answer> {
            GetLease::Answer found;
            if (rows.size() != 0) found = read_lease(rows, 0, 0);
            return Answer(std::move(found));
          },
      },
      query);
}

void PgReader::answer_one(PendingQuery& pending) noexcept {
  if (pending.lane != nullptr)
    pending.lane->post(pending);
  else
    pending.run(&pending);
}

Status PgReader::connect() {
  if (connection_ && !connection_->broken()) return {};
  connection_.reset();
  // A server that was not there a moment ago is not asked again for every query.
  if (failed_ && clock_.now() < failed_at_ + kReconnectEvery) return fail(*failed_);
  auto opened = PgConnection::open(options_);
  if (!opened) {
    failed_ = opened.error();
    failed_at_ = clock_.now();
    return fail(*failed_);
  }
  // A primary that crashed may show what its standby does not have, and a failover would take back. This
  // commit waits for the standby, and so for all that was written before it.
  if (auto all_kept = (*opened)->transact("SELECT pg_logical_emit_message(true, 'sluice', 'reading')"); !all_kept) {
    if ((*opened)->broken()) (*opened)->end_wait(options_);
    failed_ = all_kept.error();
    failed_at_ = clock_.now();
    return fail(*failed_);
  }
  connection_ = std::move(*opened);
  failed_.reset();
  return {};
}

Status PgReader::answer(std::vector<PendingQuery*>& batch) {
  SLUICE_TRY(connect());
  connection_->send(kByIndex);
  for (const auto* pending : batch) ask(pending->query);
  SLUICE_ASSIGN(const auto rows, connection_->finish());
  for (std::size_t i = 0; i < batch.size(); ++i) batch[i]->answer = read(batch[i]->query, rows.at(i + 1));
  return {};
}

// The writer may go on meanwhile, and would not know that nothing can be read.
void PgReader::refuse(PendingQuery& pending, const Failure& why) {
  if (PgGroupCommit::outlives_a_heartbeat(why)) health_.note(why);
  pending.answer = fail(why);
}

Instant PgReader::step() noexcept {
  auto batch = queue_.take(kMaxBatch);
  if (batch.empty()) return kNever;
  Status done = answer(batch);
  // Reading changes nothing, so a connection that had died meanwhile is no reason to fail.
  if (!done && connection_ && connection_->broken()) done = answer(batch);
  if (!done && batch.size() > 1 && connection_ && !connection_->broken() && connection_->sqlstate() != kLockNotFree) {
    // One query's failure ends its batch: the others are asked apart, but for those that would wait for a table one after
    // the other.
    for (auto* pending : batch) {
      std::vector<PendingQuery*> one{pending};
      if (auto asked = answer(one); !asked) refuse(*pending, asked.error());
    }
  } else if (!done) {
    for (auto* pending : batch) refuse(*pending, done.error());
  }
  for (auto* pending : batch) answer_one(*pending);
  return Instant::min();
}

}  // namespace sluice::store
