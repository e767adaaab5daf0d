#include "store/sqlite/group_commit.hpp"

namespace sluice::store {

void GroupCommit::answer_one(PendingCommit& pending) noexcept {
  if (pending.lane != nullptr)
    pending.lane->post(pending);
  else
    pending.run(&pending);
}

bool GroupCommit::submit(PendingCommit& pending) {
  if (!open_.load(std::memory_order_acquire)) {
    pending.outcome = fail(closed().error());
    answer_one(pending);
    return false;
  }
  if (!queue_.push(pending)) {
    pending.outcome = fail(Failure(FailureKind::overloaded, "store_queue_full",
                                   "the store's queue holds its bound of " +
                                       std::to_string(bounds_.max_queue) +
                                       " commits; nothing was written, try again later")
                               .with_retry_after(milliseconds(100)));
    answer_one(pending);
    return false;
  }
  return true;
}

Instant GroupCommit::step() noexcept {
  queue_.take(taken_);
  if (taken_.empty()) return kNever;
  if (!open_.load(std::memory_order_acquire)) {
    drain();
    return kNever;
  }
  bool urgent = hurry_ || taken_.size() >= bounds_.max_group;
  for (const auto* pending : taken_) urgent = urgent || !pending->commit.lazy;
  if (!urgent) {
    const Instant now = clock_.now();
    if (lazy_since_ == kNever) lazy_since_ = now;
    if (now < lazy_since_ + bounds_.lazy_delay) return lazy_since_ + bounds_.lazy_delay;
  }
  lazy_since_ = kNever;
  while (!taken_.empty() && open_.load(std::memory_order_acquire))
    run_group(std::min(taken_.size(), bounds_.max_group));
  if (!taken_.empty()) drain();
  return Instant::min();  // something may have come while the disk worked: look again
}

void GroupCommit::run_group(std::size_t count) noexcept {
  {
    const std::scoped_lock lock(writing_);
    const auto written = write_group(count);
    note_trouble(written);
    if (!written) {
      writer_.rollback();
      evaluator_.forget_sequences();
      for (std::size_t i = 0; i < count; ++i) taken_[i]->outcome = fail(written.error());
    }
  }
  answer(count);
}

// True: something was written and is durable. On failure nothing of the group counts, unless the
// kind is unknown_outcome.
Result<bool> GroupCommit::write_group(std::size_t count) {
  SLUICE_TRY(writer_.begin());
  evaluator_.begin(clock_.wall());
  std::uint64_t refused = 0;
  for (std::size_t i = 0; i < count; ++i) {
    taken_[i]->outcome = evaluator_.evaluate(taken_[i]->commit);
    // A page that cannot be read ends SQLite's transaction: whatever is written after that would be
    // written row by row.
    if (!taken_[i]->outcome && !writer_.in_transaction()) return fail(taken_[i]->outcome.error());
    if (taken_[i]->outcome && !taken_[i]->outcome->applied) ++refused;
  }
  const GroupWrites& writes = evaluator_.writes();
  commits_.fetch_add(count, std::memory_order_relaxed);
  refused_.fetch_add(refused, std::memory_order_relaxed);
  if (writes.empty()) {
    writer_.rollback();
    return false;
  }
  SLUICE_TRY(writer_.write(writes));
  SLUICE_TRY(finish_transaction());
  groups_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

Status GroupCommit::finish_transaction() {
  const Status committed = writer_.commit();
  if (committed) return {};
  const Failure& why = committed.error();
  if (why.code() == "disk_full" || why.code() == "store_locked" || why.code() == "store_read_only")
    return fail(why);
  // The log may or may not hold it: only reopening and recovering it can tell.
  Failure unknown(FailureKind::unknown_outcome, "commit_unknown", std::string(why.detail()));
  close(Failure(FailureKind::unavailable, "store_failed",
                "the store closed itself because a write or a sync failed (" + std::string(why.detail()) +
                    "); restart the server: recovery decides what was written"));
  return fail(std::move(unknown));
}

void GroupCommit::note_trouble(const Result<bool>& written) {
  // A group that had nothing to write tells nothing of the disk.
  if (written && (!*written || !troubled_.load(std::memory_order_relaxed))) return;
  const std::scoped_lock lock(state_);
  if (written) {
    trouble_.reset();
  } else if (written.error().code() == "disk_full" || written.error().code() == "store_read_only") {
    trouble_ = written.error();
    trouble_at_ = clock_.now();
  }
  troubled_.store(trouble_.has_value(), std::memory_order_relaxed);
}

void GroupCommit::answer(std::size_t count) noexcept {
  // Counted down first: an answered Commit may be gone, and its owner may submit the next.
  queue_.answered(count);
  for (std::size_t i = 0; i < count; ++i) answer_one(*taken_[i]);
  taken_.erase(taken_.begin(), taken_.begin() + static_cast<std::ptrdiff_t>(count));
}

void GroupCommit::drain() noexcept {
  queue_.take(taken_);
  const Status why = closed();
  for (auto* pending : taken_)
    pending->outcome = fail(why ? Failure(FailureKind::unavailable, "store_closed", "the store is closed")
                                : why.error());
  answer(taken_.size());
}

void GroupCommit::close(Failure reason) {
  const std::scoped_lock lock(state_);
  if (!closed_) closed_ = std::move(reason);
  open_.store(false, std::memory_order_release);
}

Status GroupCommit::closed() const {
  const std::scoped_lock lock(state_);
  if (closed_) return fail(*closed_);
  return {};
}

Status GroupCommit::health() const {
  const std::scoped_lock lock(state_);
  if (closed_) return fail(*closed_);
  if (trouble_) return fail(*trouble_);
  return {};
}

bool GroupCommit::wants_probe() const {
  const std::scoped_lock lock(state_);
  return !closed_ && trouble_ && clock_.now() >= trouble_at_ + kProbedAfter;
}

StoreStats GroupCommit::stats() const noexcept {
  StoreStats stats;
  stats.commits = commits_.load(std::memory_order_relaxed);
  stats.refused = refused_.load(std::memory_order_relaxed);
  stats.groups = groups_.load(std::memory_order_relaxed);
  stats.queued = queue_.waiting();
  return stats;
}

}  // namespace sluice::store
