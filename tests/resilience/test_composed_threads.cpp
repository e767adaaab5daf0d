// All limits of one protector at once, with threads.
#include <gtest/gtest.h>


#include "resilience/limits_fixture.hpp"
#include "sim/clock.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {
namespace {

// Threads, with time standing still for a while: what passed in all fits what had refilled by then,
// nobody runs beyond the places, and in the end every permit is back.
void race(std::uint32_t places, std::uint64_t rate, std::uint64_t burst, std::uint64_t hot) {  // per 100 ms
  constexpr int kThreads = 4, kRounds = 20, kCalls = 25'000;  // long enough to run beside each other
  RealRandom random;
  sim::SimClock clock;
  Guards guards(clock, random);
  Protector& guard = guards.find("a");
  auto rules = parse_rules(
      fmt::format("[guard.a.breaker]\nminimum_calls = 100000\ntrials = {}\n[guard.a.rate]\nlimit = {}\nperiod = \"100ms\"\n"
                  "burst = {}\n[guard.a.hot_keys]\nlimit = {}\nperiod = \"100ms\"\n[guard.a.bulkhead]\nlimit = {}\n"
                  "[guard.a.pacing]\nlimit = {}\nperiod = \"100ms\"\nmax_wait = \"10ms\"\n",
                  kTrials, rate, burst, hot, places, rate + 1000),
      "threads.toml");
  ASSERT_TRUE(rules) << rules.error().to_string();
  ASSERT_TRUE(guards.reload(std::move(*rules)));
  clock.advance(seconds(100));
  const Instant began = clock.now();
  std::atomic<std::uint32_t> running{0}, most{0};
  std::atomic<std::uint64_t> passed{0}, places_refused{0};
  std::array<std::atomic<std::uint64_t>, 2> of_key{};
  for (int round = 0; round < kRounds; ++round) {
    const auto elapsed = static_cast<double>((clock.now() - began).count()) / 1e8;  // periods
    {
      std::vector<Thread> threads;
      for (int t = 0; t < kThreads; ++t)
        threads.emplace_back("caller", [&, t] {
          const std::array<std::string_view, 2> keys{"one", "two"};
          for (int i = 0; i < kCalls; ++i) {
            CallInfo call{.now = clock.now()};
            const auto key = static_cast<std::size_t>((i + t) % 2);
            call.hot_key = keys[key];
            call.weight = 1 + static_cast<std::uint32_t>(i % 3 == 0);
            auto permit = guard.try_enter(call);
            if (!permit) {
              places_refused += permit.error().policy == Policy::bulkhead;
              continue;
            }
            const std::uint32_t now_running = ++running;
            std::uint32_t seen = most.load();
            while (now_running > seen && !most.compare_exchange_weak(seen, now_running)) {
            }
            passed += call.weight;
            of_key[key] += call.weight;
            --running;
            if (i % 5 == 0)
              permit->cancel();
            else
              permit->complete(Outcome::success, clock.now());
          }
        });
    }
    ASSERT_LE(static_cast<double>(passed.load()), static_cast<double>(burst) + elapsed * static_cast<double>(rate)) << "round " << round;
    for (const auto& one : of_key)
      ASSERT_LE(static_cast<double>(one.load()), static_cast<double>(hot) * (1 + elapsed)) << "round " << round;
    clock.advance(milliseconds(5 + round % 30));
  }
  EXPECT_LE(most.load(), places);
  if (places == 1) EXPECT_GT(places_refused.load(), 0u) << "they never met";
  EXPECT_GT(passed.load(), std::min<std::uint64_t>(burst, 10'000));
  EXPECT_EQ(guard.snapshot(clock.now()).bulkhead->in_flight, 0u);
  // Half-open admits exactly its trials, and all places are there.
  const std::uint32_t fit = std::min(places, kTrials);
  clock.advance(seconds(1));
  for (int round = 0; round < 200; ++round) {
    (void)guard.breaker()->force(BreakerState::forced_open, clock.now());
    ASSERT_TRUE(guard.breaker()->force(BreakerState::half_open, clock.now()));
    std::atomic<std::uint32_t> trials{0};
    std::vector<GuardPermit> kept(kThreads * 2);
    {
      std::vector<Thread> threads;
      for (std::size_t t = 0; t < kThreads; ++t)
        threads.emplace_back("trial", [&, t] {
          for (std::size_t i = 0; i < 2; ++i)
            if (auto permit = guard.try_enter({.now = clock.now()})) {
              ++trials;
              kept[2 * t + i] = std::move(*permit);
            }
        });
    }
    ASSERT_EQ(trials.load(), fit) << "round " << round;
    ASSERT_EQ(guard.snapshot(clock.now()).breaker->trials_running, fit);
    kept.clear();
    ASSERT_EQ(guard.snapshot(clock.now()).breaker->trials_running, 0u);
    ASSERT_EQ(guard.snapshot(clock.now()).bulkhead->in_flight, 0u);
    clock.advance(milliseconds(10));
  }
}

TEST(Composed, RES_21_threads_together_never_pass_one_above_any_limit) {
  race(3, 2'000, 500, 700);                     // rates refuse most
  race(1, 50'000'000, 50'000'000, 50'000'000);  // the one place does
}

}  // namespace
}  // namespace sluice::resilience
