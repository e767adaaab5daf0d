// A registry of protectors under virtual time, for tests.
#pragma once
#include <gtest/gtest.h>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {

struct GuardsTest : testing::Test {
  sim::SimClock clock;
  sim::SimRandom random{1};
  std::vector<std::pair<std::string, BreakerState>> transitions;
  GuardsOptions options() {
    GuardsOptions o;
    o.on_transition = [this](const Protector& p, const BreakerTransition& t) {
      transitions.emplace_back(p.name(), t.to);
    };
    return o;
  }
  Guards guards{clock, random, options()};

  static RuleSet rules(std::string_view toml) {
    auto read = parse_rules(toml, "test.toml");
    EXPECT_TRUE(read) << (read ? "" : read.error().to_string());
    return read.value_or(RuleSet{});
  }
  void load(std::string_view toml) {
    const auto plan = guards.reload(rules(toml));
    ASSERT_TRUE(plan) << plan.error().to_string();
  }
  CallInfo call() { return {.now = clock.now()}; }
  /// Runs one call to its end; false if it was refused.
  bool run(Protector& protector, Outcome outcome = Outcome::success) {
    auto permit = protector.try_enter(call());
    if (permit) permit->complete(outcome, clock.now());
    return permit.has_value();
  }
  static const PolicyCounts& counts(const ProtectorSnapshot& shown, Policy policy) {
    for (const auto& one : shown.policies)
      if (one.policy == policy) return one;
    static const PolicyCounts none;
    return none;
  }
};

inline constexpr std::string_view kBreaker = R"(
[guard.a.breaker]
window = "count"
window_calls = 10
minimum_calls = 4
isolation = "1s"
isolation_jitter = 0.0
trials = 2
)";

}  // namespace sluice::resilience
