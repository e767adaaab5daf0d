// The meaning of a Commit, once for every backend. A group is evaluated in order of arrival
// against an overlay of the rows it touches; the backend supplies rows on first touch and writes
// the net result. Not thread-safe: the store's writer owns it.
#pragma once
#include "store/group_writes.hpp"
#include "store/overlay.hpp"

namespace sluice::store {

class GroupEvaluator {
 public:
  /// `rows` must outlive it. `incarnation` is stamped on leases.
  GroupEvaluator(RowSource& rows, std::uint64_t incarnation) noexcept
      : rows_(rows), incarnation_(incarnation) {}

  void set_expander(Expander* expander) noexcept { expander_ = expander; }
  /// Forgets the last group; `now` is the store's time for all of this one.
  void begin(WallTime now);
  /// The group was not written: event numbers it gave out are read from the store again.
  void forget_sequences() noexcept { event_sequence_.clear(); }
  /// Evaluates one Commit. Its mutations are completed in place (sequences, times) and must stay
  /// where they are until the next begin(). A failure: nothing of it counts.
  Result<CommitOutcome> evaluate(Commit& commit);
  /// The net result since begin().
  const GroupWrites& writes();

 private:
  struct KvSlot : Slot<KvRow> {
    const KvKey* key = nullptr;
    KvKey own_key;
    std::uint64_t touched_by = 0;   // the Commit whose changes `planned` foresees
    std::int64_t planned = 0;       // the number after them
    std::uint64_t versioned_by = 0; // the Commit that has raised the version
  };
  struct KeySlot : Slot<KeyRow> {
    std::optional<ExchangeId> stored;
  };
  struct Check {
    bool holds = true;
    std::int64_t observed = 0;
    const KeyRow* key = nullptr;
    const LeaseRow* lease = nullptr;
  };

  Result<KvSlot*> kv(const KvKey& key);
  Result<KeySlot*> key(const Bytes& scope);
  Result<Slot<LeaseRow>*> lease(const std::string& name);
  Result<Slot<OpenRow>*> open(ExchangeId exchange);
  Result<std::uint32_t*> next_record(ExchangeId exchange);
  Result<std::uint64_t*> event_sequence(const std::string& ns);

  Result<Check> check(const Precondition& what);
  Status touch(const std::vector<Mutation>& mutations);
  Status plan(KvSlot& slot, std::int64_t start, std::int64_t delta);
  Status validate(const std::vector<Mutation>& mutations);
  void apply(std::vector<Mutation>& mutations, CommitOutcome& outcome);
  void put_key(KeyPut& put);
  void take_lease(const LeaseTake& take, CommitOutcome& outcome);
  bool live(const KeySlot& slot) const noexcept {
    return slot.current && slot.current->expires_at > now_;
  }

  RowSource& rows_;
  const std::uint64_t incarnation_;
  Expander* expander_ = nullptr;
  WallTime now_{};
  std::uint64_t commit_ = 0;  // counts evaluate() calls
  Bytes name_;  // reused buffer for overlay names
  Overlay<KvSlot> kv_;
  Overlay<KeySlot> keys_;
  Overlay<Slot<LeaseRow>> leases_;
  std::unordered_map<std::uint64_t, Slot<OpenRow>> open_;
  std::unordered_map<std::uint64_t, std::uint32_t> next_record_;
  std::unordered_map<std::string, std::uint64_t> event_sequence_;
  std::deque<std::vector<Mutation>> expanded_;
  GroupWrites writes_;
};

}  // namespace sluice::store
