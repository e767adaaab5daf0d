// Threads: the parker, named threads, the executor and the thread of a lane.
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>
#include <thread>

#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

// States of a Parker. Parked is only ever set by the parking thread.
constexpr std::uint32_t kIdle = 0;
constexpr std::uint32_t kWoken = 1;
constexpr std::uint32_t kParked = 2;

// How many turns a stopping lane gets to finish what is ready; jobs that keep posting themselves
// must not keep the process alive.
constexpr int kStopTurnsMax = 1000;

long futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value,
           const timespec* until) noexcept {
  return syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), operation | FUTEX_PRIVATE_FLAG,
                 value, until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

}  // namespace

bool Parker::park(Duration max) noexcept {
  std::uint32_t expected = kWoken;
  if (state_.compare_exchange_strong(expected, kIdle, std::memory_order_acquire)) return true;
  if (max <= Duration::zero()) return false;
  expected = kIdle;
  if (!state_.compare_exchange_strong(expected, kParked, std::memory_order_acquire)) {
    // An exchange, not a store: another wake() may come in between, and what its caller wrote before
    // must be seen by whoever looks after park(). A plain store may still sit in the store buffer
    // while the caller's next load runs; it would then wipe out that wake() unseen.
    state_.exchange(kIdle, std::memory_order_acquire);
    return true;
  }
  timespec until{};
  // A year is as good as for ever, and leaves room before the sum overflows.
  const bool bounded = max < std::chrono::hours(24 * 365);
  if (bounded) {
    const Duration at = RealClock().now().time_since_epoch() + max;
    until.tv_sec = static_cast<time_t>(at.count() / 1'000'000'000);
    until.tv_nsec = static_cast<long>(at.count() % 1'000'000'000);
  }
  for (;;) {
    const long rc = futex(state_, FUTEX_WAIT_BITSET, kParked, bounded ? &until : nullptr);
    const bool late = rc != 0 && errno == ETIMEDOUT;
    if (state_.load(std::memory_order_acquire) == kWoken || late)
      return state_.exchange(kIdle, std::memory_order_acquire) == kWoken;
  }
}

void Parker::wake() noexcept {
  // After the exchange the Parker may be gone; waking a dead address is harmless (a spurious
  // wake-up at worst), touching it is not.
  if (state_.exchange(kWoken, std::memory_order_acq_rel) == kParked)
    futex(state_, FUTEX_WAKE_BITSET, INT_MAX, nullptr);
}

struct Thread::Impl {
  std::thread thread;
};

Thread::Thread() noexcept = default;
Thread::Thread(Thread&&) noexcept = default;
Thread& Thread::operator=(Thread&& other) noexcept {
  if (this != &other) {
    join();
    impl_ = std::move(other.impl_);
  }
  return *this;
}

Thread::Thread(std::string name, std::function<void()> body) : impl_(std::make_unique<Impl>()) {
  name.resize(std::min<std::size_t>(name.size(), 15));  // Linux keeps 15 characters
  impl_->thread = std::thread([name = std::move(name), body = std::move(body)] {
    pthread_setname_np(pthread_self(), name.c_str());
    body();
  });
}

Thread::~Thread() { join(); }

void Thread::join() noexcept {
  if (!joinable()) return;
  SLUICE_ASSERT(impl_->thread.get_id() != std::this_thread::get_id(), "a thread joined itself");
  impl_->thread.join();
}

bool Thread::joinable() const noexcept { return impl_ && impl_->thread.joinable(); }

namespace {

class ThreadWorker final : public Worker {
 public:
  ThreadWorker(Clock& clock, std::string name, Executor::Step step)
      : clock_(clock), step_(std::move(step)), thread_(std::move(name), [this] { loop(); }) {}
  ~ThreadWorker() override {
    stopping_.store(true, std::memory_order_release);
    parker_.wake();
    thread_.join();
  }
  void wake() noexcept override { parker_.wake(); }

 private:
  void loop() noexcept {
    while (!stopping_.load(std::memory_order_acquire)) {
      const Instant next = step_();
      if (next == kNever) {
        parker_.park();
        continue;
      }
      // Compared, not subtracted: Instant::min() is a fair way to say "at once".
      const Instant now = clock_.now();
      if (next > now) parker_.park(next - now);
    }
  }
  Clock& clock_;
  Executor::Step step_;
  Parker parker_;
  std::atomic<bool> stopping_{false};
  Thread thread_;
};

}  // namespace

std::unique_ptr<Worker> RealExecutor::start(std::string name, Step step) {
  return std::make_unique<ThreadWorker>(clock_, std::move(name), std::move(step));
}

LaneThread::LaneThread(Clock& clock, std::string name) : name_(std::move(name)), lane_(clock) {
  lane_.set_waker(&sleeper_);
}

LaneThread::~LaneThread() {
  stop();
  join();
}

void LaneThread::start() {
  if (thread_.joinable()) return;
  stopping_.store(false, std::memory_order_relaxed);
  thread_ = Thread(name_, [this] { drive(); });
}

void LaneThread::stop() noexcept {
  stopping_.store(true, std::memory_order_release);
  sleeper_.wake();
}

void LaneThread::join() noexcept { thread_.join(); }

void LaneThread::drive() noexcept {
  while (!stopping_.load(std::memory_order_acquire)) {
    if (lane_.run_ready() > 0) continue;
    const Instant next = lane_.next_timer();
    if (!lane_.lend(next)) continue;
    if (next == kNever)
      sleeper_.parker.park();
    else
      sleeper_.parker.park(next - lane_.clock().now());
    while (!lane_.take_back()) sleeper_.parker.park();
  }
  for (int turn = 0; turn < kStopTurnsMax && lane_.run_ready() > 0; ++turn) {
  }
}

}  // namespace sluice
