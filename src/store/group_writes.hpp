// Where a group's rows come from, and the net result that a backend writes.
#pragma once
#include <vector>

#include "sluice/store/store.hpp"

namespace sluice::store {

/// Stored rows on first touch; each is asked for at most once per row and group.
class RowSource {
 public:
  virtual ~RowSource() = default;
  virtual Result<std::optional<KvRow>> load_kv(const KvKey& key) = 0;
  /// Also rows that have expired: the evaluator decides.
  virtual Result<std::optional<KeyRow>> load_key(const Bytes& scope) = 0;
  virtual Result<std::optional<LeaseRow>> load_lease(const std::string& name) = 0;
  virtual Result<std::optional<OpenRow>> load_open(ExchangeId exchange) = 0;
  virtual Result<std::uint32_t> load_next_record(ExchangeId exchange) = 0;
  virtual Result<std::uint64_t> load_event_sequence(const std::string& ns) = 0;
};

/// Net writes. Pointers are into the evaluator or the Commits and valid until its next begin().
struct GroupWrites {
  struct Kv {
    const KvKey* key;
    const KvRow* row;  ///< null: delete
    bool existed;      ///< stored before this group
  };
  struct Key {
    const Bytes* scope;
    const KeyRow* row;                  ///< null: delete
    std::optional<ExchangeId> replaced;  ///< id of the row stored before this group
  };
  struct Open {
    ExchangeId exchange;
    const OpenRow* row;  ///< null: delete
    bool existed;
  };
  struct Lease {
    const std::string* name;
    const LeaseRow* row;  ///< null: delete
  };
  std::vector<Kv> kv;
  std::vector<Key> keys;
  std::vector<Open> open;
  std::vector<Lease> leases;
  std::vector<const JournalRow*> journal;
  std::vector<const EventRow*> events;  ///< sequence and at are set
  std::vector<AuditRow*> audit;         ///< at is set; the backend numbers them
  bool empty() const noexcept {
    return kv.empty() && keys.empty() && open.empty() && leases.empty() && journal.empty() &&
           events.empty() && audit.empty();
  }
  void clear() noexcept {
    kv.clear();
    keys.clear();
    open.clear();
    leases.clear();
    journal.clear();
    events.clear();
    audit.clear();
  }
};

}  // namespace sluice::store
