// A guarded call allocates nothing, whether it passes or is refused.
#include "bench/allocations.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {
namespace {

TEST(Allocations, RES_3_passing_and_refusing_allocate_nothing) {
  sim::SimClock clock;
  sim::SimRandom random(1);
  Guards guards(clock, random);
  auto rules = parse_rules(R"(
[guard.a.breaker]
[guard.a.rate]
limit = 100
[guard.a.hot_keys]
limit = 50
[guard.a.throttle]
[guard.a.adaptive]
[guard.a.pacing]
limit = 1000000
)",
                           "test.toml");
  ASSERT_TRUE(rules);
  ASSERT_TRUE(guards.reload(std::move(*rules)));
  Protector& protector = guards.find("a");
  const auto before_probe = bench::allocations();
  ::operator delete(::operator new(1));  // not a new-expression: those may be optimized away
  if (bench::allocations() == before_probe) GTEST_SKIP() << "sanitizers count for themselves";
  int passed = 0, by_key = 0, by_rate = 0, by_breaker = 0;
  const auto before = bench::allocations();
  for (int i = 0; i < 300; ++i) {
    if (i == 200) (void)protector.breaker()->force(BreakerState::forced_open, clock.now());
    CallInfo call{.now = clock.now()};
    if (i % 4 != 0) call.hot_key = "hot";
    auto permit = protector.try_enter(call);
    if (permit) {
      ++passed;
      permit->complete(Outcome::success, clock.now());
    } else {
      by_key += permit.error().policy == Policy::hot_keys;
      by_rate += permit.error().policy == Policy::rate;
      by_breaker += permit.error().policy == Policy::breaker;
    }
  }
  EXPECT_EQ(bench::allocations(), before);
  EXPECT_EQ(passed, 100);
  EXPECT_GT(by_key, 10);
  EXPECT_GT(by_rate, 0);
  EXPECT_EQ(by_breaker, 100);
}

}  // namespace
}  // namespace sluice::resilience
