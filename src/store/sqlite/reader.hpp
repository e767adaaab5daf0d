// Answers queries on one connection. One thread at a time.
#pragma once
#include "sluice/store/store.hpp"
#include "store/sqlite/database.hpp"
#include "store/sqlite/key_index.hpp"

namespace sluice::store {

class SqliteReader {
 public:
  static Result<std::unique_ptr<SqliteReader>> open(Database handle, const KeyIndex& index);
  /// A reader over a connection that somebody else owns (simulation: the writer's).
  static Result<std::unique_ptr<SqliteReader>> over(sqlite3* handle, const KeyIndex& index);
  Result<Answer> answer(const Query& query, WallTime now);

 private:
  explicit SqliteReader(const KeyIndex& index) : index_(index) {}
  Status prepare(sqlite3* handle);
  Result<Answer> get_rows(const GetRows& q);
  Result<Answer> list_rows(const ListRows& q);
  Result<Answer> find_key(const FindKey& q, WallTime now);
  Result<Answer> journal(Statement& statement);
  Result<Answer> list_open(const ListOpen& q);
  Result<Answer> list_events(const ListEvents& q);
  Result<Answer> list_audit(const ListAudit& q);
  Result<Answer> get_lease(const GetLease& q);

  const KeyIndex& index_;
  std::vector<std::uint64_t> candidates_;  // kept for its room
  Database owned_;
  Statement begin_, end_, get_kv_, list_kv_, get_key_, read_journal_, list_journal_, list_open_, list_events_,
      list_audit_, get_lease_;
};

}  // namespace sluice::store
