// Commits on their way to the writer: many posters, one taker. Lock-free, intrusive, bounded.
#pragma once
#include <algorithm>
#include <atomic>
#include <vector>

#include "sluice/store/store.hpp"

namespace sluice::store {

class CommitQueue {
 public:
  explicit CommitQueue(std::size_t bound) noexcept : bound_(bound) {}

  /// False: the queue is at its bound and `pending` was not taken.
  bool push(PendingCommit& pending) noexcept {
    if (waiting_.fetch_add(1, std::memory_order_relaxed) >= bound_) {
      waiting_.fetch_sub(1, std::memory_order_relaxed);
      return false;
    }
    Job* head = head_.load(std::memory_order_relaxed);
    do {
      pending.next = head;
    } while (!head_.compare_exchange_weak(head, &pending, std::memory_order_seq_cst,
                                          std::memory_order_relaxed));
    return true;
  }

  /// Appends everything waiting to `out`, in order of arrival.
  void take(std::vector<PendingCommit*>& out) {
    Job* job = head_.exchange(nullptr, std::memory_order_seq_cst);
    const std::size_t before = out.size();
    for (; job != nullptr; job = job->next) out.push_back(static_cast<PendingCommit*>(job));
    std::reverse(out.begin() + static_cast<std::ptrdiff_t>(before), out.end());
  }

  /// The taker says when Commits it took were answered.
  void answered(std::size_t count) noexcept { waiting_.fetch_sub(count, std::memory_order_relaxed); }
  std::size_t waiting() const noexcept { return waiting_.load(std::memory_order_relaxed); }

 private:
  const std::size_t bound_;
  std::atomic<Job*> head_{nullptr};
  std::atomic<std::size_t> waiting_{0};
};

}  // namespace sluice::store
