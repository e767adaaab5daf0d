// Takes what waits, evaluates it against one state, makes it durable with one sync, answers it.
// Runs as a step of an Executor: on a thread of its own, or interleaved by the simulator.
#pragma once
#include <mutex>

#include "store/group_evaluator.hpp"
#include "store/commit_queue.hpp"
#include "store/sqlite/writer.hpp"

namespace sluice::store {

class GroupCommit {
 public:
  struct Bounds {
    std::size_t max_queue;
    std::size_t max_group;
    milliseconds lazy_delay;
  };
  GroupCommit(SqliteWriter& writer, Clock& clock, std::uint64_t incarnation, Bounds bounds)
      : writer_(writer), clock_(clock), bounds_(bounds), queue_(bounds.max_queue),
        evaluator_(writer, incarnation) {}

  /// Thread-safe. Answers at once when the store cannot take it.
  /// Returns true when the writer must be woken.
  bool submit(PendingCommit& pending);
  /// One turn of the writer; says when it wants the next.
  Instant step() noexcept;
  /// Answers everything still waiting; call when the step will not run any more.
  void drain() noexcept;
  void close(Failure reason);
  /// Lazy Commits wait no longer: the store is about to close.
  void hurry() noexcept { hurry_ = true; }
  /// Why it is closed, if it is.
  Status closed() const;
  /// closed(), or what kept the last groups from being written (a full or read-only disk), until one is.
  Status health() const;
  /// Nothing was written for so long: whoever is told to stay away will not try, so somebody else should.
  bool wants_probe() const;
  static constexpr Duration kProbedAfter = seconds(5);
  /// Ends the writer's transaction. Fails unknown_outcome, and closes the store, when the log may or
  /// may not hold it.
  Status finish_transaction();
  StoreStats stats() const noexcept;
  void set_expander(Expander* expander) { evaluator_.set_expander(expander); }
  /// Runs `work` inside a transaction of its own, apart from groups.
  template <class Work>
  auto exclusively(Work work) {
    const std::scoped_lock lock(writing_);
    return work();
  }

  /// Runs it on its lane, or at once when it has none.
  static void answer_one(PendingCommit& pending) noexcept;

 private:
  void note_trouble(const Result<bool>& written);
  void run_group(std::size_t count) noexcept;
  Result<bool> write_group(std::size_t count);
  void answer(std::size_t count) noexcept;

  SqliteWriter& writer_;
  Clock& clock_;
  const Bounds bounds_;
  CommitQueue queue_;
  GroupEvaluator evaluator_;
  std::mutex writing_;  // held for a group; backups and purges take it in between
  std::vector<PendingCommit*> taken_;
  Instant lazy_since_ = kNever;
  mutable std::mutex state_;
  std::optional<Failure> closed_;
  std::optional<Failure> trouble_;
  Instant trouble_at_{};
  std::atomic<bool> open_{true};
  std::atomic<bool> hurry_{false};
  std::atomic<bool> troubled_{false};
  std::atomic<std::uint64_t> commits_{0}, refused_{0}, groups_{0};
};

}  // namespace sluice::store
