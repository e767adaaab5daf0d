// All limits of one protector at once, with queues under the deterministic scheduler.
#include <gtest/gtest.h>

#include <deque>

#include "resilience/limits_fixture.hpp"
#include "sim/scheduler.hpp"
#include "sluice/resilience/guarded.hpp"

namespace sluice::resilience {
namespace {

// The same policies with queues, turns to wait for, timeouts, retries, hedges and callers that leave, on
// two lanes in an order that the seed chooses. After every step of the scheduler the limits hold.
class Queued {
 public:
  explicit Queued(std::uint64_t seed) : random_(seed), scheduler_(clock_, seed) {
    for (int i = 0; i < 2; ++i) lanes_.push_back(&scheduler_.add_lane(fmt::format("lane-{}", i)));
    reload();
  }

  void explore(std::uint64_t steps) {
    began_ = clock_.now();
    for (std::uint64_t step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
      if (callers_.size() < 40 && random_.one_in(8)) come();
      if (random_.one_in(400)) leave();
      if (random_.one_in(3'000)) reload();
      if (random_.one_in(1'500)) health_ = random_.below(101);
      if (!scheduler_.step()) clock_.advance(microseconds(200));
      std::erase_if(callers_, [](const auto& caller) { return caller->ended; });
      check(step);
    }
    reload();  // a rule with queue and places, whatever the last one was
    ASSERT_TRUE(scheduler_.run_until(
        [&] { return std::ranges::all_of(callers_, [](const auto& caller) { return caller->ended; }); }, 1'000'000));
    callers_.clear();
    EXPECT_EQ(running_, 0u);
    const ProtectorSnapshot shown = guard_.snapshot(clock_.now());
    EXPECT_EQ(shown.bulkhead->in_flight, 0u);
    EXPECT_EQ(shown.bulkhead->waiting, 0u);
    EXPECT_EQ(shown.breaker->trials_running, 0u);
    clock_.advance(seconds(10));
    EXPECT_EQ(guard_.snapshot(clock_.now()).tokens, kBurst);
  }
  std::uint64_t calls = 0, left = 0, half_open = 0, full = 0;
  std::array<std::uint64_t, 7> started{};  // by the breaker's state

 private:
  static constexpr std::uint64_t kNoGeneration = UINT64_MAX;
  static constexpr std::uint64_t kRate = 300, kBurst = 20;  // per 100 ms
  struct Caller {
    Task<Result<int>> task;
    CancelScope scope;
    TaskContext context;
    bool ended = false;
    Lane* lane = nullptr;
  };

  void reload() {
    places_ = 1 + static_cast<std::uint32_t>(random_.below(6));
    // A lower limit takes effect as calls end: who has a place keeps it, also if it does not run yet.
    const auto before = guard_.snapshot(clock_.now()).bulkhead;
    most_places_ = std::max(places_, before ? before->in_flight : 0);
    auto rules = parse_rules(
        fmt::format("[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 20\nminimum_calls = 6\nisolation = \"10ms\"\n"
                    "isolation_max = \"40ms\"\ntrials = {}\n"
                    "[guard.a.rate]\nlimit = {}\nperiod = \"100ms\"\nburst = {}\n"
                    "[guard.a.pacing]\nlimit = {}\nperiod = \"100ms\"\nmax_wait = \"5ms\"\n"
                    "[guard.a.hot_keys]\nlimit = 100\nperiod = \"100ms\"\n"
                    "[guard.a.bulkhead]\nlimit = {}\nmax_queue = {}\nmax_wait = \"4ms\"\norder = \"{}\"\n"
                    "[guard.a.timeout]\ntimeout = \"3ms\"\nmargin = \"500us\"\n"
                    "[guard.a.retry]\nattempts = 3\nbase = \"1ms\"\nmax = \"2ms\"\n"
                    "[guard.a.hedge]\ndelay = \"1ms\"\n",
                    kTrials, kRate, kBurst, 200 + random_.below(400), places_, random_.below(12),
                    random_.one_in(2) ? "fifo" : "lifo_under_overload"),
        "queued.toml");
    ASSERT_TRUE(rules) << rules.error().to_string();
    const auto done = guards_.reload(std::move(*rules));
    ASSERT_TRUE(done) << done.error().to_string();
  }

  struct Witness {
    Queued& self;
    explicit Witness(Queued& queued) : self(queued) {
      ++self.calls;
      ++self.running_;
      EXPECT_LE(self.running_, self.most_places_) << "one more than the limit";
      note_state();
    }
    ~Witness() {
      --self.running_;
      if (trial_of == self.trial_generation_) --self.trials_on_;
    }
    void note_state() {
      const BreakerSnapshot breaker = *self.guard_.snapshot(self.clock_.now()).breaker;
      ++self.started[static_cast<std::size_t>(breaker.state)];
      EXPECT_NE(breaker.state, BreakerState::open) << "a call began under an open breaker";
      if (breaker.state != BreakerState::half_open) return;
      trial_of = breaker.generation;
      if (std::exchange(self.trial_generation_, trial_of) != trial_of) self.trials_on_ = 0;
      EXPECT_LE(++self.trials_on_, kTrials) << "more calls at once than trials";
    }
    std::uint64_t trial_of = kNoGeneration;
  };
  Task<Result<int>> work() {
    const Witness witness(*this);
    if (!random_.one_in(4)) {
      const auto hangs = random_.one_in(10);
      const FailureKind cut = co_await sleep_for(microseconds(hangs ? 60'000'000 : random_.below(2'500)));
      if (cut != FailureKind::none) co_return fail(Failure(cut));
    }
    if (random_.below(100) >= health_) co_return fail(Failure(FailureKind::unavailable));
    co_return 1;
  }

  void come() {
    auto& caller = *callers_.emplace_back(std::make_shared<Caller>());
    caller.lane = lanes_[random_.below(lanes_.size())];
    const Instant deadline = random_.one_in(2) ? kNever : clock_.now() + microseconds(random_.below(8'000));
    caller.context = {caller.lane, &caller.scope, deadline};
    GuardedCall call;
    call.has_key = random_.one_in(2);
    call.weight = static_cast<std::uint32_t>(random_.below(3));
    if (random_.one_in(2)) call.hot_key = fmt::format("key-{}", random_.below(4));
    caller.task = guarded(guard_, std::move(call), random_, [this](AttemptNote&) { return work(); });
    const auto ended = [](void* self) noexcept {
      auto* one = static_cast<Caller*>(self);
      (void)one->task.take();
      one->ended = true;
    };
    caller.lane->post([&caller, ended] {
      if (caller.task.start(caller.context, ended, &caller)) ended(&caller);
    });
  }
  void leave() {
    if (callers_.empty()) return;
    const std::weak_ptr<Caller> caller = callers_[random_.below(callers_.size())];
    ++left;
    caller.lock()->lane->post([caller] {
      if (const auto one = caller.lock()) one->scope.cancel();
    });
  }

  void check(std::uint64_t step) {
    const ProtectorSnapshot shown = guard_.snapshot(clock_.now());
    const BreakerSnapshot& breaker = *shown.breaker;
    ASSERT_LE(breaker.trials_running + breaker.trials_passed + breaker.trials_failed, kTrials) << "step " << step;
    most_places_ = std::min(most_places_, std::max(places_, shown.bulkhead->in_flight));
    ASSERT_LE(shown.bulkhead->in_flight, most_places_) << "step " << step;
    ASSERT_LE(running_, shown.bulkhead->in_flight) << "step " << step << ": who runs has a place";
    half_open += breaker.state == BreakerState::half_open && breaker.generation != generation_;
    generation_ = breaker.generation;
    full += shown.bulkhead->in_flight == places_;
  }

  sim::SimClock clock_;
  sim::SimRandom random_;
  sim::SimScheduler scheduler_;
  std::vector<Lane*> lanes_;
  Guards guards_{clock_, random_};
  Protector& guard_ = guards_.find("a");
  std::vector<std::shared_ptr<Caller>> callers_;
  Instant began_{};
  std::uint32_t running_ = 0, places_ = 0, most_places_ = 0;
  std::uint64_t health_ = 50, generation_ = 0;
  std::uint64_t trial_generation_ = 0;  // the half-open state of which trials_on_ calls run
  std::uint32_t trials_on_ = 0;
};

TEST(Composed, RES_42_no_permit_is_lost_or_minted_between_queues_turns_timeouts_and_leavers) {
  std::uint64_t calls = 0, left = 0, half_open = 0, full = 0, closed_starts = 0, trial_starts = 0;
  const char* const more = std::getenv("SLUICE_SEEDS");  // as many; for campaigns
  const std::uint64_t seeds = more != nullptr ? std::strtoull(more, nullptr, 10) : 10;
  for (std::uint64_t seed = 1; seed <= seeds && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Queued one(seed);
    one.explore(200'000);
    calls += one.calls, left += one.left, half_open += one.half_open, full += one.full;
    closed_starts += one.started[static_cast<std::size_t>(BreakerState::closed)];
    trial_starts += one.started[static_cast<std::size_t>(BreakerState::half_open)];
  }
  EXPECT_GT(calls, 50'000u);
  EXPECT_GT(left, 500u);
  EXPECT_GT(half_open, 500u);
  EXPECT_GT(full, 1'000u);
  EXPECT_GT(closed_starts, 10'000u);
  EXPECT_GT(trial_starts, 1'000u);
}

}  // namespace
}  // namespace sluice::resilience
