#include <gtest/gtest.h>

#include <list>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/base/bounded_cache.hpp"

namespace sluice {
namespace {

TEST(BoundedCache, EvictsTheLeastRecentlyUsed) {
  sim::SimClock clock;
  BoundedCache<int, std::string> cache(clock, {.max_entries = 2});
  cache.put(1, "a");
  cache.put(2, "b");
  ASSERT_NE(cache.find(1), nullptr);
  cache.put(3, "c");
  EXPECT_EQ(cache.find(2), nullptr);
  EXPECT_NE(cache.find(1), nullptr);
  EXPECT_NE(cache.find(3), nullptr);
  EXPECT_EQ(cache.stats().evicted, 1u);
}

TEST(BoundedCache, KeepsWithinItsBytesAndRefusesWhatIsLargerAlone) {
  sim::SimClock clock;
  BoundedCache<int, int> cache(clock, {.max_bytes = 100});
  cache.put(1, 1, 60);
  cache.put(2, 2, 40);
  EXPECT_EQ(cache.bytes(), 100u);
  cache.put(3, 3, 1);
  EXPECT_EQ(cache.find(1), nullptr);
  EXPECT_EQ(cache.bytes(), 41u);
  EXPECT_FALSE(cache.put(2, 2, 101));
  EXPECT_EQ(cache.find(2), nullptr) << "the old value must not stay under the key";
  EXPECT_EQ(cache.bytes(), 1u);
}

TEST(BoundedCache, NeverServesWhatExpired) {
  sim::SimClock clock;
  BoundedCache<int, int> cache(clock, {.ttl = seconds(10)});
  cache.put(1, 1);
  clock.advance(seconds(10) - Duration(1));
  EXPECT_NE(cache.find(1), nullptr);
  clock.advance(Duration(1));
  EXPECT_EQ(cache.find(1), nullptr);
  EXPECT_EQ(cache.size(), 0u);
  EXPECT_EQ(cache.stats().expired, 1u);
}

TEST(BoundedCache, MatchesANaiveModel) {
  sim::SimClock clock;
  sim::SimRandom random(5);
  BoundedCache<std::uint64_t, std::uint64_t> cache(clock, {.max_entries = 20, .max_bytes = 200});
  struct Entry {
    std::uint64_t key, value, bytes;
  };
  std::list<Entry> model;  // newest first
  for (int step = 0; step < 200'000; ++step) {
    const std::uint64_t key = random.below(40);
    const auto found = std::ranges::find(model, key, &Entry::key);
    switch (random.below(3)) {
      case 0: {
        if (found != model.end()) model.erase(found);
        const Entry entry{key, random.next(), random.below(30)};
        model.push_front(entry);
        const auto total = [&] {
          std::uint64_t sum = 0;
          for (const Entry& e : model) sum += e.bytes;
          return sum;
        };
        while (model.size() > 20 || total() > 200) model.pop_back();
        cache.put(key, entry.value, entry.bytes);
        break;
      }
      case 1:
        ASSERT_EQ(cache.erase(key), found != model.end());
        if (found != model.end()) model.erase(found);
        break;
      default: {
        const auto* value = cache.find(key);
        ASSERT_EQ(value != nullptr, found != model.end());
        if (value == nullptr) break;
        ASSERT_EQ(*value, found->value);
        model.splice(model.begin(), model, found);
      }
    }
    ASSERT_EQ(cache.size(), model.size());
  }
}

}  // namespace
}  // namespace sluice
