#include "store/postgres/loader.hpp"

#include <algorithm>

#include "store/postgres/plans.hpp"
#include "store/postgres/row_codec.hpp"

namespace sluice::store {
namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

constexpr PgStatement kLoadKv{
    "load_kv",
    "SELECT d.o, k.* FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) WITH ORDINALITY AS d(ns, c, k, o) CROSS JOIN LATERAL "
    "(SELECT t.ctid, t.xmin, t.version, t.number, t.value FROM sluice.kv t WHERE t.ns = d.ns AND t.collection = d.c AND "
    "t.key = d.k OFFSET 0) k"};
constexpr PgStatement kLoadKeys{
    "load_keys",
    "SELECT d.o, k.* FROM unnest($1::uuid[]) WITH ORDINALITY AS d(id, o) CROSS JOIN LATERAL "
    "(SELECT t.ctid, t.xmin, t.exchange, t.scope, t.fingerprint, t.state, t.token, t.stored_at, t.expires_at, t.reply "
    "FROM sluice.keys t WHERE t.id = d.id OFFSET 0) k"};
constexpr PgStatement kLoadLeases{
    "load_leases",
    "SELECT d.o, k.* FROM unnest($1::bytea[]) WITH ORDINALITY AS d(name, o) CROSS JOIN LATERAL "
    "(SELECT t.ctid, t.xmin, t.name, t.owner, t.token, t.incarnation, t.expires_at FROM sluice.leases t "
    "WHERE t.name = d.name OFFSET 0) k"};
constexpr PgStatement kLoadOpen{
    "load_open",
    "SELECT d.o, k.* FROM unnest($1::bigint[]) WITH ORDINALITY AS d(exchange, o) CROSS JOIN LATERAL "
    "(SELECT t.ctid, t.xmin, t.exchange, t.ns, t.flow, t.state, t.since FROM sluice.open_exchanges t "
    "WHERE t.exchange = d.exchange OFFSET 0) k"};
constexpr PgStatement kLoadJournal{
    "load_journal",
    "SELECT d.o, (SELECT max(n) + 1 FROM sluice.journal j WHERE j.exchange = d.exchange) "
    "FROM unnest($1::bigint[]) WITH ORDINALITY AS d(exchange, o)"};

}  // namespace

KeyId KeyId::of(ByteView scope) noexcept {
  const Digest digest = sha256(scope);
  KeyId id;
  std::memcpy(id.bytes, digest.bytes, sizeof id.bytes);
  return id;
}

void PgLoader::name_of(Bytes& out, const KvKey& key) {
  out.clear();
  ByteWriter writer(out);
  writer.bytes(key.ns);
  writer.bytes(key.collection);
  writer.raw(key.key);
}

void PgLoader::begin(PgConnection& connection, bool careful) {
  connection_ = &connection;
  careful_ = careful;
  failure_.reset();
  kv_.clear();
  keys_.clear();
  leases_.clear();
  open_.clear();
  journal_.clear();
}

void PgLoader::want(const KvKey& key) {
  name_of(name_, key);
  if (kv_.find(name_) == nullptr) kv_.add(name_).slot.key = key;
}
void PgLoader::want(const Bytes& scope) {
  if (keys_.find(scope) == nullptr) keys_.add(scope).slot.id = KeyId::of(scope);
}
void PgLoader::want_lease(const std::string& name) {
  if (leases_.find(name) == nullptr) leases_.add(name);
}

void PgLoader::foresee(const Commit& commit) {
  for (const auto& requirement : commit.requires_)
    std::visit(Overloaded{
                   [&](const KvVersionIs& c) { want(c.key); },
                   [&](const KvAtLeast& c) { want(c.key); },
                   [&](const KvAtMost& c) { want(c.key); },
                   [&](const KvExists& c) { want(c.key); },
                   [&](const KeyFree& c) { want(c.scope); },
                   [&](const KeyFits& c) { want(c.scope); },
                   [&](const KeyHeldBy& c) { want(c.scope); },
                   [&](const Fence& c) { want_lease(c.lease); },
                   [&](const LeaseFree& c) { want_lease(c.lease); },
                   [&](const JournalAt& c) { journal_[c.exchange.value].known = false; },
               },
               requirement.what);
  foresee(commit.then);
  for (const auto& branch : commit.otherwise) foresee(branch);
}

void PgLoader::foresee(const std::vector<Mutation>& mutations) {
  for (const auto& mutation : mutations)
    std::visit(Overloaded{
                   [&](const KvPut& m) { want(m.key); },
                   [&](const KvDelete& m) { want(m.key); },
                   [&](const KvAdd& m) { want(m.key); },
                   [&](const KeyPut& m) { want(m.row.scope); },
                   [&](const KeyDelete& m) { want(m.scope); },
                   [&](const JournalAppend& m) {
                     const auto [at, fresh] = journal_.try_emplace(m.row.exchange.value);
                     // A new journal's first record: if it is not new, the insert finds out.
                     if (fresh) at->second.known = m.row.n == 0 && !careful_;
                   },
                   [&](const OpenPut& m) { open_.try_emplace(m.row.exchange.value); },
                   [&](const OpenDelete& m) { open_.try_emplace(m.exchange.value); },
                   [&](const LeaseTake& m) { want_lease(m.lease); },
                   [&](const LeaseDrop& m) { want_lease(m.lease); },
                   [](const auto&) {},
               },
               mutation);
}

std::size_t PgLoader::send() {
  sent_kv_.clear();
  sent_keys_.clear();
  sent_leases_.clear();
  sent_open_.clear();
  sent_journal_.clear();
  for (auto& entry : kv_.entries())
    if (!entry.slot.known) sent_kv_.push_back(&entry.slot);
  for (auto& entry : keys_.entries())
    if (!entry.slot.known) sent_keys_.push_back(&entry);
  for (auto& entry : leases_.entries())
    if (!entry.slot.known) sent_leases_.push_back(&entry);
  for (const auto& [exchange, loaded] : open_)
    if (!loaded.known) sent_open_.push_back(exchange);
  for (const auto& [exchange, loaded] : journal_)
    if (!loaded.known) sent_journal_.push_back(exchange);
  std::size_t statements = 0;
  planned_ = false;
  const auto ask = [&](const PgStatement& statement, PgParams params) {
    // Good for what one round trip asks: its statements are one transaction.
    if (!std::exchange(planned_, true)) connection_->send(kByIndex), ++statements;
    connection_->send(statement, std::move(params));
    ++statements;
  };
  if (!sent_kv_.empty()) {
    PgParams params;
    params.byte_arrays(sent_kv_, [](const auto* s) { return ByteView(s->key.ns); });
    params.byte_arrays(sent_kv_, [](const auto* s) { return ByteView(s->key.collection); });
    params.byte_arrays(sent_kv_, [](const auto* s) { return ByteView(s->key.key); });
    ask(kLoadKv, std::move(params));
  }
  if (!sent_keys_.empty()) {
    PgParams params;
    params.uuids(sent_keys_, [](const auto* e) { return e->slot.id.view(); });
    ask(kLoadKeys, std::move(params));
  }
  if (!sent_leases_.empty()) {
    PgParams params;
    params.byte_arrays(sent_leases_, [](const auto* e) { return ByteView(e->name); });
    ask(kLoadLeases, std::move(params));
  }
  const auto same = [](std::uint64_t id) { return stored(id); };
  if (!sent_open_.empty()) ask(kLoadOpen, std::move(PgParams().integers(sent_open_, same)));
  if (!sent_journal_.empty()) ask(kLoadJournal, std::move(PgParams().integers(sent_journal_, same)));
  return statements;
}

Status PgLoader::receive(const std::vector<PgRows>& rows, std::size_t at) {
  if (planned_) ++at;
  if (!sent_kv_.empty()) {
    for (auto* slot : sent_kv_) slot->known = true;
    const PgRows& found = rows.at(at++);
    for (std::size_t i = 0; i < found.size(); ++i) {
      LoadedKv& slot = *sent_kv_.at(found.number(i, 0) - 1);
      slot.version = {found.tid(i, 1), found.xid(i, 2)};
      slot.row = read_kv(found, i, 3);
    }
  }
  if (!sent_keys_.empty()) {
    for (auto* entry : sent_keys_) entry->slot.known = true;
    const PgRows& found = rows.at(at++);
    for (std::size_t i = 0; i < found.size(); ++i) {
      auto& entry = *sent_keys_.at(found.number(i, 0) - 1);
      entry.slot.version = {found.tid(i, 1), found.xid(i, 2)};
      entry.slot.row = read_key(found, i, 3);
      if (entry.slot.row->scope != entry.name)
        return fail(FailureKind::corrupt, "key_collision",
                    "two idempotency keys have the same 128-bit digest; expected the scope " + to_hex(entry.name) +
                        ", found " + to_hex(entry.slot.row->scope));
    }
  }
  if (!sent_leases_.empty()) {
    for (auto* entry : sent_leases_) entry->slot.known = true;
    const PgRows& found = rows.at(at++);
    for (std::size_t i = 0; i < found.size(); ++i) {
      auto& slot = sent_leases_.at(found.number(i, 0) - 1)->slot;
      slot.version = {found.tid(i, 1), found.xid(i, 2)};
      slot.row = read_lease(found, i, 3);
    }
  }
  if (!sent_open_.empty()) {
    for (const auto exchange : sent_open_) open_[exchange].known = true;
    const PgRows& found = rows.at(at++);
    for (std::size_t i = 0; i < found.size(); ++i) {
      auto& slot = open_[sent_open_.at(found.number(i, 0) - 1)];
      slot.version = {found.tid(i, 1), found.xid(i, 2)};
      slot.row = read_open(found, i, 3);
    }
  }
  if (!sent_journal_.empty()) {
    const PgRows& found = rows.at(at++);
    for (std::size_t i = 0; i < found.size(); ++i)
      journal_[sent_journal_.at(found.number(i, 0) - 1)] = {
          .next = found.null(i, 1) ? 0 : static_cast<std::uint32_t>(found.integer(i, 1)), .known = true};
  }
  return {};
}

// What no Commit named beforehand: an expander's rows.
Status PgLoader::fetch_missing() {
  send();
  auto rows = connection_->finish();
  const Status got = rows ? receive(*rows, 0) : fail(rows.error());
  if (!got && !failure_) failure_ = got.error();
  return got;
}

Result<std::optional<KvRow>> PgLoader::load_kv(const KvKey& key) {
  want(key);
  name_of(name_, key);
  auto& slot = kv_.find(name_)->slot;
  if (!slot.known) SLUICE_TRY(fetch_missing());
  slot.used = true;
  return slot.row;
}
Result<std::optional<KeyRow>> PgLoader::load_key(const Bytes& scope) {
  want(scope);
  auto& slot = keys_.find(scope)->slot;
  if (!slot.known) SLUICE_TRY(fetch_missing());
  slot.used = true;
  return slot.row;
}
Result<std::optional<LeaseRow>> PgLoader::load_lease(const std::string& name) {
  want_lease(name);
  auto& slot = leases_.find(name)->slot;
  if (!slot.known) SLUICE_TRY(fetch_missing());
  slot.used = true;
  return slot.row;
}
Result<std::optional<OpenRow>> PgLoader::load_open(ExchangeId exchange) {
  auto& slot = open_[exchange.value];
  if (!slot.known) SLUICE_TRY(fetch_missing());
  slot.used = true;
  return slot.row;
}
Result<std::uint32_t> PgLoader::load_next_record(ExchangeId exchange) {
  auto& slot = journal_[exchange.value];
  if (!slot.known) SLUICE_TRY(fetch_missing());
  slot.used = true;
  return slot.next;
}

bool PgLoader::settle_writes(const GroupWrites& writes) {
  for (const auto& w : writes.kv) {
    name_of(name_, *w.key);
    kv_.find(name_)->slot.written = true;
  }
  for (const auto& w : writes.keys) keys_.find(*w.scope)->slot.written = true;
  for (const auto& w : writes.open) open_.at(w.exchange.value).written = true;
  for (const auto& w : writes.leases) leases_.find(*w.name)->slot.written = true;
  for (const auto* row : writes.journal) journal_.at(row->exchange.value).written = true;
  const auto sure = [](const auto& slot) { return !slot.used || slot.row || slot.written; };
  return std::ranges::all_of(kv_.entries(), [&](const auto& e) { return sure(e.slot); }) &&
         std::ranges::all_of(keys_.entries(), [&](const auto& e) { return sure(e.slot); }) &&
         std::ranges::all_of(leases_.entries(), [&](const auto& e) { return sure(e.slot); }) &&
         std::ranges::all_of(open_, [&](const auto& e) { return sure(e.second); }) &&
         std::ranges::all_of(journal_, [](const auto& e) { return !e.second.used || e.second.written; });
}

}  // namespace sluice::store
