// Limits that find themselves: how they grow, when they do not, and what a hung dependency does.
#include <cmath>
#include <queue>

#include "sim/random.hpp"
#include "sluice/resilience/adaptive_limit.hpp"
#include "sluice/resilience/rate_limiter.hpp"
#include "sluice/resilience/throttle.hpp"

namespace sluice::resilience {
namespace {

constexpr Instant kStart{seconds(10)};
constexpr Priority kNormal = Priority::normal;

/// Keeps `offered` calls in flight as far as the limit allows, for `rounds` windows, each call
/// answered after `latency` with `outcome`.
void run(AdaptiveLimit& limit, Instant& now, std::uint32_t offered, int rounds, Duration latency,
         Outcome outcome = Outcome::success) {
  for (int i = 0; i < rounds; ++i) {
    Block block;
    std::uint32_t in = 0;
    while (in < offered && limit.try_take(0, kNormal, block)) ++in;
    now += std::max<Duration>(latency, milliseconds(20));
    while (in-- > 0) limit.done(0, outcome, latency, now);
  }
}

TEST(Adaptive, RES_23_grows_while_latency_is_steady_up_to_the_ceiling) {
  AdaptiveLimit limit(AdaptiveOptions{.initial = 10, .ceiling = 60});
  Instant now = kStart;
  run(limit, now, 1000, 2000, milliseconds(10));
  EXPECT_EQ(limit.limit(), 60u);
}

TEST(Adaptive, RES_23_does_not_grow_below_half_use) {
  AdaptiveLimit limit(AdaptiveOptions{.initial = 40});
  Instant now = kStart;
  run(limit, now, 19, 2000, milliseconds(10));
  EXPECT_EQ(limit.limit(), 40u);
}

TEST(Adaptive, RES_23_shrinks_as_latency_rises_and_recovers) {
  AdaptiveLimit limit(AdaptiveOptions{.initial = 100});
  Instant now = kStart;
  run(limit, now, 100, 20, milliseconds(10));
  const std::uint32_t healthy = limit.limit();
  run(limit, now, 1000, 60, milliseconds(60));
  EXPECT_LT(limit.limit(), healthy / 3);
  const std::uint32_t low = limit.limit();
  run(limit, now, 1000, 600, milliseconds(10));
  EXPECT_GT(limit.limit(), 3 * low);
}

TEST(Adaptive, RES_23_a_constant_timeout_latency_shrinks_it_to_the_floor) {
  AdaptiveLimit limit(AdaptiveOptions{.initial = 50, .floor = 3});
  Instant now = kStart;
  run(limit, now, 1000, 300, seconds(1), Outcome::timeout);
  EXPECT_EQ(limit.limit(), 3u);
  AdaptiveLimit disguised(AdaptiveOptions{.initial = 50, .floor = 3, .drop_latency = seconds(1)});
  run(disguised, now, 1000, 300, seconds(1), Outcome::success);
  EXPECT_EQ(disguised.limit(), 3u) << "answered, but always at the timeout";
}

TEST(Adaptive, RES_15_cancelled_calls_say_nothing) {
  AdaptiveLimit limit(AdaptiveOptions{.initial = 50});
  Instant now = kStart;
  run(limit, now, 50, 200, seconds(30), Outcome::cancelled);
  EXPECT_EQ(limit.limit(), 50u);
  EXPECT_EQ(limit.snapshot().places.in_flight, 0u);
}

TEST(Adaptive, RES_40_reconfiguring_keeps_the_limit_it_found) {
  AdaptiveLimit limit(AdaptiveOptions{.initial = 10, .ceiling = 60});
  Instant now = kStart;
  run(limit, now, 1000, 2000, milliseconds(10));
  limit.reconfigure(AdaptiveOptions{.initial = 5, .ceiling = 100});
  EXPECT_EQ(limit.limit(), 60u);
  limit.reconfigure(AdaptiveOptions{.ceiling = 30});
  EXPECT_EQ(limit.limit(), 30u);
}

// A dependency that serves ten at once and queues the rest: the limit must settle near what it
// can do, not at the ceiling, and calls must keep flowing.
TEST(Adaptive, RES_23_settles_near_what_the_dependency_can_do) {
  AdaptiveLimit limit(AdaptiveOptions{.initial = 5, .ceiling = 500});
  sim::SimRandom random(3);
  using Ending = std::pair<Instant, Instant>;  // when it ends, when it began
  std::priority_queue<Ending, std::vector<Ending>, std::greater<>> running;
  std::array<Instant, 10> servers{};
  Instant now = kStart;
  std::uint64_t served = 0;
  for (int i = 0; i < 200'000; ++i) {
    now += microseconds(random.below(1000));
    while (!running.empty() && running.top().first <= now) {
      limit.done(0, Outcome::success, running.top().first - running.top().second, now);
      running.pop();
      ++served;
    }
    Block block;
    if (!limit.try_take(0, kNormal, block)) continue;
    auto& server = *std::ranges::min_element(servers);
    server = std::max(server, now) + milliseconds(8) + microseconds(random.below(4000));
    running.emplace(server, now);
  }
  EXPECT_GT(served, 90'000u) << "of 100,000 it could have";
  EXPECT_LT(limit.limit(), 60u);
  EXPECT_GT(limit.limit(), 8u);
}

TEST(Throttle, RES_24_sends_about_k_times_what_is_accepted) {
  sim::SimRandom random(1);
  Throttle throttle(ThrottleOptions{.k = 2, .window = seconds(10)}, random);
  Instant now = kStart;
  TokenBucket capacity(RateOptions{.limit = 500, .burst = 10});
  int sent = 0;
  for (int i = 0; i < 100'000; ++i) {  // 5000 a second for 20 seconds
    now += microseconds(200);
    Block block;
    if (!throttle.try_pass(now, block)) {
      ASSERT_EQ(block.policy, Policy::throttle);
      continue;
    }
    ++sent;
    throttle.on_end(capacity.try_take(now).passed ? Outcome::success : Outcome::overloaded, now);
  }
  EXPECT_LT(sent, 2.4 * 500 * 20);
  EXPECT_GT(sent, 1.5 * 500 * 20);
  now += seconds(9);
  EXPECT_EQ(throttle.refusal(now + seconds(2)), 0) << "RES-17: the window has passed";
}

TEST(Throttle, RES_40_another_window_keeps_what_was_counted) {
  sim::SimRandom random(1);
  Throttle throttle(ThrottleOptions{.window = seconds(10)}, random);
  Instant now = kStart;
  for (int i = 0; i < 200; ++i) throttle.on_end(Outcome::overloaded, now += milliseconds(10));
  const double before = throttle.refusal(now);
  ASSERT_GT(before, 0.9);
  for (const Duration window : {seconds(30), seconds(5), seconds(5)}) {
    throttle.reconfigure(ThrottleOptions{.window = window}, now);
    EXPECT_EQ(throttle.refusal(now), before);
  }
  EXPECT_EQ(throttle.refusal(now + seconds(6)), 0) << "counted as new, and no longer than the window";
}

TEST(Throttle, RES_24_healthy_or_few_requests_are_never_refused) {
  sim::SimRandom random(1);
  Throttle throttle(ThrottleOptions{}, random);
  Instant now = kStart;
  Block block;
  for (int i = 0; i < 19; ++i) {
    ASSERT_TRUE(throttle.try_pass(now, block));
    throttle.on_end(Outcome::overloaded, now);
  }
  for (int i = 0; i < 100; ++i) throttle.on_end(Outcome::cancelled, now);
  EXPECT_EQ(throttle.refusal(now), 0);
  throttle.on_end(Outcome::overloaded, now);
  EXPECT_GT(throttle.refusal(now), 0.9);
  now += seconds(200);
  EXPECT_EQ(throttle.refusal(now), 0) << "RES-17: the window has passed";
}

}  // namespace
}  // namespace sluice::resilience
