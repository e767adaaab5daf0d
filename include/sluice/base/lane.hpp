// A lane: one run queue and one timer wheel, driven by exactly one thread at a time. Everything
// that belongs to an exchange runs on its lane, so exchanges need no locks. Who drives it is
// pluggable: a thread of its own (base/runtime), a network event loop, or the simulator. A driver
// that sleeps may lend the drive to whoever posts (post_or_run), which saves waking it.
#pragma once
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>

#include "sluice/base/time.hpp"

namespace sluice {

/// Intrusive unit of work. The lane calls run(this) once and forgets it; whoever posted owns it.
struct Job {
  void (*run)(Job*) noexcept = nullptr;
  Job* next = nullptr;
};

/// Told when work arrives from another thread while the driver may be asleep. Thread-safe.
class Waker {
 public:
  virtual ~Waker() = default;
  virtual void wake() noexcept = 0;
};

class Lane;

/// A one-shot timer, embedded in its owner; re-armable; destroying it cancels it. Lane-only.
class Timer {
 public:
  Timer() = default;
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { cancel(); }
  /// Fires `fire(owner)` on the lane at or after `at` (resolution 1 ms, never early). Re-arming
  /// an armed timer moves it.
  void arm(Lane& lane, Instant at, void (*fire)(void* owner) noexcept, void* owner) noexcept;
  void cancel() noexcept {
    if (lane_ != nullptr) disarm();
  }
  bool armed() const noexcept { return lane_ != nullptr; }

 private:
  friend class Lane;
  friend class TimerWheel;
  void disarm() noexcept;
  Lane* lane_ = nullptr;
  Timer* next_ = nullptr;
  Timer** link_ = nullptr;  // what points at us
  std::uint64_t tick_ = 0;
  std::uint8_t level_ = 0;
  std::uint8_t slot_ = 0;
  void (*fire_)(void*) noexcept = nullptr;
  void* owner_ = nullptr;
};

class TimerWheel;

class Lane {
 public:
  /// `clock` must outlive the lane.
  explicit Lane(Clock& clock);
  /// Disarms its timers and drops what was not run (intrusive jobs stay their owners').
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  /// The lane whose job is running on this thread, or null.
  static Lane* current() noexcept;

  /// Queues a job, from any thread, FIFO per poster. Wakes the driver if it may be asleep.
  void post(Job& job) noexcept;
  /// The same for a callable; allocates.
  void post(std::move_only_function<void()> work);
  /// As post(); but when the lane's driver sleeps and lends the drive, and this thread is on no
  /// lane, the lane runs here: this job, whatever else is ready and due, a bounded number of jobs.
  /// For threads that may be kept that long and hold no lock a job could want. True: it ran here.
  bool post_or_run(Job& job) noexcept;

  Clock& clock() noexcept { return clock_; }
  /// Time of the current turn: one clock read per turn of the loop. Lane-only.
  Instant turn_time() const noexcept { return turn_time_; }

  // Driver's side, one thread at a time.
  void set_waker(Waker* waker) noexcept { waker_.store(waker, std::memory_order_release); }
  /// Runs due timers and up to `limit` ready jobs; returns how many ran.
  std::size_t run_ready(std::size_t limit = 256);
  /// Whether a job waits to be run (due timers apart).
  bool has_ready() const noexcept {
    return ready_head_ != nullptr || incoming_.load(std::memory_order_acquire) != nullptr;
  }
  /// True when nothing is ready; afterwards a post() from elsewhere will call the waker.
  bool prepare_to_sleep() noexcept;
  /// The same, and lends the drive while its driver sleeps: nothing of the driver's side may be
  /// called until take_back() was true. `until`: what next_timer() said.
  bool lend(Instant until) noexcept;
  /// After lend(), when the waker was called or `until` came: whether the drive is the caller's
  /// again. False: another thread has it, and calls the waker when it is done.
  bool take_back() noexcept;
  /// When the earliest timer is due; kNever without one. May be early, never late.
  Instant next_timer() const noexcept;

 private:
  friend class Timer;
  // driven: by its driver or by whom it was lent to. asleep: by nobody. lent: by nobody, and
  // whoever posts may take it. handed: to the driver, whose waker was called.
  enum class Drive : std::uint8_t { driven, asleep, lent, handed };
  void push(Job& job) noexcept;
  void append(Job& first, Job& last) noexcept;
  void run_lent() noexcept;
  void hand_back() noexcept;
  bool take_incoming() noexcept;
  Clock& clock_;
  Instant turn_time_;
  std::atomic<Job*> incoming_{nullptr};  // LIFO stack, reversed on take
  std::atomic<Drive> drive_{Drive::driven};
  std::atomic<bool> wanted_{false};  // its driver is awake and waits for the drive
  Instant lent_until_ = kNever;      // belongs to whoever drives
  std::atomic<Waker*> waker_{nullptr};
  Job* ready_head_ = nullptr;
  Job* ready_tail_ = nullptr;
  std::unique_ptr<TimerWheel> wheel_;
  struct FunctionJob;
  std::mutex functions_mutex_;
  FunctionJob* functions_ = nullptr;  // posted callables that have not run
};

}  // namespace sluice
