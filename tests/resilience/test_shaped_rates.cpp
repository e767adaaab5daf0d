// Warm-up and quotas per value.
#include <map>

#include "sim/random.hpp"
#include "sluice/resilience/block.hpp"
#include "sluice/resilience/hot_keys.hpp"
#include "sluice/resilience/warm_up.hpp"

namespace sluice::resilience {
namespace {

constexpr Instant kStart{seconds(10)};

// How many pass in each second when asked without pause.
int calls_in_a_second(WarmUp& limit, Instant from) {
  int passed = 0;
  for (Duration t{}; t < seconds(1); t += microseconds(500))
    passed += limit.try_take(from + t).passed ? 1 : 0;
  return passed;
}

TEST(WarmUp, RES_20_starts_low_rises_with_use_and_cools_when_idle) {
  WarmUp limit(WarmUpOptions{.limit = 100, .warm_up = seconds(10), .cold_factor = 4});
  EXPECT_EQ(limit.warmth(kStart), 0);
  Instant now = kStart;
  int before = 0;
  for (int second = 0; second < 11; ++second) {
    const int passed = calls_in_a_second(limit, now);
    if (second == 0) EXPECT_NEAR(passed, 26, 3);
    EXPECT_GE(passed, before - 1);
    EXPECT_LE(passed, 100) << "never above the limit";
    before = passed;
    now += seconds(1);
  }
  EXPECT_GE(before, 94) << "asked every half millisecond";
  EXPECT_EQ(limit.warmth(now), 1);
  EXPECT_EQ(limit.warmth(now + seconds(20)), 0) << "idle as long as it took to warm up";
}

TEST(WarmUp, RES_20_bounded_wait_and_refusals_take_nothing) {
  WarmUp limit(WarmUpOptions{.limit = 10, .cold_factor = 1, .max_wait = milliseconds(150)});
  EXPECT_EQ(limit.try_take(kStart).wait, Duration::zero());
  EXPECT_EQ(limit.try_take(kStart).wait, milliseconds(100));
  const RateAnswer refused = limit.try_take(kStart);
  EXPECT_FALSE(refused.passed);
  EXPECT_EQ(refused.wait, milliseconds(50));
  EXPECT_EQ(limit.try_take(kStart + milliseconds(50)).wait, milliseconds(150));
  EXPECT_EQ(limit.try_take(kStart, 11).wait, kNoRetryAfter);
  EXPECT_FALSE(WarmUp(WarmUpOptions{.limit = 0}).try_take(kStart).passed);
}

TEST(WarmUp, RES_40_reconfiguring_keeps_the_warmth) {
  WarmUp limit(WarmUpOptions{.limit = 100, .warm_up = seconds(2)});
  Instant now = kStart;
  for (int i = 0; i < 3; ++i, now += seconds(1)) calls_in_a_second(limit, now);
  ASSERT_EQ(limit.warmth(now), 1);
  limit.reconfigure(WarmUpOptions{.limit = 200, .warm_up = seconds(4)});
  EXPECT_GT(limit.warmth(now), 0.95);
}

TEST(HotKeys, RES_20_each_value_has_a_quota_and_some_their_own) {
  sim::SimRandom random(1);
  HotKeys keys(HotKeyOptions{.limit = 2, .overrides = {{"vip", 5}, {"banned", 0}}}, random);
  const auto passes = [&](std::string_view key) {
    int passed = 0;
    while (keys.try_take(kStart, key).passed) ++passed;
    return passed;
  };
  EXPECT_EQ(passes("a"), 2);
  EXPECT_EQ(passes("b"), 2);
  EXPECT_EQ(passes("vip"), 5);
  EXPECT_EQ(passes("banned"), 0);
  EXPECT_EQ(keys.try_take(kStart, "a", 3).wait, kNoRetryAfter);
  EXPECT_TRUE(keys.try_take(kStart + milliseconds(500), "a").passed);
}

TEST(HotKeys, RES_20_memory_is_bounded_least_recently_used_first_out) {
  sim::SimRandom random(1);
  HotKeys keys(HotKeyOptions{.limit = 1, .max_keys = 3}, random);
  for (const auto* key : {"a", "b", "c", "d"}) EXPECT_TRUE(keys.try_take(kStart, key).passed);
  EXPECT_EQ(keys.stats().keys, 3u);
  EXPECT_EQ(keys.stats().evicted_early, 1u);
  EXPECT_FALSE(keys.try_take(kStart, "b").passed);
  EXPECT_TRUE(keys.try_take(kStart, "a").passed) << "forgotten";
  EXPECT_TRUE(keys.try_take(kStart + seconds(2), "e").passed);
  EXPECT_EQ(keys.stats().evicted, 1u) << "a refilled value is forgotten without loss";
}

TEST(HotKeys, RES_21_exact_when_full_refuses_new_values) {
  sim::SimRandom random(1);
  HotKeys keys(HotKeyOptions{.limit = 1, .max_keys = 2, .on_full = HotKeysFull::refuse}, random);
  EXPECT_TRUE(keys.try_take(kStart, "a").passed && keys.try_take(kStart, "b").passed);
  EXPECT_FALSE(keys.try_take(kStart, "c").passed);
  EXPECT_TRUE(keys.try_take(kStart + seconds(1), "c").passed);
}

TEST(HotKeys, RES_42_agrees_with_a_bucket_per_value) {
  sim::SimRandom random(7);
  HotKeys keys(HotKeyOptions{.limit = 50, .burst = 3, .max_keys = 64}, random);
  std::map<std::string, std::unique_ptr<TokenBucket>> model;
  Instant now = kStart;
  for (int i = 0; i < 300'000; ++i) {
    now += microseconds(random.below(500));
    const std::string key = "user-" + std::to_string(random.below(64));
    auto& bucket = model[key];
    if (!bucket) bucket = std::make_unique<TokenBucket>(RateOptions{.limit = 50, .burst = 3});
    const auto n = static_cast<std::uint32_t>(random.below(4));
    const RateAnswer a = keys.try_take(now, key, n);
    const RateAnswer b = bucket->try_take(now, n);
    ASSERT_EQ(a.passed, b.passed) << i;
    ASSERT_EQ(a.wait, b.wait) << i;
    if (random.one_in(5)) {
      keys.give_back(key, a);
      bucket->give_back(b);
    }
  }
}

TEST(HotKeys, RES_40_reconfiguring_keeps_what_is_spent) {
  sim::SimRandom random(1);
  HotKeys keys(HotKeyOptions{.limit = 2, .max_keys = 8}, random);
  for (const auto* key : {"a", "b", "c"}) EXPECT_TRUE(keys.try_take(kStart, key, 2).passed);
  keys.reconfigure(HotKeyOptions{.limit = 2, .max_keys = 2});
  EXPECT_FALSE(keys.try_take(kStart, "b").passed);
  EXPECT_FALSE(keys.try_take(kStart, "c").passed);
  EXPECT_EQ(keys.stats().keys, 2u);
}

}  // namespace
}  // namespace sluice::resilience
