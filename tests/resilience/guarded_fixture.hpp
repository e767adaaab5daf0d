// Guarded calls of one protector under the deterministic scheduler, for tests.
#pragma once
#include <gtest/gtest.h>

#include "sim/scheduler.hpp"
#include "sluice/resilience/guarded.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {

struct GuardedTest : testing::Test {
  sim::SimClock clock;
  sim::SimScheduler scheduler{clock, 1, nullptr, {.stall_one_in = 0}};
  sim::SimRandom random{1};
  Lane& lane = scheduler.add_lane("lane");
  Guards guards{clock, random};
  Protector& protector = guards.find("a");
  int calls = 0;
  int running = 0;
  int most_running = 0;
  Instant told_deadline = kNever;

  void load(std::string_view toml) {
    auto rules = parse_rules(toml, "test.toml");
    ASSERT_TRUE(rules) << rules.error().to_string();
    ASSERT_TRUE(guards.reload(std::move(*rules)));
  }
  struct Running {
    GuardedTest& test;
    explicit Running(GuardedTest& t) : test(t) {
      test.most_running = std::max(test.most_running, ++test.running);
    }
    ~Running() { --test.running; }
  };
  /// The dependency: answers after `latency`, fails as told, or throws.
  Task<Result<int>> work(Duration latency, std::optional<FailureKind> fails, bool throws = false) {
    ++calls;
    const Running witness(*this);
    told_deadline = (co_await current_context()).deadline;
    if (latency > Duration::zero()) {
      const FailureKind cut = co_await sleep_for(latency);
      if (cut != FailureKind::none) co_return fail(Failure(cut));
    }
    if (throws) throw std::runtime_error("threw");
    if (fails) co_return fail(Failure(*fails));
    co_return calls;
  }
  Task<Result<int>> guard(Duration latency = {}, std::optional<FailureKind> fails = {},
                          GuardedCall call = {}, bool throws = false) {
    return guarded(protector, std::move(call), random,
                   [=, this](AttemptNote&) { return work(latency, fails, throws); });
  }
  static GuardedCall with_key() {
    GuardedCall call;
    call.has_key = true;
    return call;
  }
  Result<int> run(Task<Result<int>> task, CancelScope* scope = nullptr) {
    return sim::run_task(scheduler, lane, std::move(task), scope);
  }
  ProtectorSnapshot shown() { return protector.snapshot(clock.now()); }
  std::uint64_t counts_of(Policy policy) {
    std::uint64_t blocked = 0;
    for (const auto& one : shown().policies) blocked += one.policy == policy ? one.blocked : 0;
    return blocked;
  }
};

inline constexpr std::string_view kGuardedBreaker =
    "[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 10\nminimum_calls = 4\n"
    "isolation = \"1s\"\nisolation_jitter = 0\ntrials = 2\n";

}  // namespace sluice::resilience
