#include "sim/scheduler.hpp"

#include <algorithm>
#include <vector>

namespace sluice::sim {

class SimWorker final : public Worker {
 public:
  SimWorker(SimScheduler& scheduler, SimScheduler::Actor& actor)
      : scheduler_(scheduler), actor_(actor) {}
  ~SimWorker() override {
    SLUICE_ASSERT(!actor_.running, "a worker was destroyed inside its own step");
    scheduler_.actors_.remove_if([&](const auto& actor) { return &actor == &actor_; });
  }
  void wake() noexcept override { actor_.woken = true; }

 private:
  SimScheduler& scheduler_;
  SimScheduler::Actor& actor_;
};

SimScheduler::SimScheduler(SimClock& clock, std::uint64_t seed, History* history,
                           SchedulerOptions options)
    : clock_(clock), random_(seed), history_(history), options_(options) {}

SimScheduler::~SimScheduler() = default;

Lane& SimScheduler::add_lane(std::string name) {
  Actor& actor = actors_.emplace_back();
  actor.name = std::move(name);
  actor.lane = std::make_unique<Lane>(clock_);
  return *actor.lane;
}

void SimScheduler::drop_lane(Lane& lane) {
  actors_.remove_if([&](const Actor& actor) { return actor.lane.get() == &lane; });
}

std::unique_ptr<Worker> SimScheduler::start(std::string name, Step step) {
  Actor& actor = actors_.emplace_back();
  actor.name = std::move(name);
  actor.step = std::move(step);
  actor.woken = true;
  return std::make_unique<SimWorker>(*this, actor);
}

void SimScheduler::at(Instant time, std::function<void()> event) {
  events_.emplace(time, std::move(event));
}

Instant SimScheduler::next_time(const Actor& actor) const noexcept {
  if (actor.running) return kNever;
  Instant next;
  if (actor.lane)
    next = actor.lane->has_ready() ? clock_.now() : actor.lane->next_timer();
  else
    next = actor.woken ? clock_.now() : actor.next;
  return next == kNever ? kNever : std::max(next, actor.stalled_until);
}

bool SimScheduler::wants_to_run(const Actor& actor) const noexcept {
  return next_time(actor) <= clock_.now();
}

void SimScheduler::run(Actor& actor) {
  if (options_.stall_one_in != 0 && random_.one_in(options_.stall_one_in)) {
    const auto stall = static_cast<std::int64_t>(
        random_.below(static_cast<std::uint64_t>(options_.stall_max.count()) + 1));
    actor.stalled_until = clock_.now() + Duration(stall);
    return;
  }
  actor.running = true;
  if (actor.lane) {
    actor.lane->run_ready(1 + random_.below(options_.jobs_per_step_max));
  } else {
    actor.woken = false;
    actor.next = actor.step();
  }
  actor.running = false;
}

bool SimScheduler::step() {
  ++steps_;
  std::vector<Actor*> ready;
  Instant next = kNever;
  for (Actor& actor : actors_) {
    const Instant when = next_time(actor);
    if (when <= clock_.now())
      ready.push_back(&actor);
    else
      next = std::min(next, when);
  }
  const bool event_due = !events_.empty() && events_.begin()->first <= clock_.now();
  const std::size_t choices = ready.size() + (event_due ? 1 : 0);
  if (choices > 0) {
    const std::size_t chosen = random_.below(choices);
    if (chosen < ready.size()) {
      if (history_ != nullptr)
        history_->note(ready[chosen]->name,
                       static_cast<std::uint64_t>(clock_.now().time_since_epoch().count()));
      run(*ready[chosen]);
    } else {
      auto event = events_.extract(events_.begin());
      if (history_ != nullptr)
        history_->note("event",
                       static_cast<std::uint64_t>(clock_.now().time_since_epoch().count()));
      event.mapped()();
    }
    return true;
  }
  if (!events_.empty()) next = std::min(next, events_.begin()->first);
  if (next == kNever) return false;
  clock_.advance_to(next);
  return true;
}

bool SimScheduler::run_until(const std::function<bool()>& done, std::uint64_t steps_max) {
  for (std::uint64_t i = 0; i < steps_max; ++i) {
    if (done()) return true;
    if (!step()) return true;
  }
  return done();
}

bool SimScheduler::run_to(Instant until, std::uint64_t steps_max) {
  bool reached = false;
  at(until, [&] { reached = true; });
  const auto quiet = [&] {
    return reached &&
           std::ranges::none_of(actors_, [&](const Actor& a) { return wants_to_run(a); });
  };
  return run_until(quiet, steps_max) && reached;
}

}  // namespace sluice::sim
