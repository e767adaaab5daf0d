#include "store/postgres/group_writer.hpp"

#include <algorithm>

#include "store/postgres/plans.hpp"
#include "store/postgres/row_codec.hpp"

namespace sluice::store {
namespace {

// A row is found again by where it stood and its version there, and is the one meant when it has the key, too: VACUUM
// FULL and CLUSTER move rows and keep their versions, and rows that one transaction wrote have the same.

// --- Rows that were only read: as they were, and kept so until the group is durable. ---------
constexpr PgStatement kHoldKv{
    "hold_kv",
    "SELECT sluice.expect((SELECT count(*) FROM (SELECT 1 FROM unnest($1::tid[], $2::xid[], $3::bytea[], $4::bytea[], $5::bytea[]) AS d(at, x, ns, c, n) JOIN sluice.kv k "
    "ON k.ctid = d.at AND k.xmin = d.x AND (k.ns, k.collection, k.key) = (d.ns, d.c, d.n) FOR SHARE OF k) s), $6, 'kv rows read')"};
constexpr PgStatement kHoldKeys{
    "hold_keys",
    "SELECT sluice.expect((SELECT count(*) FROM (SELECT 1 FROM unnest($1::tid[], $2::xid[], $3::uuid[]) AS d(at, x, id) JOIN sluice.keys k "
    "ON k.ctid = d.at AND k.xmin = d.x AND k.id = d.id FOR SHARE OF k) s), $4, 'keys read')"};
constexpr PgStatement kHoldLeases{
    "hold_leases",
    "SELECT sluice.expect((SELECT count(*) FROM (SELECT 1 FROM unnest($1::tid[], $2::xid[], $3::bytea[]) AS d(at, x, n) JOIN sluice.leases k "
    "ON k.ctid = d.at AND k.xmin = d.x AND k.name = d.n FOR SHARE OF k) s), $4, 'leases read')"};
constexpr PgStatement kHoldOpen{
    "hold_open",
    "SELECT sluice.expect((SELECT count(*) FROM (SELECT 1 FROM unnest($1::tid[], $2::xid[], $3::bigint[]) AS d(at, x, e) JOIN sluice.open_exchanges k "
    "ON k.ctid = d.at AND k.xmin = d.x AND k.exchange = d.e FOR SHARE OF k) s), $4, 'open exchanges read')"};

// --- Application rows ------------------------------------------------------------------------
constexpr PgStatement kInsertKv{
    "insert_kv",
    "INSERT INTO sluice.kv (ns, collection, key, version, number, value) SELECT * FROM "
    "unnest($1::bytea[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[])"};
constexpr PgStatement kUpdateKv{
    "update_kv",
    "WITH u AS (UPDATE sluice.kv k SET version = d.v, number = d.n, value = d.b FROM "
    "unnest($1::tid[], $2::xid[], $3::bytea[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bytea[]) "
    "AS d(at, x, ns, c, k, v, n, b) WHERE k.ctid = d.at AND k.xmin = d.x AND (k.ns, k.collection, k.key) = (d.ns, d.c, d.k) "
    "RETURNING 1) SELECT sluice.expect((SELECT count(*) FROM u), $9, 'kv rows')"};
constexpr PgStatement kDeleteKv{
    "delete_kv",
    "WITH u AS (DELETE FROM sluice.kv k USING unnest($1::tid[], $2::xid[], $3::bytea[], $4::bytea[], $5::bytea[]) "
    "AS d(at, x, ns, c, k) WHERE k.ctid = d.at AND k.xmin = d.x AND (k.ns, k.collection, k.key) = (d.ns, d.c, d.k) "
    "RETURNING 1) SELECT sluice.expect((SELECT count(*) FROM u), $6, 'kv rows deleted')"};

// --- Keys ------------------------------------------------------------------------------------
constexpr PgStatement kInsertKeys{
    "insert_keys",
    "INSERT INTO sluice.keys (id, scope, exchange, fingerprint, state, token, stored_at, expires_at, reply) "
    "SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bytea[], $5::bigint[], $6::bigint[], "
    "$7::bigint[], $8::bigint[], $9::bytea[])"};
constexpr PgStatement kUpdateKeys{
    "update_keys",
    "WITH u AS (UPDATE sluice.keys k SET exchange = d.e, fingerprint = d.f, state = d.s, token = d.t, stored_at = d.a, expires_at = d.u, reply = d.r FROM "
    "unnest($1::tid[], $2::xid[], $3::uuid[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bytea[]) "
    "AS d(at, x, id, e, f, s, t, a, u, r) WHERE k.ctid = d.at AND k.xmin = d.x AND k.id = d.id RETURNING 1) "
    "SELECT sluice.expect((SELECT count(*) FROM u), $11, 'keys')"};
constexpr PgStatement kDeleteKeys{
    "delete_keys",
    "WITH u AS (DELETE FROM sluice.keys k USING unnest($1::tid[], $2::xid[], $3::uuid[]) AS d(at, x, id) WHERE k.ctid = d.at AND "
    "k.xmin = d.x AND k.id = d.id RETURNING 1) SELECT sluice.expect((SELECT count(*) FROM u), $4, 'keys deleted')"};

// --- Leases, open exchanges --------------------------------------------------------------------
constexpr PgStatement kInsertLeases{
    "insert_leases",
    "INSERT INTO sluice.leases (name, owner, token, incarnation, expires_at) SELECT * FROM "
    "unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bigint[], $5::bigint[])"};
constexpr PgStatement kUpdateLeases{
    "update_leases",
    "WITH u AS (UPDATE sluice.leases k SET owner = d.o, token = d.t, incarnation = d.i, expires_at = d.e FROM "
    "unnest($1::tid[], $2::xid[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bigint[]) AS d(at, x, l, o, t, i, e) "
    "WHERE k.ctid = d.at AND k.xmin = d.x AND k.name = d.l RETURNING 1) SELECT sluice.expect((SELECT count(*) FROM u), $8, 'leases')"};
constexpr PgStatement kInsertOpen{
    "insert_open",
    "INSERT INTO sluice.open_exchanges (exchange, ns, flow, state, since) SELECT * FROM "
    "unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bigint[], $5::bigint[])"};
constexpr PgStatement kUpdateOpen{
    "update_open",
    "WITH u AS (UPDATE sluice.open_exchanges k SET ns = d.n, flow = d.f, state = d.s, since = d.i FROM "
    "unnest($1::tid[], $2::xid[], $3::bigint[], $4::bytea[], $5::bytea[], $6::bigint[], $7::bigint[]) AS d(at, x, e, n, f, s, i) "
    "WHERE k.ctid = d.at AND k.xmin = d.x AND k.exchange = d.e RETURNING 1) SELECT sluice.expect((SELECT count(*) FROM u), $8, 'open exchanges')"};
constexpr PgStatement kDeleteOpen{
    "delete_open",
    "WITH u AS (DELETE FROM sluice.open_exchanges k USING unnest($1::tid[], $2::xid[], $3::bigint[]) AS d(at, x, e) WHERE k.ctid = d.at AND "
    "k.xmin = d.x AND k.exchange = d.e RETURNING 1) SELECT sluice.expect((SELECT count(*) FROM u), $4, 'open exchanges deleted')"};

// --- What only grows ---------------------------------------------------------------------------
constexpr PgStatement kAppendJournal{
    "append_journal",
    "INSERT INTO sluice.journal (exchange, n, record) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])"};
constexpr PgStatement kAppendAudit{
    "append_audit",
    "INSERT INTO sluice.audit (at, ns, principal, command, outcome, exchange, correlation, detail) SELECT * FROM "
    "unnest($1::bigint[], $2::bytea[], $3::bytea[], $4::bytea[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bytea[])"};
// Numbers of one namespace have no gaps, so a node that takes some holds the head until it is durable:
// this statement is the last before COMMIT.
constexpr PgStatement kAppendEvents{
    "append_events",
    "WITH h AS (INSERT INTO sluice.event_heads AS e (ns, last) SELECT * FROM unnest($1::bytea[], $2::bigint[]) "
    "ON CONFLICT (ns) DO UPDATE SET last = e.last + excluded.last RETURNING ns, last), "
    "b AS (SELECT h.ns, h.last - c.n AS base FROM h JOIN unnest($1::bytea[], $2::bigint[]) AS c(ns, n) USING (ns)) "
    "INSERT INTO sluice.events (ns, sequence, id, topic, payload, trace, exchange, depth, at) "
    "SELECT d.ns, b.base + d.s, d.id, d.topic, d.payload, d.trace, d.exchange, d.depth, d.at FROM "
    "unnest($3::bytea[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[], $9::bigint[], "
    "$10::bigint[], $11::bigint[]) AS d(ns, s, id, topic, payload, trace, exchange, depth, at) JOIN b USING (ns)"};

class Sender {
 public:
  Sender(PgConnection& connection, PgLoader& read, bool alone) : connection_(connection), read_(read) {
    ask(alone ? kByPlaceAlone : kByPlace, PgParams());
  }
  std::size_t sent() const noexcept { return sent_; }

  void held() {
    std::vector<PgLoader::LoadedKv*> kv;
    for (auto& e : read_.kv().entries())
      if (only_read(e.slot)) kv.push_back(&e.slot);
    std::ranges::sort(kv, {}, [](const auto* s) -> const KvKey& { return s->key; });
    if (!kv.empty()) {
      PgParams params = seen(kv, version);
      ask(kHoldKv, kv_keys(params, kv, [](const auto* s) -> const KvKey& { return s->key; }).integer(std::ssize(kv)));
    }
    std::vector<PgLoader::LoadedKey*> keys;
    for (auto& e : read_.keys().entries())
      if (only_read(e.slot)) keys.push_back(&e.slot);
    std::ranges::sort(keys, {}, [](const auto* s) { return s->id.view(); });
    if (!keys.empty()) ask(kHoldKeys, seen(keys, version).uuids(keys, [](const auto* s) { return s->id.view(); }).integer(std::ssize(keys)));
    std::vector<Overlay<PgLoader::Loaded<LeaseRow>>::Entry*> leases;
    for (auto& e : read_.leases().entries())
      if (only_read(e.slot)) leases.push_back(&e);
    std::ranges::sort(leases, {}, [](const auto* e) -> const Bytes& { return e->name; });
    if (!leases.empty())
      ask(kHoldLeases, seen(leases, [](auto* e) { return e->slot.version; })
                           .byte_arrays(leases, [](auto* e) { return ByteView(e->name); }).integer(std::ssize(leases)));
    std::vector<std::pair<std::uint64_t, PgVersion>> open;
    for (auto& [exchange, slot] : read_.open())
      if (only_read(slot)) open.emplace_back(exchange, slot.version);
    if (!open.empty())
      ask(kHoldOpen, seen(open, [](auto& o) { return o.second; }).integers(open, [](auto& o) { return stored(o.first); })
                         .integer(std::ssize(open)));
  }

  void kv(const std::vector<GroupWrites::Kv>& all) {
    struct Write {
      const GroupWrites::Kv* w;
      PgVersion version;
    };
    std::vector<Write> inserts, updates, deletes;
    Bytes name;
    for (const auto& w : all) {
      PgLoader::name_of(name, *w.key);
      const auto& slot = read_.kv().find(name)->slot;
      (w.row == nullptr ? deletes : slot.row ? updates : inserts).push_back({&w, slot.version});
    }
    const auto key = [](auto& w) -> const KvKey& { return *w.w->key; };
    const auto was = [](auto& w) { return w.version; };
    const auto version_of = [](auto& w) { return stored(w.w->row->version); };
    const auto number = [](auto& w) { return w.w->row->number; };
    const auto value = [](auto& w) { return ByteView(w.w->row->value); };
    for (auto* some : {&updates, &deletes, &inserts})
      std::ranges::sort(*some, {}, [](const Write& w) -> const KvKey& { return *w.w->key; });
    const auto rest = [&](PgParams& params, const std::vector<Write>& some) -> PgParams& {
      return kv_keys(params, some, key).integers(some, version_of).integers(some, number).byte_arrays(some, value);
    };
    if (!updates.empty()) {
      PgParams params = seen(updates, was);
      ask(kUpdateKv, rest(params, updates).integer(std::ssize(updates)));
    }
    if (!deletes.empty()) {
      PgParams params = seen(deletes, was);
      ask(kDeleteKv, kv_keys(params, deletes, key).integer(std::ssize(deletes)));
    }
    if (!inserts.empty()) {
      PgParams params;
      ask(kInsertKv, rest(params, inserts));
    }
  }

  void keys(const std::vector<GroupWrites::Key>& all) {
    struct Write {
      const GroupWrites::Key* w;
      const PgLoader::LoadedKey* was;
    };
    std::vector<Write> inserts, updates, deletes;
    for (const auto& w : all) {
      const auto& slot = read_.keys().find(*w.scope)->slot;
      (w.row == nullptr ? deletes : slot.row ? updates : inserts).push_back({&w, &slot});
    }
    for (auto* some : {&updates, &deletes, &inserts})
      std::ranges::sort(*some, {}, [](const Write& w) { return w.was->id.view(); });
    const auto id = [](auto& w) { return w.was->id.view(); };
    const auto was = [](auto& w) { return w.was->version; };
    const auto rest = [&](PgParams& params, const std::vector<Write>& some) -> PgParams& {
      return params.integers(some, [](auto& w) { return stored(w.w->row->exchange.value); })
          .byte_arrays(some, [](auto& w) { return w.w->row->fingerprint.view(); })
          .integers(some, [](auto& w) { return static_cast<std::int64_t>(w.w->row->state); })
          .integers(some, [](auto& w) { return stored(w.w->row->token); })
          .integers(some, [](auto& w) { return stored(w.w->row->stored_at); })
          .integers(some, [](auto& w) { return stored(w.w->row->expires_at); })
          .byte_arrays(some, [](auto& w) { return ByteView(w.w->row->reply); });
    };
    if (!updates.empty()) {
      PgParams params = seen(updates, was);
      ask(kUpdateKeys, rest(params.uuids(updates, id), updates).integer(std::ssize(updates)));
    }
    if (!deletes.empty())
      ask(kDeleteKeys, seen(deletes, was).uuids(deletes, id).integer(std::ssize(deletes)));
    if (!inserts.empty()) {
      PgParams params;
      params.uuids(inserts, id).byte_arrays(inserts, [](auto& w) { return ByteView(*w.w->scope); });
      ask(kInsertKeys, rest(params, inserts));
    }
  }

  void leases(const std::vector<GroupWrites::Lease>& all) {
    struct Write {
      const LeaseRow* row;
      PgVersion version;
    };
    std::vector<Write> inserts, updates;
    for (const auto& w : all) {
      const auto& slot = read_.leases().find(*w.name)->slot;
      (slot.row ? updates : inserts).push_back({w.row, slot.version});
    }
    for (auto* some : {&updates, &inserts})
      std::ranges::sort(*some, {}, [](const Write& w) -> const std::string& { return w.row->name; });
    const auto name = [](auto& w) { return ByteView(w.row->name); };
    const auto rest = [&](PgParams& params, const std::vector<Write>& some) -> PgParams& {
      return params.byte_arrays(some, [](auto& w) { return ByteView(w.row->owner); })
          .integers(some, [](auto& w) { return stored(w.row->token); })
          .integers(some, [](auto& w) { return stored(w.row->incarnation); })
          .integers(some, [](auto& w) { return stored(w.row->expires_at); });
    };
    if (!updates.empty()) {
      PgParams params = seen(updates, [](auto& w) { return w.version; });
      ask(kUpdateLeases, rest(params.byte_arrays(updates, name), updates).integer(std::ssize(updates)));
    }
    if (!inserts.empty()) {
      PgParams params;
      params.byte_arrays(inserts, name);
      ask(kInsertLeases, rest(params, inserts));
    }
  }

  void open(const std::vector<GroupWrites::Open>& all) {  // sorted by the evaluator
    struct Write {
      const GroupWrites::Open* w;
      PgVersion version;
    };
    std::vector<Write> inserts, updates, deletes;
    for (const auto& w : all) {
      const auto& slot = read_.open().at(w.exchange.value);
      (w.row == nullptr ? deletes : slot.row ? updates : inserts).push_back({&w, slot.version});
    }
    const auto id = [](auto& w) { return stored(w.w->exchange.value); };
    const auto was = [](auto& w) { return w.version; };
    const auto rest = [&](PgParams& params, const std::vector<Write>& some) -> PgParams& {
      return params.byte_arrays(some, [](auto& w) { return ByteView(w.w->row->ns); })
          .byte_arrays(some, [](auto& w) { return ByteView(w.w->row->flow); })
          .integers(some, [](auto& w) { return static_cast<std::int64_t>(w.w->row->state); })
          .integers(some, [](auto& w) { return stored(w.w->row->since); });
    };
    if (!updates.empty()) {
      PgParams params = seen(updates, was);
      ask(kUpdateOpen, rest(params.integers(updates, id), updates).integer(std::ssize(updates)));
    }
    if (!deletes.empty())
      ask(kDeleteOpen, seen(deletes, was).integers(deletes, id).integer(std::ssize(deletes)));
    if (!inserts.empty()) {
      PgParams params;
      params.integers(inserts, id);
      ask(kInsertOpen, rest(params, inserts));
    }
  }

  void journal(const std::vector<const JournalRow*>& rows) {
    if (rows.empty()) return;
    ask(kAppendJournal, PgParams()
                            .integers(rows, [](auto* r) { return stored(r->exchange.value); })
                            .integers(rows, [](auto* r) { return static_cast<std::int64_t>(r->n); })
                            .byte_arrays(rows, [](auto* r) { return ByteView(r->record); }));
  }

  void audit(const std::vector<AuditRow*>& rows) {
    if (rows.empty()) return;
    ask(kAppendAudit, PgParams()
                          .integers(rows, [](auto* r) { return stored(r->at); })
                          .byte_arrays(rows, [](auto* r) { return ByteView(r->ns); })
                          .byte_arrays(rows, [](auto* r) { return ByteView(r->principal); })
                          .byte_arrays(rows, [](auto* r) { return ByteView(r->command); })
                          .integers(rows, [](auto* r) { return static_cast<std::int64_t>(r->outcome); })
                          .integers(rows, [](auto* r) { return stored(r->exchange.value); })
                          .byte_arrays(rows, [](auto* r) { return ByteView(r->correlation); })
                          .byte_arrays(rows, [](auto* r) { return ByteView(r->detail); }));
  }

  void events(const std::vector<const EventRow*>& rows) {
    if (rows.empty()) return;
    std::map<std::string_view, std::int64_t> heads;  // in order: namespaces are locked in it
    for (const auto* row : rows) ++heads[row->ns];
    ask(kAppendEvents, PgParams()
                           .byte_arrays(heads, [](auto& h) { return h.first; })
                           .integers(heads, [](auto& h) { return h.second; })
                           .byte_arrays(rows, [](auto* r) { return ByteView(r->ns); })
                           .integers(rows, [](auto* r) { return stored(r->sequence); })
                           .integers(rows, [](auto* r) { return stored(r->id.value); })
                           .byte_arrays(rows, [](auto* r) { return ByteView(r->topic); })
                           .byte_arrays(rows, [](auto* r) { return ByteView(r->payload); })
                           .byte_arrays(rows, [](auto* r) { return ByteView(r->trace); })
                           .integers(rows, [](auto* r) { return stored(r->exchange.value); })
                           .integers(rows, [](auto* r) { return static_cast<std::int64_t>(r->depth); })
                           .integers(rows, [](auto* r) { return stored(r->at); }));
  }

 private:
  template <class Slot>
  static bool only_read(const Slot& slot) {
    return slot.used && slot.row && !slot.written;
  }
  static constexpr auto version = [](const auto* slot) { return slot->version; };
  template <class Range, class Get>
  static PgParams& kv_keys(PgParams& params, const Range& range, Get get) {
    return params.byte_arrays(range, [&](auto& one) { return ByteView(get(one).ns); })
        .byte_arrays(range, [&](auto& one) { return ByteView(get(one).collection); })
        .byte_arrays(range, [&](auto& one) { return ByteView(get(one).key); });
  }
  /// The first two parameters of what finds rows again; their keys follow.
  template <class Range, class Get>
  PgParams seen(const Range& range, Get get) {
    PgParams params;
    params.tids(range, [&](auto& one) { return get(one).at; }).xids(range, [&](auto& one) { return get(one).xmin; });
    return params;
  }
  void ask(const PgStatement& statement, PgParams& params) {
    connection_.send(statement, std::move(params));
    ++sent_;
  }
  void ask(const PgStatement& statement, PgParams&& params) { ask(statement, params); }

  PgConnection& connection_;
  PgLoader& read_;
  std::size_t sent_ = 0;
};

}  // namespace

std::size_t send_group_writes(PgConnection& connection, const GroupWrites& writes, PgLoader& read, bool alone) {
  Sender sender(connection, read, alone);
  if (!alone) sender.held();
  sender.leases(writes.leases);
  sender.kv(writes.kv);
  sender.keys(writes.keys);
  sender.open(writes.open);
  sender.journal(writes.journal);
  sender.audit(writes.audit);
  sender.events(writes.events);
  return sender.sent();
}

}  // namespace sluice::store
