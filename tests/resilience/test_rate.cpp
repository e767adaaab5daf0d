// Rate limits against an exact model in whole numbers, under millions of seeded steps, and under
// real threads where the total is known.
#include <algorithm>
#include <atomic>
#include <deque>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/resilience/block.hpp"
#include "sluice/resilience/rate_limiter.hpp"

namespace sluice::resilience {
namespace {

constexpr Instant at(Duration since) { return Instant(seconds(10) + since); }

TEST(Rate, RES_21_limit_zero_refuses_one_and_passes_zero) {
  TokenBucket bucket(RateOptions{.limit = 0});
  EXPECT_FALSE(bucket.try_take(at({}), 1).passed);
  EXPECT_EQ(bucket.try_take(at({}), 1).wait, kNoRetryAfter);
  EXPECT_TRUE(bucket.try_take(at({}), 0).passed);
  Pacer pacer(PacerOptions{.limit = 0});
  EXPECT_FALSE(pacer.try_take(at({}), 1).passed);
  EXPECT_TRUE(pacer.try_take(at({}), 0).passed);
}

TEST(Rate, RES_20_more_than_the_capacity_is_refused_and_takes_nothing) {
  TokenBucket bucket(RateOptions{.limit = 5});
  EXPECT_EQ(bucket.try_take(at({}), 6).wait, kNoRetryAfter);
  EXPECT_TRUE(bucket.try_take(at({}), 5).passed);
  EXPECT_FALSE(bucket.try_take(at({}), 1).passed);
}

TEST(Rate, RES_21_a_refused_reservation_consumes_nothing) {
  TokenBucket bucket(RateOptions{.limit = 10});
  EXPECT_TRUE(bucket.try_take(at({}), 8).passed);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(bucket.try_take(at({}), 3).passed);
  EXPECT_TRUE(bucket.try_take(at({}), 2).passed);
}

TEST(Rate, RES_21_an_idle_limiter_refills_to_one_burst_only) {
  TokenBucket bucket(RateOptions{.limit = 1000, .burst = 3});
  EXPECT_EQ(bucket.available(at(std::chrono::hours(48))), 3u);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(bucket.try_take(at(std::chrono::hours(48))).passed);
  EXPECT_FALSE(bucket.try_take(at(std::chrono::hours(48))).passed);
}

TEST(Rate, RES_3_retry_after_is_when_it_passes_and_not_sooner) {
  TokenBucket bucket(RateOptions{.limit = 3});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(bucket.try_take(at({})).passed);
  const RateAnswer refused = bucket.try_take(at({}), 2);
  ASSERT_FALSE(refused.passed);
  EXPECT_FALSE(bucket.peek(at(refused.wait - Duration(1)), 2).passed);
  EXPECT_TRUE(bucket.try_take(at(refused.wait), 2).passed);
}

TEST(Rate, RES_4_giving_back_is_exact_or_not_at_all) {
  TokenBucket bucket(RateOptions{.limit = 1});
  const RateAnswer first = bucket.try_take(at({}));
  bucket.give_back(first);
  EXPECT_TRUE(bucket.try_take(at({})).passed);
  // Given back after another has taken: a second call in the same instant would be one too many.
  const RateAnswer second = bucket.try_take(at(seconds(1)));
  const RateAnswer third = bucket.try_take(at(seconds(2)));
  EXPECT_TRUE(second.passed && third.passed);
  bucket.give_back(second);
  EXPECT_FALSE(bucket.try_take(at(seconds(2))).passed);
}

// In every stretch of time [a, b] at most burst + (b - a) × limit / period may pass. For each
// stretch that begins and ends with a passed call that is what a full model bucket says, kept here
// in whole numbers: tokens × period.
void explore(std::uint64_t seed, std::uint64_t limit, std::uint64_t burst, int steps) {
  sim::SimRandom random(seed);
  TokenBucket bucket(RateOptions{.limit = limit, .burst = burst});
  const Uint128 period = 1'000'000'000;
  const Uint128 full = burst * period;
  Uint128 tokens = full;
  Instant now = at({});
  std::uint64_t passed = 0;
  const std::uint64_t typical = 4'000'000'000 / (limit + 1) + 2;
  for (int i = 0; i < steps; ++i) {
    const Duration step(static_cast<std::int64_t>(random.one_in(1000) ? random.below(2'000'000'000)
                                                                      : random.below(typical)));
    now += step;
    tokens = std::min(full, tokens + static_cast<Uint128>(step.count()) * limit);
    const auto n = static_cast<std::uint32_t>(random.below(3));
    const bool peeked = bucket.peek(now, n).passed;
    const RateAnswer answer = bucket.try_take(now, n);
    ASSERT_EQ(peeked, answer.passed);
    if (!answer.passed) continue;
    ASSERT_GE(tokens, n * period) << "one too many: seed " << seed << " step " << i;
    if (random.one_in(10)) {
      bucket.give_back(answer);
      continue;
    }
    tokens -= n * period;
    passed += n;
  }
  EXPECT_GT(passed, static_cast<std::uint64_t>(steps) / 50) << "the limiter may not starve";
}

TEST(Rate, RES_42_never_one_above_the_limit_in_millions_of_steps) {
  std::uint64_t seed = 1;
  for (const std::uint64_t limit : {1u, 3u, 7u, 999u, 1000u, 1001u, 33'333u, 3'000'000u})
    for (const std::uint64_t burst : {2u, 5u, 100u}) explore(seed++, limit, burst, 100'000);
}

// Threads read their clocks at different times: what counts is the time each call was told. Every
// stretch between two calls is checked.
TEST(Rate, RES_21_late_callers_with_old_times_do_not_loosen_the_limit) {
  constexpr std::uint64_t kLimit = 1500, kBurst = 4;
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    sim::SimRandom random(seed);
    TokenBucket bucket(RateOptions{.limit = kLimit, .burst = kBurst});
    std::vector<std::int64_t> passed;
    std::int64_t now = 10'000'000'000;
    for (int i = 0; i < 1500; ++i) {
      now += static_cast<std::int64_t>(random.below(900'000));
      const std::int64_t told = now - static_cast<std::int64_t>(random.below(3'000'000));
      if (bucket.try_take(Instant(Duration(told))).passed) passed.push_back(told);
    }
    std::ranges::sort(passed);
    for (std::size_t a = 0; a < passed.size(); ++a)
      for (std::size_t b = a; b < passed.size(); ++b) {
        const auto span = static_cast<std::uint64_t>(passed[b] - passed[a]);
        ASSERT_LE(b - a + 1, kBurst + span * kLimit / 1'000'000'000) << seed;
      }
    EXPECT_GT(passed.size(), 300u);
  }
}

TEST(Rate, RES_20_pacing_spaces_calls_and_bounds_the_wait) {
  Pacer pacer(PacerOptions{.limit = 10, .max_wait = milliseconds(250)});
  EXPECT_EQ(pacer.try_take(at({})).wait, Duration::zero());
  EXPECT_EQ(pacer.try_take(at({})).wait, milliseconds(100));
  EXPECT_EQ(pacer.try_take(at({})).wait, milliseconds(200));
  const RateAnswer refused = pacer.try_take(at({}));
  EXPECT_FALSE(refused.passed);
  EXPECT_EQ(refused.wait, milliseconds(50));
  EXPECT_EQ(pacer.try_take(at(milliseconds(50))).wait, milliseconds(250));
  EXPECT_EQ(pacer.try_take(at(seconds(9))).wait, Duration::zero());
}

TEST(Rate, RES_40_a_new_limit_keeps_what_is_spent) {
  TokenBucket bucket(RateOptions{.limit = 10});
  EXPECT_TRUE(bucket.try_take(at({}), 10).passed);
  bucket.reconfigure(RateOptions{.limit = 20});
  EXPECT_EQ(bucket.available(at({})), 0u);
  EXPECT_FALSE(bucket.try_take(at(milliseconds(40))).passed);
}

TEST(Rate, RES_21_threads_at_one_instant_pass_exactly_the_burst) {
  TokenBucket bucket(RateOptions{.limit = 50'000});
  std::atomic<std::uint64_t> passed{0};
  {
    std::deque<Thread> threads;
    for (int t = 0; t < 4; ++t)
      threads.emplace_back("taker", [&] {
        for (int i = 0; i < 40'000; ++i)
          if (bucket.try_take(at({})).passed) passed.fetch_add(1);
      });
  }
  EXPECT_EQ(passed.load(), 50'000u);
}

}  // namespace
}  // namespace sluice::resilience
