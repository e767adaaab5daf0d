// Overload of a dependency that is half dead: what it is asked stays near what was offered.
#include <list>

#include "sim/scheduler.hpp"
#include "sluice/resilience/guarded.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {
namespace {

// It answers `kCapacity` calls a second, each after 10 ms, and fails the others and every other of
// those; callers come ten times as fast and would retry each failure twice.
TEST(RetryStorm, RES_30_ten_times_the_load_on_a_half_dead_service_asks_it_little_more_than_was_offered) {
  constexpr int kCapacity = 100, kOffered = 10'000;
  for (const bool breaker : {false, true}) {
    sim::SimClock clock;
    sim::SimScheduler scheduler{clock, 1, nullptr, {.stall_one_in = 0}};
    sim::SimRandom random{1};
    Lane& lane = scheduler.add_lane("lane");
    Guards guards{clock, random};
    Protector& protector = guards.find("half.dead");
    std::string rules = "[guard.\"half.dead\".retry]\nattempts = 3\nsafe = true\nbase = \"20ms\"\nbudget_ratio = 0.1\n";
    if (breaker) rules += "[guard.\"half.dead\".breaker]\nminimum_calls = 20\nfailure_ratio = 0.5\nisolation = \"500ms\"\n";
    auto parsed = parse_rules(rules, "storm.toml");
    ASSERT_TRUE(parsed) << parsed.error().to_string();
    ASSERT_TRUE(guards.reload(std::move(*parsed)));
    int asked = 0, good = 0, over = 0, in_second = 0;
    Instant second = clock.now();
    const auto service = [&](AttemptNote&) -> Task<Result<int>> {
      ++asked;
      if (clock.now() - second >= seconds(1)) second = clock.now(), in_second = 0;
      const bool room = ++in_second <= kCapacity;
      (void)co_await sleep_for(milliseconds(10));
      if (!room) co_return fail(Failure(FailureKind::overloaded));
      if (asked % 2 == 0) co_return fail(Failure(FailureKind::unavailable));
      co_return 1;
    };
    struct Caller {
      Task<Result<int>> task;
      TaskContext context;
    };
    std::list<Caller> callers;
    std::function<void(int)> arrive = [&](int n) {
      if (n == kOffered) return;
      auto& caller = callers.emplace_back();
      caller.context = {&lane, nullptr, clock.now() + seconds(2)};
      caller.task = guarded(protector, GuardedCall{}, random, service);
      (void)caller.task.start(caller.context, [](void* count) noexcept { ++*static_cast<int*>(count); }, &over);
    };
    struct Source {
      Timer timer;
      int n = 0;
      std::function<void(int)>* arrive = nullptr;
      Lane* lane = nullptr;
      void tick() {
        (*arrive)(n++);
        if (n < kOffered)
          timer.arm(*lane, lane->clock().now() + milliseconds(1), [](void* s) noexcept { static_cast<Source*>(s)->tick(); }, this);
      }
    } source;
    source.arrive = &arrive;
    source.lane = &lane;
    lane.post([&] { source.tick(); });
    const Instant end = clock.now() + seconds(20);
    ASSERT_TRUE(scheduler.run_to(end, 50'000'000));
    ASSERT_EQ(source.n, kOffered);
    for (auto& caller : callers)
      if (caller.task.done() && caller.task.take()) ++good;
    EXPECT_LE(asked, kOffered * 12 / 10) << "a storm of retries" << (breaker ? ", with a breaker" : "");
    EXPECT_TRUE(breaker || asked >= kOffered) << "each was asked once";
    EXPECT_GT(good, 0);
  }
}

}  // namespace
}  // namespace sluice::resilience
