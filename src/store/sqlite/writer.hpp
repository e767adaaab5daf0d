// The writing connection: loads the rows a group touches, writes the group's net result, and keeps
// the key index and its sealed segments. Used by the store's one writer only.
#pragma once
#include <algorithm>
#include <unordered_map>

#include "store/group_writes.hpp"
#include "store/overlay.hpp"
#include "store/sqlite/database.hpp"
#include "store/sqlite/key_index.hpp"

namespace sluice::store {

class SqliteWriter final : public RowSource {
 public:
  SqliteWriter(Database handle, KeyIndex& index, std::uint64_t max_live_keys)
      : handle_(std::move(handle)), index_(index), max_live_keys_(max_live_keys) {}
  /// Prepares statements and rebuilds the key index from segments and the unsealed tail.
  Status prepare();

  sqlite3* handle() noexcept { return handle_.get(); }
  Status begin();
  Status write(const GroupWrites& writes);
  /// The group is durable on success.
  Status commit();
  /// False between transactions, and after an error for which SQLite rolled back by itself.
  bool in_transaction() const noexcept { return sqlite3_get_autocommit(handle_.get()) == 0; }
  /// Undoes the open transaction, in the index too.
  void rollback() noexcept;

  std::uint64_t largest_id() const noexcept { return largest_id_; }
  Result<PurgeResult> purge(WallTime now, WallTime oldest, std::size_t limit);

  Result<std::optional<KvRow>> load_kv(const KvKey& key) override;
  Result<std::optional<KeyRow>> load_key(const Bytes& scope) override;
  Result<std::optional<LeaseRow>> load_lease(const std::string& name) override;
  Result<std::optional<OpenRow>> load_open(ExchangeId exchange) override;
  Result<std::uint32_t> load_next_record(ExchangeId exchange) override;
  Result<std::uint64_t> load_event_sequence(const std::string& ns) override;

 private:
  Status load_index();
  Status write_kv(const GroupWrites::Kv& w);
  Status write_key(const GroupWrites::Key& w);
  Status write_rest(const GroupWrites& writes);
  Status see_other_ids();
  Status seal_segment();
  Status drop_stale_entries();
  void take_out_erased(std::vector<KeyIndex::Entry>& entries);
  Result<std::uint64_t> delete_rows(Statement& statement, std::int64_t before, std::size_t limit);
  void saw(std::uint64_t id) noexcept { largest_id_ = std::max(largest_id_, id); }

  Database handle_;
  KeyIndex& index_;
  std::vector<std::uint64_t> candidates_;  // kept for its room
  const std::uint64_t max_live_keys_;
  std::uint64_t key_seq_ = 0;        // last row number given out
  std::uint64_t audit_sequence_ = 0;
  std::uint64_t largest_id_ = 0;
  std::uint64_t purge_cursor_ = 0;   // keys up to this row number were looked at in this sweep
  std::vector<KeyIndex::Entry> unsealed_;
  bool sealing_ = false;  // this group writes a segment of all of unsealed_
  std::unordered_map<ByteView, std::uint64_t, ViewHash> found_;  // scope → row number, this group
  std::vector<KeyIndex::Entry> inserted_;  // this group, for rollback
  std::vector<KeyIndex::Entry> erased_;
  bool dropped_stale_ = false;  // this group

  Statement begin_, commit_, rollback_;
  Statement get_kv_, insert_kv_, update_kv_, delete_kv_;
  Statement get_key_, has_key_, insert_key_, update_key_, delete_key_;
  Statement get_lease_, put_lease_, get_open_, put_open_, delete_open_;
  Statement next_record_, last_record_, append_record_, event_sequence_, append_event_, append_audit_;
  Statement insert_segment_;
};

}  // namespace sluice::store
