// Answers queries on a connection of its own: everything that waits goes out in one batch. A worker's
// thread; the queue between is shared by the workers.
#pragma once
#include <deque>
#include <mutex>

#include "store/postgres/group_commit.hpp"

namespace sluice::store {

/// Queries on their way to the readers. Bounded. Thread-safe.
class QueryQueue {
 public:
  explicit QueryQueue(std::size_t bound) noexcept : bound_(bound) {}
  bool push(PendingQuery& pending) {
    const std::scoped_lock lock(mutex_);
    if (closed_ || waiting_.size() >= bound_) return false;
    waiting_.push_back(&pending);
    return true;
  }
  std::vector<PendingQuery*> take(std::size_t most) {
    const std::scoped_lock lock(mutex_);
    const auto end = waiting_.begin() + static_cast<std::ptrdiff_t>(std::min(most, waiting_.size()));
    std::vector<PendingQuery*> taken(waiting_.begin(), end);
    waiting_.erase(waiting_.begin(), end);
    return taken;
  }
  void close() {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
  }
  bool closed() {
    const std::scoped_lock lock(mutex_);
    return closed_;
  }

 private:
  const std::size_t bound_;
  std::mutex mutex_;
  bool closed_ = false;
  std::deque<PendingQuery*> waiting_;
};

class PgReader {
 public:
  PgReader(const PostgresOptions& options, Clock& clock, StoreClock& store_clock, QueryQueue& queue, PgGroupCommit& health)
      : options_(options), clock_(clock), store_clock_(store_clock), queue_(queue), health_(health) {}
  Instant step() noexcept;

  static constexpr std::size_t kMaxBatch = 64;
  static constexpr Duration kReconnectEvery = milliseconds(250);

 private:
  Status answer(std::vector<PendingQuery*>& batch);
  Status connect();
  void ask(const Query& query);
  Result<Answer> read(const Query& query, const PgRows& rows);
  void refuse(PendingQuery& pending, const Failure& why);
  static void answer_one(PendingQuery& pending) noexcept;

  const PostgresOptions& options_;
  Clock& clock_;
  StoreClock& store_clock_;
  QueryQueue& queue_;
  PgGroupCommit& health_;
  std::unique_ptr<PgConnection> connection_;
  Instant failed_at_ = Instant::min();
  std::optional<Failure> failed_;
};

}  // namespace sluice::store
