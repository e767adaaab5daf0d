// The breaker against a plain model: callers that enter, succeed, fail, vanish or hang are
// interleaved by a seed, and after each step both must agree. Then real threads.
#include <deque>
#include <map>

#include "sim/random.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/resilience/breaker.hpp"

namespace sluice::resilience {
namespace {

constexpr std::uint32_t kTrials = 4;
constexpr std::uint32_t kWindow = 20;
constexpr std::uint32_t kMinimum = 6;

/// Says what must be true, with whole histories where the breaker keeps counters.
struct Model {
  BreakerState state = BreakerState::closed;
  std::uint64_t generation = 0;
  std::deque<bool> window;        // true: failed
  std::map<int, Instant> trials;  // those running, by caller, with their end
  std::uint32_t good = 0, bad = 0;
  Instant open_until;

  void become(BreakerState to) {
    state = to;
    ++generation;
    trials.clear();
    good = bad = 0;
    if (to == BreakerState::closed) window.clear();
  }
  bool may_enter(Instant now) {
    if (state == BreakerState::closed) return true;
    if (state == BreakerState::open) {
      if (now < open_until) return false;
      become(BreakerState::half_open);
    }
    if (trials.size() + good + bad >= kTrials)
      std::erase_if(trials, [&](const auto& t) { return t.second <= now; });
    return trials.size() + good + bad < kTrials;
  }
  void end(int caller, std::uint64_t of, bool failed) {
    if (of != generation) return;
    if (state == BreakerState::half_open) {
      if (trials.erase(caller) == 0) return;
      ++(failed ? bad : good);
      if (bad * 2 >= kTrials)
        become(BreakerState::open);
      else if (good * 2 > kTrials)
        become(BreakerState::closed);
    } else if (state == BreakerState::closed) {
      window.push_back(failed);
      if (window.size() > kWindow) window.pop_front();
      const auto failures = std::ranges::count(window, true);
      if (window.size() >= kMinimum && failures * 2 >= static_cast<int>(window.size()))
        become(BreakerState::open);
    }
  }
};

void explore(std::uint64_t seed, int steps) {
  sim::SimRandom random(seed);
  BreakerOptions options;
  options.window = BreakerWindow::count;
  options.window_calls = kWindow;
  options.minimum_calls = kMinimum;
  options.trials = kTrials;
  options.isolation = milliseconds(10);
  options.isolation_max = milliseconds(40);
  options.trial_timeout = milliseconds(7);
  options.quiet = milliseconds(100);
  Breaker breaker(options, random);
  Model model;
  Instant now{seconds(1)};
  struct Caller {
    Breaker::Permit permit;
    std::uint64_t generation = 0;
    bool in = false;
  };
  std::vector<Caller> callers(12);
  int half_open_seen = 0, closed_again = 0;
  std::uint64_t health = 50;
  for (int i = 0; i < steps; ++i) {
    now += Duration(microseconds(random.below(600)));
    if (random.one_in(500)) health = random.below(101);
    const auto c = static_cast<int>(random.below(callers.size()));
    Caller& caller = callers[static_cast<std::size_t>(c)];
    const BreakerState before = model.state;
    if (!caller.in) {
      auto permit = breaker.try_enter(now);
      ASSERT_EQ(permit.has_value(), model.may_enter(now)) << "seed " << seed << " step " << i;
      if (permit) {
        caller = {std::move(*permit), model.generation, true};
        if (model.state == BreakerState::half_open) model.trials[c] = now + milliseconds(7);
      }
    } else if (random.one_in(10)) {
      caller.permit.cancel();
      caller.in = false;
      if (caller.generation == model.generation) model.trials.erase(c);
    } else if (!random.one_in(4)) {
      const bool failed = random.below(100) >= health;
      caller.permit.complete(failed ? Outcome::failure : Outcome::success, {}, now);
      caller.in = false;
      model.end(c, caller.generation, failed);
    }
    ASSERT_EQ(breaker.state(), model.state) << "seed " << seed << " step " << i;
    if (model.state == BreakerState::open && before != BreakerState::open)
      model.open_until = breaker.snapshot(now).open_until;
    half_open_seen += before != model.state && model.state == BreakerState::half_open ? 1 : 0;
    closed_again += before == BreakerState::half_open && model.state == BreakerState::closed;
    if (random.one_in(64)) {
      const BreakerSnapshot shown = breaker.snapshot(now);
      ASSERT_EQ(shown.generation, model.generation);
      ASSERT_EQ(shown.trials_running, model.trials.size());
      ASSERT_EQ(shown.trials_passed + shown.trials_failed, model.good + model.bad);
    }
  }
  EXPECT_GT(half_open_seen, 50);
  EXPECT_GT(closed_again, 5);
}

TEST(BreakerModel, RES_42_agrees_with_the_model_in_millions_of_interleaved_steps) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) explore(seed, 200'000);
}

// Healthy calls are counted without the lock; failures, looks and orders come in between.
TEST(BreakerModel, RES_10_no_call_is_lost_or_counted_twice_by_threads) {
  RealRandom random;
  BreakerOptions options;
  options.failure_ratio = 0.9;
  Breaker breaker(options, random);
  const Instant now{seconds(5)};
  constexpr std::uint64_t kCalls = 20'000;
  for (const bool failing : {false, true}) {
    std::vector<Thread> threads;
    for (int t = 0; t < 3; ++t)
      threads.emplace_back("caller", [&, t] {
        for (std::uint64_t i = 0; i < kCalls; ++i) {
          auto permit = breaker.try_enter(now);
          const bool fails = failing && t == 0 && i % 1000 == 0;
          permit->complete(fails ? Outcome::failure : Outcome::success, {}, now);
          if (i % 500 == 0) (void)breaker.snapshot(now);
        }
      });
  }
  EXPECT_EQ(breaker.snapshot(now).window.calls, 6 * kCalls);
  EXPECT_EQ(breaker.snapshot(now).window.failures, kCalls / 1000);
}

// Time windows as a list of calls: nothing older than the window counts, and the breaker trips at
// the call at which the list says so, failed or not.
TEST(BreakerModel, RES_17_time_windows_agree_with_a_list_of_calls) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    sim::SimRandom random(seed);
    BreakerOptions options;
    options.window_time = seconds(1);
    options.minimum_calls = 20;
    options.consecutive = 12;
    Breaker breaker(options, random);
    std::deque<std::pair<std::int64_t, bool>> calls;  // number of the slot, failed
    Instant now{seconds(100)};
    std::uint64_t share = 0;
    int in_a_row = 0, by_ratio = 0, by_row = 0;
    for (int i = 0; i < 50'000; ++i) {
      if (random.one_in(500)) share = random.one_in(2) ? 0 : random.below(100);
      now += microseconds(random.one_in(5000) ? random.below(2'000'000) : random.below(3000));
      const bool failed = random.below(100) < share;
      breaker.try_enter(now)->complete(failed ? Outcome::failure : Outcome::success, {}, now);
      const std::int64_t slot = now.time_since_epoch() / milliseconds(100);
      calls.emplace_back(slot, failed);
      while (calls.front().first <= slot - 10) calls.pop_front();
      in_a_row = failed ? in_a_row + 1 : 0;
      const auto failures = static_cast<std::size_t>(
          std::ranges::count_if(calls, [](const auto& call) { return call.second; }));
      const bool ratio = failures * 2 >= calls.size();
      const bool trips = calls.size() >= 20 && (ratio || in_a_row >= 12);
      ASSERT_EQ(breaker.state(), trips ? BreakerState::open : BreakerState::closed)
          << "seed " << seed << " step " << i << ": " << failures << " of " << calls.size();
      if (trips) {
        ++(ratio ? by_ratio : by_row);
        ASSERT_TRUE(breaker.force(BreakerState::closed, now));
        calls.clear();
        in_a_row = 0;
      }
      if (!random.one_in(50)) continue;
      ASSERT_EQ(breaker.snapshot(now).consecutive, static_cast<std::uint32_t>(in_a_row));
      const BreakerTally tally = breaker.snapshot(now).window;
      ASSERT_EQ(tally.calls, calls.size()) << "seed " << seed << " step " << i;
      ASSERT_EQ(tally.failures,
                std::ranges::count_if(calls, [](const auto& call) { return call.second; }));
    }
    EXPECT_GT(by_ratio, 10);
    EXPECT_GT(by_row, 0);
  }
}

TEST(BreakerModel, RES_11_threads_never_run_more_trials_than_allowed) {
  RealRandom random;
  BreakerOptions options;
  options.trials = kTrials;
  options.isolation_jitter = 0;
  Breaker breaker(options, random);
  const Instant start{seconds(5)};
  ASSERT_TRUE(breaker.force(BreakerState::forced_open, start));
  for (int round = 0; round < 200; ++round) {
    ASSERT_TRUE(breaker.force(BreakerState::half_open, start));
    std::atomic<std::uint32_t> admitted{0};
    {
      std::vector<Thread> threads;
      for (int t = 0; t < 3; ++t)
        threads.emplace_back("trial", [&] {
          for (int i = 0; i < 10; ++i) {
            auto permit = breaker.try_enter(start);
            if (!permit) continue;
            if (i % 2 == 0) {
              admitted.fetch_add(1);
              permit->complete(i % 4 == 0 ? Outcome::success : Outcome::failure, {}, start);
            }  // else it is dropped and its place given back
          }
        });
    }
    const BreakerSnapshot shown = breaker.snapshot(start);
    EXPECT_EQ(shown.trials_running, 0u) << "no leaked permit";
    if (shown.state == BreakerState::half_open) {
      EXPECT_LE(admitted.load(), kTrials);
    }
    if (shown.state != BreakerState::forced_open) {
      ASSERT_TRUE(breaker.force(BreakerState::forced_open, start));
    }
  }
}

}  // namespace
}  // namespace sluice::resilience
