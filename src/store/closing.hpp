// How a store with a writer of its own ends: those inside leave, what is queued is written, the rest is refused.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

#include "sluice/base/executor.hpp"
#include "sluice/base/failure.hpp"

namespace sluice::store {

inline Failure store_closed() { return {FailureKind::unavailable, "store_closed", "the store is closed"}; }

/// Whoever uses writer and readers is counted, so that closing can wait for them and nobody meets half a
/// store. Both orders of the two steps are sequentially consistent.
class Users {
 public:
  class Inside {
   public:
    explicit Inside(Users& users) noexcept : users_(users) {
      users_.count_.fetch_add(1);
      in_ = !users_.closing_.load();
    }
    ~Inside() { users_.count_.fetch_sub(1); }  // the last touch: the store may go at once
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    explicit operator bool() const noexcept { return in_; }

   private:
    Users& users_;
    bool in_;
  };
  /// Nobody comes in any more; those who did have their Commits queued, or their answers read, in a moment.
  void shut_out() noexcept {
    closing_.store(true);
    while (count_.load() != 0) std::this_thread::yield();
  }

 private:
  std::atomic<std::uint32_t> count_{0};
  std::atomic<bool> closing_{false};
};

/// What was queued before the close is still written; afterwards nothing is taken.
template <class Commits>
void end_commits(Commits& commits, std::unique_ptr<Worker>& worker) {
  const bool open = commits.closed().has_value();
  worker.reset();  // runs no step any more
  if (open) {
    commits.hurry();
    commits.step();
    commits.close(store_closed());
  }
  commits.drain();
}

}  // namespace sluice::store
