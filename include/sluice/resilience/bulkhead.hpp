// Bounds how many calls run at once, with a bounded queue in front. Calls in flight of up to four
// partitions are one 64-bit word, so the bound is exact without a lock; only those who wait take
// one.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "sluice/base/task.hpp"
#include "sluice/resilience/block.hpp"

namespace sluice::resilience {

inline constexpr std::size_t kPartitions = 4;
inline constexpr std::uint32_t kMaxInFlight = 65'535;

enum class QueueOrder : std::uint8_t {
  fifo,
  /// Newest first while the queue is at least half full: under overload the oldest have mostly
  /// been given up by their callers.
  lifo_under_overload,
};

struct BulkheadOptions {
  std::uint32_t limit = 64;  ///< calls at once, up to kMaxInFlight; 0 refuses all
  /// Guaranteed part of the limit of each partition; all 0: no partitions.
  std::array<double, kPartitions> shares{};
  /// What part of an unused guarantee others may borrow, [0, 1].
  double lend = 0.5;
  /// The part of the limit that calls of each priority may fill, critical first.
  std::array<double, kPriorities> priorities{1.0, 1.0, 0.75, 0.5};
  std::uint32_t max_queue = 0;  ///< callers waiting; 0: none
  Duration max_wait = milliseconds(100);
  QueueOrder order = QueueOrder::fifo;
};

struct BulkheadStats {
  std::uint32_t limit = 0, in_flight = 0, waiting = 0;
  std::array<std::uint32_t, kPartitions> partitions{};
};

class BulkheadTurn;

/// Thread-safe. Nobody may be in flight or waiting when it is destroyed.
class Bulkhead {
 public:
  explicit Bulkhead(BulkheadOptions options = {}, Policy policy = Policy::bulkhead);
  ~Bulkhead();
  Bulkhead(const Bulkhead&) = delete;
  Bulkhead& operator=(const Bulkhead&) = delete;

  /// A place, without waiting; give_back() it once. False: `block` says why. Without partitions
  /// and priorities nobody overtakes those who wait.
  bool try_take(std::uint8_t partition, Priority priority, Block& block) noexcept;
  void give_back(std::uint8_t partition) noexcept;
  /// `FailureKind k = co_await bulkhead.turn(partition, priority, deadline)`: none with a place
  /// taken; timeout after max_wait or the deadline; overloaded if the queue is full; or why the
  /// scope was cancelled. A place granted to a waiter that is gone goes to the next.
  BulkheadTurn turn(std::uint8_t partition, Priority priority, Instant deadline = kNever) noexcept;

  /// A lower limit takes effect as calls end.
  void set_limit(std::uint32_t limit) noexcept;
  std::uint32_t limit() const noexcept { return limit_.load(std::memory_order_relaxed); }
  std::uint32_t in_flight() const noexcept;
  /// Those in flight and waiting stay.
  void reconfigure(const BulkheadOptions& options) noexcept;
  BulkheadStats stats() const;

 private:
  friend class BulkheadTurn;
  struct Waiter;
  bool take_word(std::uint8_t partition, Priority priority, std::uint32_t& total) noexcept;
  bool fits(std::uint64_t word, std::uint8_t partition, Priority priority,
            std::uint32_t& total) const noexcept;
  /// How many calls of this priority and those before it may run at once.
  std::uint32_t cap_of(Priority priority) const noexcept {
    return caps_[static_cast<std::size_t>(priority) % kPriorities].load(std::memory_order_relaxed);
  }
  void set_bounds(std::uint32_t limit) noexcept;
  void grant() noexcept;
  void grant_locked(Waiter*& granted) noexcept;
  Waiter* next_to_grant() noexcept;
  void link(Waiter& waiter) noexcept;
  void unlink(Waiter& waiter) noexcept;

  const Policy policy_;
  alignas(64) std::atomic<std::uint64_t> in_flight_{0};  // sixteen bits a partition
  alignas(64) std::atomic<std::uint32_t> queued_{0};
  std::atomic<std::uint32_t> limit_{0};
  std::atomic<bool> partitioned_{false};
  std::atomic<bool> ranked_{false};  // a priority may not fill it all
  std::array<std::atomic<std::uint32_t>, kPartitions> guarantees_{};
  std::array<std::atomic<std::uint32_t>, kPriorities> caps_{};
  std::atomic<double> lend_{0};

  mutable std::mutex mutex_;
  BulkheadOptions options_;
  Waiter* oldest_ = nullptr;
  Waiter* newest_ = nullptr;
};

/// Waiting for a place, on a lane. See Bulkhead::turn.
class BulkheadTurn final : public Suspension {
 public:
  BulkheadTurn(Bulkhead& bulkhead, std::uint8_t partition, Priority priority,
               Instant deadline) noexcept
      : bulkhead_(bulkhead), partition_(partition), priority_(priority), deadline_(deadline) {}
  ~BulkheadTurn() override { abandon(); }
  bool await_ready() noexcept;
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) noexcept {
    if (!suspend(self)) {
      answer_ = cancel_kind();
      return false;
    }
    return enqueue();
  }
  FailureKind await_resume() const noexcept {
    return cancel_kind() != FailureKind::none ? cancel_kind() : answer_;
  }

 private:
  friend class Bulkhead;
  bool enqueue() noexcept;
  void on_cancel() noexcept override { abandon(); }
  void abandon() noexcept;
  void granted() noexcept;
  static void timed_out(void* owner) noexcept;

  Bulkhead& bulkhead_;
  std::uint8_t partition_;
  Priority priority_;
  Instant deadline_;
  FailureKind answer_ = FailureKind::none;
  Bulkhead::Waiter* waiter_ = nullptr;
  Timer timer_;
};

}  // namespace sluice::resilience
