// The rows of a memory store, ordered as the queries need them. Not thread-safe.
#pragma once
#include <map>

#include "store/group_writes.hpp"

namespace sluice::store {

class MemoryTables final : public RowSource {
 public:
  Result<std::optional<KvRow>> load_kv(const KvKey& key) override;
  Result<std::optional<KeyRow>> load_key(const Bytes& scope) override;
  Result<std::optional<LeaseRow>> load_lease(const std::string& name) override;
  Result<std::optional<OpenRow>> load_open(ExchangeId exchange) override;
  Result<std::uint32_t> load_next_record(ExchangeId exchange) override;
  Result<std::uint64_t> load_event_sequence(const std::string& ns) override;

  void apply(const GroupWrites& writes);
  Answer answer(const Query& query, WallTime now) const;
  PurgeResult purge(WallTime now, WallTime oldest, std::size_t limit);
  std::uint64_t largest_id() const noexcept { return largest_id_; }
  std::uint64_t live_keys() const noexcept { return keys_.size(); }

 private:
  std::map<KvKey, KvRow> kv_;
  std::map<Bytes, KeyRow, std::less<>> keys_;
  std::map<std::string, LeaseRow> leases_;
  std::map<std::uint64_t, OpenRow> open_;
  std::map<std::uint64_t, std::vector<JournalRow>> journal_;
  std::map<std::string, std::vector<EventRow>> events_;
  std::map<std::string, std::uint64_t> event_sequence_;
  std::vector<AuditRow> audit_;
  std::uint64_t audit_sequence_ = 0;
  std::uint64_t largest_id_ = 0;
};

}  // namespace sluice::store
