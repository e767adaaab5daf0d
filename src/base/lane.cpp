#include "sluice/base/lane.hpp"

#include <utility>

#include "base/timer_wheel.hpp"

namespace sluice {
namespace {

thread_local Lane* current_lane = nullptr;

// How long one who posted may be kept running a lane that was lent to it.
constexpr int kLentTurns = 4;
constexpr std::size_t kLentJobs = 64;

constexpr std::int64_t kTickNs = 1'000'000;

std::uint64_t tick_reached(Instant at) noexcept {
  const std::int64_t ns = at.time_since_epoch().count();
  return ns <= 0 ? 0 : static_cast<std::uint64_t>(ns / kTickNs);
}
std::uint64_t tick_not_before(Instant at) noexcept {
  const std::int64_t ns = at.time_since_epoch().count();
  return ns <= 0 ? 0 : static_cast<std::uint64_t>(ns / kTickNs + (ns % kTickNs != 0 ? 1 : 0));
}

}  // namespace

// Known to its lane until it runs, so that a lane can free what never ran without walking its
// queue: intrusive jobs in there may be gone already, with the task that owned them.
struct Lane::FunctionJob : Job {
  FunctionJob(Lane& l, std::move_only_function<void()> w) : lane(l), work(std::move(w)) {
    run = &run_and_delete;
    const std::lock_guard lock(lane.functions_mutex_);
    following = lane.functions_;
    if (following != nullptr) following->preceding = this;
    lane.functions_ = this;
  }
  ~FunctionJob() {
    const std::lock_guard lock(lane.functions_mutex_);
    (preceding != nullptr ? preceding->following : lane.functions_) = following;
    if (following != nullptr) following->preceding = preceding;
  }
  static void run_and_delete(Job* job) noexcept {
    std::unique_ptr<FunctionJob> self(static_cast<FunctionJob*>(job));
    std::move_only_function<void()> work = std::move(self->work);
    self.reset();
    work();
  }
  Lane& lane;
  std::move_only_function<void()> work;
  FunctionJob* preceding = nullptr;
  FunctionJob* following = nullptr;
};

void Timer::arm(Lane& lane, Instant at, void (*fire)(void*) noexcept, void* owner) noexcept {
  cancel();
  lane_ = &lane;
  fire_ = fire;
  owner_ = owner;
  lane.wheel_->insert(*this, tick_not_before(at));
}

void Timer::disarm() noexcept {
  lane_->wheel_->remove(*this);
  lane_ = nullptr;
}

Lane::Lane(Clock& clock)
    : clock_(clock), turn_time_(clock.now()), wheel_(std::make_unique<TimerWheel>()) {
  wheel_->start_at(tick_reached(turn_time_));
}

Lane::~Lane() {
  // Timers may outlive the lane (an exchange torn down late); they only have to forget it.
  wheel_->clear([](Timer& timer) { timer.lane_ = nullptr; });
  // A callable's destructor may post again; that is freed as well.
  while (functions_ != nullptr) delete functions_;
}

Lane* Lane::current() noexcept { return current_lane; }

void Lane::post(Job& job) noexcept {
  if (current_lane == this) return append(job, job);
  push(job);
  // Pushed first, then looked: whoever goes to sleep says so first and looks then.
  Drive now = drive_.load(std::memory_order_seq_cst);
  while (now == Drive::asleep || now == Drive::lent) {
    const Drive then = now == Drive::asleep ? Drive::driven : Drive::handed;
    if (!drive_.compare_exchange_weak(now, then, std::memory_order_seq_cst)) continue;
    if (Waker* waker = waker_.load(std::memory_order_acquire)) waker->wake();
    return;
  }
}

void Lane::push(Job& job) noexcept {
  Job* head = incoming_.load(std::memory_order_relaxed);
  do {
    job.next = head;
  } while (!incoming_.compare_exchange_weak(head, &job, std::memory_order_seq_cst,
                                            std::memory_order_relaxed));
}

bool Lane::post_or_run(Job& job) noexcept {
  Drive lent = Drive::lent;
  if (current_lane != nullptr ||
      !drive_.compare_exchange_strong(lent, Drive::driven, std::memory_order_seq_cst)) {
    post(job);
    return false;
  }
  // Ours now: behind what came before, without the way over the stack.
  take_incoming();
  append(job, job);
  run_lent();
  return true;
}

// Until nothing is ready, at most kLentTurns; then the drive is lent again or handed back.
void Lane::run_lent() noexcept {
  for (int turn = 0; turn < kLentTurns; ++turn) {
    run_ready(kLentJobs);
    if (has_ready()) continue;
    if (next_timer() < lent_until_) return hand_back();  // its driver sleeps too long
    drive_.store(Drive::lent, std::memory_order_seq_cst);
    const bool wanted = wanted_.load(std::memory_order_seq_cst);
    if (!wanted && incoming_.load(std::memory_order_seq_cst) == nullptr) return;
    Drive lent = Drive::lent;
    if (!drive_.compare_exchange_strong(lent, Drive::driven, std::memory_order_seq_cst)) return;
    if (wanted) return hand_back();
  }
  hand_back();
}

void Lane::hand_back() noexcept {
  drive_.store(Drive::handed, std::memory_order_seq_cst);
  if (Waker* waker = waker_.load(std::memory_order_acquire)) waker->wake();
}

bool Lane::lend(Instant until) noexcept {
  if (ready_head_ != nullptr) return false;
  lent_until_ = until;
  drive_.store(Drive::lent, std::memory_order_seq_cst);
  if (incoming_.load(std::memory_order_seq_cst) == nullptr) return true;
  Drive lent = Drive::lent;
  // Not ours any more: whoever has it runs what came, or calls the waker.
  return !drive_.compare_exchange_strong(lent, Drive::driven, std::memory_order_seq_cst);
}

bool Lane::take_back() noexcept {
  // Said first, then tried: whoever lends again lends first and looks at this then.
  wanted_.store(true, std::memory_order_seq_cst);
  Drive now = drive_.load(std::memory_order_seq_cst);
  while (now != Drive::driven) {
    if (!drive_.compare_exchange_weak(now, Drive::driven, std::memory_order_seq_cst)) continue;
    wanted_.store(false, std::memory_order_relaxed);
    return true;
  }
  return false;
}

void Lane::post(std::move_only_function<void()> work) {
  post(*new FunctionJob(*this, std::move(work)));
}

void Lane::append(Job& first, Job& last) noexcept {
  last.next = nullptr;
  if (ready_tail_ != nullptr)
    ready_tail_->next = &first;
  else
    ready_head_ = &first;
  ready_tail_ = &last;
}

bool Lane::take_incoming() noexcept {
  // Looked at first: an exchange costs as much when there is nothing.
  if (incoming_.load(std::memory_order_relaxed) == nullptr) return false;
  Job* stack = incoming_.exchange(nullptr, std::memory_order_seq_cst);
  Job* last = stack;
  Job* ordered = nullptr;
  while (stack != nullptr) {
    Job* following = stack->next;
    stack->next = ordered;
    ordered = stack;
    stack = following;
  }
  append(*ordered, *last);
  return true;
}

std::size_t Lane::run_ready(std::size_t limit) {
  Lane* const outer = current_lane;
  current_lane = this;
  drive_.store(Drive::driven, std::memory_order_relaxed);
  turn_time_ = clock_.now();
  std::size_t ran = 0;
  Timer* due = wheel_->advance(tick_reached(turn_time_));
  if (due != nullptr) due->link_ = &due;  // `due` was returned by value; callbacks may unlink
  while (due != nullptr) {
    Timer* const timer = due;
    due = timer->next_;
    if (due != nullptr) due->link_ = &due;
    timer->next_ = nullptr;
    timer->link_ = nullptr;
    timer->lane_ = nullptr;
    timer->fire_(timer->owner_);
    ++ran;
  }
  take_incoming();
  while (ran < limit) {
    if (ready_head_ == nullptr && !take_incoming()) break;
    Job* const job = ready_head_;
    ready_head_ = job->next;
    if (ready_head_ == nullptr) ready_tail_ = nullptr;
    job->run(job);
    ++ran;
  }
  current_lane = outer;
  return ran;
}

bool Lane::prepare_to_sleep() noexcept {
  if (ready_head_ != nullptr) return false;
  drive_.store(Drive::asleep, std::memory_order_seq_cst);
  if (incoming_.load(std::memory_order_seq_cst) == nullptr) return true;
  drive_.store(Drive::driven, std::memory_order_relaxed);
  return false;
}

Instant Lane::next_timer() const noexcept {
  const std::uint64_t tick = wheel_->next_tick();
  if (tick == UINT64_MAX) return kNever;
  return Instant(Duration(static_cast<std::int64_t>(tick) * kTickNs));
}

}  // namespace sluice
