// The real runtime: operating-system time, randomness, files and threads behind the interfaces
// the rest of the product is given by constructor. Only src/base/runtime/real_* may use threads,
// sleeps, wall clocks or the entropy device; sim/ has the simulated counterparts.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "sluice/base/executor.hpp"
#include "sluice/base/files.hpp"
#include "sluice/base/lane.hpp"
#include "sluice/base/random.hpp"
#include "sluice/base/task.hpp"
#include "sluice/base/time.hpp"

namespace sluice {

/// CLOCK_MONOTONIC and CLOCK_REALTIME. Thread-safe, 30 ns a call.
class RealClock final : public Clock {
 public:
  Instant now() noexcept override;
  WallTime wall() noexcept override;
  WallTime coarse_wall() noexcept override;
};

/// next(): a fast generator per thread, seeded by the operating system. secret(): the operating
/// system's own generator; aborts when that fails, because a guessable token is worse.
class RealRandom final : public Random {
 public:
  std::uint64_t next() noexcept override;
  void secret(std::byte* out, std::size_t size) noexcept override;
};

/// POSIX files. Creating, renaming and durable removal also sync the directory.
class RealFiles final : public Files {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override;
  Result<bool> exists(const std::string& path) override;
  Status remove(const std::string& path, bool durable) override;
  Status rename(const std::string& from, const std::string& to) override;
};

/// Lets one thread sleep until another wakes it. A wake() that comes first is remembered (once).
/// wake() is one atomic exchange unless the other side sleeps. park() by one thread only.
class Parker {
 public:
  /// Sleeps until wake() or for `max` of real time; Duration::max() means without limit.
  /// True: woken.
  bool park(Duration max = Duration::max()) noexcept;
  void wake() noexcept;

 private:
  std::atomic<std::uint32_t> state_{0};
};

/// A named thread, joined on destruction. For activities that fit neither a lane nor an Executor.
/// An exception that leaves `body` ends the process: catch at the room's wall.
class Thread {
 public:
  Thread() noexcept;
  Thread(std::string name, std::function<void()> body);
  Thread(Thread&&) noexcept;
  Thread& operator=(Thread&&) noexcept;
  ~Thread();
  /// Idempotent; never on the thread itself.
  void join() noexcept;
  bool joinable() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One thread per activity, asleep between steps.
class RealExecutor final : public Executor {
 public:
  explicit RealExecutor(Clock& clock) noexcept : clock_(clock) {}
  std::unique_ptr<Worker> start(std::string name, Step step) override;

 private:
  Clock& clock_;
};

/// A lane and the thread that drives it. Whoever posts to the lane must stop posting before the
/// LaneThread is destroyed: declare it before the stores and clients that answer to it.
class LaneThread {
 public:
  /// `clock` must be real time (the thread sleeps by it) and outlive this.
  explicit LaneThread(Clock& clock, std::string name = "lane");
  ~LaneThread();
  LaneThread(const LaneThread&) = delete;
  LaneThread& operator=(const LaneThread&) = delete;

  Lane& lane() noexcept { return lane_; }
  /// Idempotent; also starts again after stop() and join(). Not concurrently with itself.
  void start();
  /// Asks the thread to end after the work that is ready. Thread-safe, idempotent, returns at once.
  /// Armed timers do not fire any more; jobs posted later stay queued.
  void stop() noexcept;
  /// Waits for the end after stop(). Idempotent; never on the lane.
  void join() noexcept;

 private:
  void drive() noexcept;
  struct Sleeper final : Waker {
    Parker parker;
    void wake() noexcept override { parker.wake(); }
  };
  std::string name_;
  Sleeper sleeper_;
  Lane lane_;
  std::atomic<bool> stopping_{false};
  Thread thread_;
};

/// Runs the task on the lane and waits for it; rethrows what it threw. For tests and the command
/// line; never on a lane. Starts the lane's thread if it is not running. The context has no
/// deadline unless one is given, and `scope` (may be null) is only touched on the lane.
template <class T>
T block_on(LaneThread& thread, Task<T> task, Instant deadline = kNever,
           CancelScope* scope = nullptr) {
  struct Call : Job {
    Task<T>* task = nullptr;
    TaskContext context;
    Parker done;
    static void begin(Job* job) noexcept {
      auto* self = static_cast<Call*>(job);
      if (self->task->start(self->context, &finished, self)) self->done.wake();
    }
    // The frame may not be destroyed while its lane is still inside it, so the answer is given
    // from a turn of its own.
    static void finished(void* owner) noexcept {
      auto* self = static_cast<Call*>(owner);
      self->run = [](Job* job) noexcept { static_cast<Call*>(job)->done.wake(); };
      self->context.lane->post(*self);
    }
  } call;
  call.run = &Call::begin;
  call.task = &task;
  call.context.lane = &thread.lane();
  call.context.deadline = deadline;
  call.context.scope = scope;
  thread.start();
  thread.lane().post(call);
  call.done.park();
  return task.take();
}

}  // namespace sluice
