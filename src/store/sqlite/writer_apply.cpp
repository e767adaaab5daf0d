// Writing a group's net result, sealing key segments, and purging.
#include "store/sqlite/row_codec.hpp"
#include "store/sqlite/writer.hpp"

namespace sluice::store {
namespace {
// 4096 entries of 16 bytes: 64 KiB, sixteen pages at once instead of one random page a key.
constexpr std::size_t kSegmentKeys = 4096;
}  // namespace

Status SqliteWriter::write_kv(const GroupWrites::Kv& w) {
  if (w.row == nullptr)
    return delete_kv_.bind_text(1, w.key->ns).bind_text(2, w.key->collection).bind_text(3, w.key->key).run();
  Statement& statement = w.existed ? update_kv_ : insert_kv_;
  return statement.bind_text(1, w.key->ns)
      .bind_text(2, w.key->collection)
      .bind_text(3, w.key->key)
      .bind(4, stored(w.row->version))
      .bind(5, w.row->number)
      .bind_blob(6, w.row->value)
      .run();
}

Status SqliteWriter::write_key(const GroupWrites::Key& w) {
  const auto found = found_.find(*w.scope);
  const std::uint64_t hash = KeyIndex::hash_of(*w.scope);
  if (w.row == nullptr) {
    if (found == found_.end()) return {};
    erased_.push_back({hash, found->second});
    return delete_key_.bind(1, stored(found->second)).run();
  }
  const bool insert = found == found_.end();
  const std::uint64_t seq = insert ? ++key_seq_ : found->second;
  Statement& statement = insert ? insert_key_ : update_key_;
  SLUICE_TRY(statement.bind(1, stored(seq))
                 .bind(2, stored(w.row->exchange.value))
                 .bind_blob(3, w.row->scope)
                 .bind_blob(4, w.row->fingerprint.view())
                 .bind(5, static_cast<std::int64_t>(w.row->state))
                 .bind(6, stored(w.row->token))
                 .bind(7, stored(w.row->stored_at))
                 .bind(8, stored(w.row->expires_at))
                 .bind_blob(9, w.row->reply)
                 .run());
  saw(w.row->exchange.value);
  if (!insert) return {};
  const KeyIndex::Entry entry{hash, seq};
  index_.insert(entry);
  inserted_.push_back(entry);
  unsealed_.push_back(entry);
  return {};
}

Status SqliteWriter::write(const GroupWrites& writes) {
  for (const auto* row : writes.journal) {
    SLUICE_TRY(append_record_.bind(1, stored(row->exchange.value))
                   .bind(2, row->n)
                   .bind_blob(3, row->record)
                   .run());
    saw(row->exchange.value);
  }
  for (const auto& w : writes.keys) SLUICE_TRY(write_key(w));
  for (const auto& w : writes.kv) SLUICE_TRY(write_kv(w));
  SLUICE_TRY(write_rest(writes));
  if (unsealed_.size() >= kSegmentKeys) SLUICE_TRY(seal_segment());
  return {};
}

Status SqliteWriter::write_rest(const GroupWrites& writes) {
  for (const auto& w : writes.open) {
    if (w.row == nullptr) {
      SLUICE_TRY(delete_open_.bind(1, stored(w.exchange.value)).run());
      continue;
    }
    SLUICE_TRY(put_open_.bind(1, stored(w.exchange.value))
                   .bind_text(2, w.row->ns)
                   .bind_text(3, w.row->flow)
                   .bind(4, static_cast<std::int64_t>(w.row->state))
                   .bind(5, stored(w.row->since))
                   .run());
  }
  for (const auto& w : writes.leases)
    SLUICE_TRY(put_lease_.bind_text(1, *w.name)
                   .bind_text(2, w.row->owner)
                   .bind(3, stored(w.row->token))
                   .bind(4, stored(w.row->incarnation))
                   .bind(5, stored(w.row->expires_at))
                   .run());
  for (const auto* row : writes.events) {
    SLUICE_TRY(append_event_.bind_text(1, row->ns)
                   .bind(2, stored(row->sequence))
                   .bind(3, stored(row->id.value))
                   .bind_text(4, row->topic)
                   .bind_blob(5, row->payload)
                   .bind_text(6, row->trace)
                   .bind(7, stored(row->exchange.value))
                   .bind(8, row->depth)
                   .bind(9, stored(row->at))
                   .run());
    saw(row->id.value);
  }
  for (auto* row : writes.audit) {
    row->sequence = ++audit_sequence_;
    SLUICE_TRY(append_audit_.bind(1, stored(row->sequence))
                   .bind(2, stored(row->at))
                   .bind_text(3, row->ns)
                   .bind_text(4, row->principal)
                   .bind_text(5, row->command)
                   .bind(6, static_cast<std::int64_t>(row->outcome))
                   .bind(7, stored(row->exchange.value))
                   .bind_text(8, row->correlation)
                   .bind_text(9, row->detail)
                   .run());
  }
  return {};
}

Status SqliteWriter::seal_segment() {
  Bytes entries;
  entries.reserve(unsealed_.size() * sizeof(KeyIndex::Entry));
  ByteWriter writer(entries);
  std::vector<KeyIndex::Entry> sealed = unsealed_;
  take_out_erased(sealed);
  for (const auto& entry : sealed) {
    writer.u64(entry.hash);
    writer.u64(entry.seq);
  }
  SLUICE_TRY(insert_segment_.bind(1, stored(key_seq_)).bind_blob(2, entries).run());
  sealing_ = true;  // the entries are forgotten once the group is durable, not before
  return {};
}

Result<std::uint64_t> SqliteWriter::delete_rows(Statement& statement, std::int64_t before,
                                                std::size_t limit) {
  SLUICE_TRY(statement.bind(1, before).bind(2, static_cast<std::int64_t>(limit)).run());
  return static_cast<std::uint64_t>(sqlite3_changes64(handle_.get()));
}

Result<PurgeResult> SqliteWriter::purge(WallTime now, WallTime oldest, std::size_t limit) {
  PurgeResult result;
  SLUICE_ASSIGN(Statement keys,
                Statement::prepare(handle_.get(),
                                   "SELECT seq, scope, expires_at FROM keys WHERE seq > ?1 AND "
                                   "exchange NOT IN (SELECT exchange FROM open_exchanges) "
                                   "ORDER BY seq LIMIT ?2"));
  keys.bind(1, stored(purge_cursor_)).bind(2, static_cast<std::int64_t>(limit));
  std::vector<KeyIndex::Entry> expired;
  std::size_t looked = 0;
  while (true) {
    SLUICE_ASSIGN(const bool row, keys.step());
    if (!row) break;
    ++looked;
    purge_cursor_ = static_cast<std::uint64_t>(keys.integer(0));
    if (keys.time(2) <= now) expired.push_back({KeyIndex::hash_of(keys.view(1)), purge_cursor_});
  }
  if (looked < limit) purge_cursor_ = 0;
  for (const auto& entry : expired) {
    SLUICE_TRY(delete_key_.bind(1, stored(entry.seq)).run());
    erased_.push_back(entry);
    std::erase_if(unsealed_, [&](const auto& e) { return e.seq == entry.seq; });
  }
  result.keys = expired.size();
  SLUICE_TRY(execute(handle_.get(),
                     "DELETE FROM key_segments WHERE last < (SELECT coalesce(min(seq), 0) FROM keys)"));
  // Ids carry their time, so age is a range of the primary key.
  const std::int64_t oldest_id =
      static_cast<std::int64_t>(IdSource::first_at(oldest));
  const auto sweep = [&](const char* sql, std::int64_t before, std::uint64_t& count) -> Status {
    SLUICE_ASSIGN(Statement statement, Statement::prepare(handle_.get(), sql));
    SLUICE_ASSIGN(count, delete_rows(statement, before, limit));
    return {};
  };
  // A journal goes whole: half of one tells less than the truth, or what is not so.
  SLUICE_TRY(sweep("DELETE FROM journal WHERE exchange IN (SELECT exchange FROM journal WHERE exchange < ?1 "
                   "AND exchange NOT IN (SELECT exchange FROM open_exchanges) ORDER BY exchange LIMIT ?2)",
                   oldest_id, result.journal));
  // The newest row stays, so that numbers never start again.
  SLUICE_TRY(sweep("DELETE FROM audit WHERE sequence IN (SELECT sequence FROM audit WHERE at < ?1 "
                   "AND sequence < (SELECT max(sequence) FROM audit) ORDER BY sequence LIMIT ?2)",
                   stored(oldest), result.audit));
  SLUICE_TRY(sweep("DELETE FROM events WHERE (ns, sequence) IN (SELECT ns, sequence FROM events AS e "
                   "WHERE at < ?1 AND sequence < (SELECT max(sequence) FROM events WHERE ns=e.ns) LIMIT ?2)",
                   stored(oldest), result.events));
  result.more = looked == limit || result.journal >= limit || result.audit == limit ||
                result.events == limit;
  return result;
}

}  // namespace sluice::store
