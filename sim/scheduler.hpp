// One thread that plays all of them. Lanes, background activities (it is the Executor of the
// simulation) and timed events are interleaved by a seed under virtual time: whatever is ready may
// run next, anything may be stalled for a while, and time jumps when nothing is ready.
#pragma once
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "sim/clock.hpp"
#include "sim/history.hpp"
#include "sim/random.hpp"
#include "sluice/base/executor.hpp"
#include "sluice/base/task.hpp"

namespace sluice::sim {

struct SchedulerOptions {
  /// A chosen actor is set aside once in this many times, for up to stall_max; 0: never.
  std::uint64_t stall_one_in = 64;
  Duration stall_max = milliseconds(20);
  /// A lane runs up to this many jobs in one step.
  std::uint64_t jobs_per_step_max = 4;
};

class SimScheduler final : public Executor {
 public:
  /// `clock` and `history` must outlive this; `history` may be null.
  SimScheduler(SimClock& clock, std::uint64_t seed, History* history = nullptr,
               SchedulerOptions options = {});
  ~SimScheduler() override;

  /// A lane of the simulation, owned by the scheduler until drop_lane().
  Lane& add_lane(std::string name);
  void drop_lane(Lane& lane);
  /// The product's background activities. A Worker may outlive nothing: destroy it first.
  std::unique_ptr<Worker> start(std::string name, Step step) override;
  /// Runs `event` once at this time, in the order of times and then of calls.
  void at(Instant time, std::function<void()> event);
  void after(Duration delay, std::function<void()> event) {
    at(clock_.now() + delay, std::move(event));
  }
  /// Forgets all events: what was on its way when everything stopped.
  void drop_events() noexcept { events_.clear(); }

  /// One step: runs one ready actor or event, or moves time to the next. False: nothing is left
  /// to do, now or later.
  bool step();
  /// Steps until `done()` or nothing is left. False: neither happened within `steps_max`, which
  /// usually means that something waits for itself.
  bool run_until(const std::function<bool()>& done, std::uint64_t steps_max);
  /// Steps until nothing is ready and the clock has reached `until`.
  bool run_to(Instant until, std::uint64_t steps_max);

  std::uint64_t steps() const noexcept { return steps_; }

 private:
  friend class SimWorker;
  struct Actor {
    std::string name;
    std::unique_ptr<Lane> lane;  // else a worker
    Step step;
    Instant next = kNever;
    bool woken = false;
    bool running = false;
    Instant stalled_until{};
  };
  bool wants_to_run(const Actor& actor) const noexcept;
  Instant next_time(const Actor& actor) const noexcept;
  void run(Actor& actor);

  SimClock& clock_;
  SimRandom random_;
  History* history_;
  SchedulerOptions options_;
  std::list<Actor> actors_;
  std::multimap<Instant, std::function<void()>> events_;
  std::uint64_t steps_ = 0;
};

/// Runs a task to its end on `lane`, stepping the simulation. Panics after `steps_max` steps.
template <class T>
T run_task(SimScheduler& scheduler, Lane& lane, Task<T> task, CancelScope* scope = nullptr,
           std::uint64_t steps_max = 1'000'000) {
  TaskContext context{&lane, scope, kNever};
  bool done = false;
  lane.post([&] {
    done =
        task.start(context, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &done);
  });
  const bool ended = scheduler.run_until([&] { return done; }, steps_max);
  SLUICE_ASSERT(ended && done, "a simulated task did not end within its bound of steps");
  return task.take();
}

}  // namespace sluice::sim
