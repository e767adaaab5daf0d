// A counted set of permits, lock-free, and the flag that keeps newcomers behind those who queue.
#pragma once
#include <atomic>
#include <cstddef>

namespace sluice::admission {

/// The queue itself is its owner's. A releaser looks at queued() after giving back, a waiter
/// announces itself before its last try; both are sequentially consistent, so one of the two
/// sees the other and no permit is lost.
class Permits {
 public:
  /// Takes `count` if no more than `limit` are out then; `before` is how many were.
  bool try_take(std::size_t count, std::size_t limit, std::size_t& before) noexcept {
    before = in_use_.load(std::memory_order_relaxed);
    while (before + count <= limit)
      if (in_use_.compare_exchange_weak(before, before + count, std::memory_order_seq_cst)) return true;
    return false;
  }
  void give_back(std::size_t count) noexcept { in_use_.fetch_sub(count, std::memory_order_seq_cst); }
  void announce() noexcept { queued_.fetch_add(1, std::memory_order_seq_cst); }
  void withdraw() noexcept { queued_.fetch_sub(1, std::memory_order_seq_cst); }
  std::size_t queued() const noexcept { return queued_.load(std::memory_order_seq_cst); }
  std::size_t in_use() const noexcept { return in_use_.load(std::memory_order_seq_cst); }

 private:
  alignas(64) std::atomic<std::size_t> in_use_{0};
  alignas(64) std::atomic<std::size_t> queued_{0};
};

}  // namespace sluice::admission
