#include <mutex>

#include "sluice/store/memory.hpp"
#include "store/group_evaluator.hpp"
#include "store/memory/tables.hpp"

namespace sluice::store {
namespace {

class MemoryStore final : public Store {
 public:
  MemoryStore(Clock& clock, Random& random)
      : clock_(clock), incarnation_(random.next() | 1), evaluator_(tables_, incarnation_) {}

  void submit(PendingCommit& pending) override {
    {
      const std::scoped_lock lock(mutex_);
      pending.outcome = run_commit(pending.commit);
    }
    if (pending.lane != nullptr)
      pending.lane->post(pending);
    else
      pending.run(&pending);
  }

  bool ask(PendingQuery& pending) override {
    const std::scoped_lock lock(mutex_);
    if (closed_)
      pending.answer = closed_failure();
    else
      pending.answer = tables_.answer(pending.query, clock_.wall());
    return true;
  }

  WallTime now() override { return clock_.wall(); }
  std::uint64_t incarnation() const override { return incarnation_; }
  std::uint64_t largest_id() override {
    const std::scoped_lock lock(mutex_);
    return tables_.largest_id();
  }
  void set_expander(Expander* expander) override { evaluator_.set_expander(expander); }
  Result<PurgeResult> purge(milliseconds keep, std::size_t limit) override {
    const std::scoped_lock lock(mutex_);
    if (closed_) return closed_failure();
    const WallTime now = clock_.wall();
    return tables_.purge(now, now - keep, limit);
  }
  StoreStats stats() const override {
    const std::scoped_lock lock(mutex_);
    StoreStats stats = stats_;
    stats.live_keys = tables_.live_keys();
    return stats;
  }
  Status health() override {
    const std::scoped_lock lock(mutex_);
    if (closed_) return closed_failure();
    return {};
  }
  void close() override {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
  }

 private:
  static std::unexpected<Failure> closed_failure() {
    return fail(FailureKind::unavailable, "store_closed", "the memory store is closed");
  }

  Result<CommitOutcome> run_commit(Commit& commit) {
    if (closed_) return closed_failure();
    evaluator_.begin(clock_.wall());
    auto outcome = evaluator_.evaluate(commit);
    if (!outcome) return outcome;
    tables_.apply(evaluator_.writes());
    ++stats_.commits;
    ++stats_.groups;
    if (!outcome->applied) ++stats_.refused;
    return outcome;
  }

  Clock& clock_;
  const std::uint64_t incarnation_;
  mutable std::mutex mutex_;
  MemoryTables tables_;
  GroupEvaluator evaluator_;
  StoreStats stats_;
  bool closed_ = false;
};

}  // namespace

std::unique_ptr<Store> make_memory_store(Clock& clock, Random& random) {
  return std::make_unique<MemoryStore>(clock, random);
}

}  // namespace sluice::store
