#include "store/sqlite/writer.hpp"

#include <algorithm>

#include "store/sqlite/row_codec.hpp"

namespace sluice::store {

namespace {
constexpr milliseconds kKeysRetryAfter = std::chrono::minutes(1);  // about what the purge takes to come round
}  // namespace

Status SqliteWriter::prepare() {
  const struct {
    Statement* statement;
    const char* sql;
  } all[] = {
      {&begin_, "BEGIN IMMEDIATE"},
      {&commit_, "COMMIT"},
      {&rollback_, "ROLLBACK"},
      {&get_kv_, "SELECT version, number, value FROM kv WHERE ns=?1 AND collection=?2 AND key=?3"},
      {&insert_kv_, "INSERT INTO kv VALUES (?1,?2,?3,?4,?5,?6)"},
      {&update_kv_,
       "UPDATE kv SET version=?4, number=?5, value=?6 WHERE ns=?1 AND collection=?2 AND key=?3"},
      {&delete_kv_, "DELETE FROM kv WHERE ns=?1 AND collection=?2 AND key=?3"},
      {&has_key_, "SELECT 1 FROM keys WHERE seq=?1"},
      {&get_key_,
       "SELECT exchange, scope, fingerprint, state, token, stored_at, expires_at, reply "
       "FROM keys WHERE seq=?1"},
      {&insert_key_, "INSERT INTO keys VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)"},
      {&update_key_,
       "UPDATE keys SET exchange=?2, scope=?3, fingerprint=?4, state=?5, token=?6, stored_at=?7, "
       "expires_at=?8, reply=?9 WHERE seq=?1"},
      {&delete_key_, "DELETE FROM keys WHERE seq=?1"},
      {&get_lease_, "SELECT name, owner, token, incarnation, expires_at FROM leases WHERE name=?1"},
      {&put_lease_, "INSERT OR REPLACE INTO leases VALUES (?1,?2,?3,?4,?5)"},
      {&get_open_,
       "SELECT exchange, ns, flow, state, since FROM open_exchanges WHERE exchange=?1"},
      {&put_open_, "INSERT OR REPLACE INTO open_exchanges VALUES (?1,?2,?3,?4,?5)"},
      {&delete_open_, "DELETE FROM open_exchanges WHERE exchange=?1"},
      {&next_record_,
       "SELECT coalesce(max(n)+1, 0) FROM journal WHERE exchange=?1"},
      {&last_record_, "SELECT coalesce(max(exchange), 0) FROM journal"},
      {&append_record_, "INSERT INTO journal VALUES (?1,?2,?3)"},
      {&event_sequence_, "SELECT coalesce(max(sequence), 0) FROM events WHERE ns=?1"},
      {&append_event_, "INSERT INTO events VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)"},
      {&append_audit_, "INSERT INTO audit VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)"},
      {&insert_segment_, "INSERT INTO key_segments VALUES (?1,?2)"},
  };
  for (const auto& [statement, sql] : all) {
    SLUICE_ASSIGN(*statement, Statement::prepare(handle_.get(), sql));
  }
  SLUICE_TRY(last_record_.step());
  saw(static_cast<std::uint64_t>(last_record_.integer(0)));
  last_record_.reset();
  SLUICE_TRY(see_other_ids());
  SLUICE_ASSIGN(Statement audit,
                Statement::prepare(handle_.get(), "SELECT coalesce(max(sequence), 0) FROM audit"));
  SLUICE_TRY(audit.step());
  audit_sequence_ = static_cast<std::uint64_t>(audit.integer(0));
  return load_index();
}

// Ids stand in other tables too: none may be given out twice. Read at the ends of the tables, where
// the newest are, so that opening costs the same at any size.
Status SqliteWriter::see_other_ids() {
  for (const char* sql :
       {"SELECT coalesce(max(exchange), 0) FROM open_exchanges",
        "SELECT coalesce(max(exchange), 0) FROM (SELECT exchange FROM audit ORDER BY sequence DESC LIMIT 5000)",
        // One step per namespace, not per event.
        "WITH RECURSIVE spaces(ns) AS (SELECT min(ns) FROM events UNION ALL SELECT "
        "(SELECT min(ns) FROM events WHERE ns > spaces.ns) FROM spaces WHERE ns IS NOT NULL) "
        "SELECT coalesce(max((SELECT max(max(id), max(exchange)) FROM (SELECT id, exchange FROM events e "
        "WHERE e.ns = spaces.ns ORDER BY sequence DESC LIMIT 1000))), 0) FROM spaces WHERE ns IS NOT NULL"}) {
    SLUICE_ASSIGN(Statement newest, Statement::prepare(handle_.get(), sql));
    SLUICE_TRY(newest.step());
    saw(static_cast<std::uint64_t>(newest.integer(0)));
  }
  return {};
}

Status SqliteWriter::load_index() {
  SLUICE_ASSIGN(Statement counts,
                Statement::prepare(handle_.get(), "SELECT coalesce(max(seq), 0) FROM keys"));
  SLUICE_TRY(counts.step());
  key_seq_ = static_cast<std::uint64_t>(counts.integer(0));
  counts.reset();

  SLUICE_ASSIGN(Statement first,
                Statement::prepare(handle_.get(), "SELECT coalesce(min(seq), 0) FROM keys"));
  SLUICE_TRY(first.step());
  const auto oldest = static_cast<std::uint64_t>(first.integer(0));
  first.reset();
  if (key_seq_ != 0) index_.reserve(std::min(key_seq_ - oldest + 1, max_live_keys_));

  std::uint64_t sealed = 0;
  SLUICE_ASSIGN(Statement segments,
                Statement::prepare(handle_.get(),
                                   "SELECT last, entries FROM key_segments ORDER BY last"));
  while (true) {
    SLUICE_ASSIGN(const bool row, segments.step());
    if (!row) break;
    sealed = static_cast<std::uint64_t>(segments.integer(0));
    ByteReader reader(segments.view(1));
    while (!reader.at_end() && reader.ok()) {
      const KeyIndex::Entry entry{reader.u64(), reader.u64()};
      // Rows that were deleted since leave entries behind; looking one up finds no row.
      if (reader.ok() && entry.seq >= oldest) index_.insert(entry);
    }
    if (!reader.ok())
      return fail(FailureKind::corrupt, "key_segment",
                  std::string(sqlite3_db_filename(handle_.get(), "main")) +
                      ": a key segment ends in the middle; restore a backup");
  }
  key_seq_ = std::max(key_seq_, sealed);

  SLUICE_ASSIGN(Statement tail,
                Statement::prepare(handle_.get(),
                                   "SELECT seq, exchange, scope FROM keys WHERE seq > ?1"));
  tail.bind(1, stored(sealed));
  while (true) {
    SLUICE_ASSIGN(const bool row, tail.step());
    if (!row) break;
    const KeyIndex::Entry entry{KeyIndex::hash_of(tail.view(2)),
                                static_cast<std::uint64_t>(tail.integer(0))};
    saw(static_cast<std::uint64_t>(tail.integer(1)));
    index_.insert(entry);
    unsealed_.push_back(entry);
  }
  SLUICE_ASSIGN(Statement newest, Statement::prepare(handle_.get(),
                                                     "SELECT coalesce(max(exchange), 0) FROM "
                                                     "(SELECT exchange FROM keys ORDER BY seq DESC LIMIT 5000)"));
  SLUICE_TRY(newest.step());
  saw(static_cast<std::uint64_t>(newest.integer(0)));
  return {};
}

Status SqliteWriter::begin() {
  found_.clear();
  inserted_.clear();
  erased_.clear();
  sealing_ = false;
  dropped_stale_ = false;
  return begin_.run();
}

Status SqliteWriter::commit() {
  SLUICE_TRY(commit_.run());
  for (const auto& entry : erased_) index_.erase(entry);
  if (sealing_) unsealed_.clear();
  take_out_erased(unsealed_);
  sealing_ = false;
  return {};
}

void SqliteWriter::rollback() noexcept {
  if (in_transaction()) (void)rollback_.run();
  for (const auto& entry : inserted_) {
    index_.erase(entry);
    std::erase_if(unsealed_, [&](const auto& e) { return e.seq == entry.seq; });
  }
  inserted_.clear();
  sealing_ = false;
}

Result<std::optional<KvRow>> SqliteWriter::load_kv(const KvKey& key) {
  get_kv_.bind_text(1, key.ns).bind_text(2, key.collection).bind_text(3, key.key);
  SLUICE_ASSIGN(const bool row, get_kv_.step());
  if (!row) return std::nullopt;
  KvRow found = read_kv(get_kv_);
  get_kv_.reset();
  return found;
}

Result<std::optional<KeyRow>> SqliteWriter::load_key(const Bytes& scope) {
  index_.find(KeyIndex::hash_of(scope), candidates_);
  for (const std::uint64_t seq : candidates_) {
    get_key_.bind(1, stored(seq));
    SLUICE_ASSIGN(const bool row, get_key_.step());
    if (!row) continue;
    if (get_key_.view(1) != scope) {
      get_key_.reset();
      continue;
    }
    KeyRow found = read_key(get_key_);
    get_key_.reset();
    // The scope outlives the group: it is owned by the Commit that asked.
    found_.emplace(ByteView(scope), seq);
    return found;
  }
  if (index_.size() >= max_live_keys_ && !std::exchange(dropped_stale_, true))
    SLUICE_TRY(drop_stale_entries());
  if (index_.size() >= max_live_keys_)
    return fail(Failure(FailureKind::overloaded, kTooManyKeys,
                        "the store holds as many idempotency keys as it may (" + std::to_string(max_live_keys_) +
                            "): they go when they expire and the purge (store.purge_interval_ms) has run; raise "
                            "store.max_live_keys, 16 bytes of memory each, or let commands keep their keys for a shorter time")
                    .with_retry_after(kKeysRetryAfter));
  return std::nullopt;
}

// A segment also names keys that were released after it was sealed. Opening loads them all; at the
// bound they are looked for, so many places of the index per group, and count no more.
Status SqliteWriter::drop_stale_entries() {
  constexpr std::size_t kPlacesPerGroup = 1024;
  for (const auto& entry : index_.next_entries(kPlacesPerGroup)) {
    has_key_.bind(1, stored(entry.seq));
    SLUICE_ASSIGN(const bool row, has_key_.step());
    has_key_.reset();
    if (!row) index_.erase(entry);
  }
  return {};
}

void SqliteWriter::take_out_erased(std::vector<KeyIndex::Entry>& entries) {
  if (erased_.empty()) return;
  std::ranges::sort(erased_, {}, &KeyIndex::Entry::seq);
  std::erase_if(entries, [this](const auto& entry) {
    return std::ranges::binary_search(erased_, entry.seq, {}, &KeyIndex::Entry::seq);
  });
}

Result<std::optional<LeaseRow>> SqliteWriter::load_lease(const std::string& name) {
  get_lease_.bind_text(1, name);
  SLUICE_ASSIGN(const bool row, get_lease_.step());
  if (!row) return std::nullopt;
  LeaseRow found = read_lease(get_lease_);
  get_lease_.reset();
  return found;
}

Result<std::optional<OpenRow>> SqliteWriter::load_open(ExchangeId exchange) {
  get_open_.bind(1, stored(exchange.value));
  SLUICE_ASSIGN(const bool row, get_open_.step());
  if (!row) return std::nullopt;
  OpenRow found = read_open(get_open_);
  get_open_.reset();
  return found;
}

Result<std::uint32_t> SqliteWriter::load_next_record(ExchangeId exchange) {
  // Ids are given out in order of time, so one newer than every stored one has no records.
  if (exchange.value > largest_id_) return 0;
  next_record_.bind(1, stored(exchange.value));
  SLUICE_TRY(next_record_.step());
  const auto next = static_cast<std::uint32_t>(next_record_.integer(0));
  next_record_.reset();
  return next;
}

Result<std::uint64_t> SqliteWriter::load_event_sequence(const std::string& ns) {
  event_sequence_.bind_text(1, ns);
  SLUICE_TRY(event_sequence_.step());
  const auto last = static_cast<std::uint64_t>(event_sequence_.integer(0));
  event_sequence_.reset();
  return last;
}

}  // namespace sluice::store
