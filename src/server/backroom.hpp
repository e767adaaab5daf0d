// Where calls that block are made, so that lanes do not: one activity with a bounded queue.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "sluice/base/executor.hpp"
#include "sluice/base/failure.hpp"

namespace sluice::server {

/// Thread-safe. Work runs in the order it came; destroying it drops what has not begun.
class Backroom {
 public:
  using Work = std::move_only_function<void()>;
  static constexpr std::size_t kMaxQueue = 1000;

  explicit Backroom(Executor& executor) {
    worker_ = executor.start("backroom", [this]() noexcept { return step(); });
  }
  /// Fails overloaded when kMaxQueue wait. `work` must not throw.
  Status submit(Work work) {
    {
      const std::lock_guard lock(mutex_);
      if (queue_.size() >= kMaxQueue)
        return fail(FailureKind::overloaded, "backroom_queue_full",
                    "too many questions about transactions wait; try again");
      queue_.push_back(std::move(work));
    }
    worker_->wake();
    return {};
  }

 private:
  Instant step() noexcept {
    for (;;) {
      Work work;
      {
        const std::lock_guard lock(mutex_);
        if (queue_.empty()) return kNever;
        work = std::move(queue_.front());
        queue_.pop_front();
      }
      work();
    }
  }
  std::mutex mutex_;
  std::deque<Work> queue_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace sluice::server
