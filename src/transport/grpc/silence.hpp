// Whether a connection still answers. A few calls that time out mean little (a slow command); several over some time,
// and no answer of any kind between them, mean that it is dead.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>

#include "sluice/base/time.hpp"

namespace sluice::transport {

/// Thread-safe. An answer costs one load while nothing is silent.
class Silence {
 public:
  void heard() {
    if (calls_.load(std::memory_order_relaxed) == 0) return;
    const std::lock_guard lock(mutex_);
    calls_.store(0, std::memory_order_relaxed);
  }
  /// A call ended without an answer. True once that has been so for `most` (zero: never), for kCalls calls at least.
  bool unanswered(Instant now, Duration most) {
    if (most <= Duration::zero()) return false;
    const std::lock_guard lock(mutex_);
    const std::uint32_t calls = calls_.load(std::memory_order_relaxed);
    if (calls == 0) since_ = now;
    calls_.store(calls + 1, std::memory_order_relaxed);
    return calls + 1 >= kCalls && now - since_ >= most;
  }

 private:
  static constexpr std::uint32_t kCalls = 3;
  std::atomic<std::uint32_t> calls_{0};
  std::mutex mutex_;
  Instant since_;
};

}  // namespace sluice::transport
