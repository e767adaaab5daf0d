#include <gtest/gtest.h>

#include <algorithm>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/base/ids.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

TEST(Ids, TextFormRoundTripsAndSortsLikeTheNumber) {
  sim::SimRandom random(1);
  std::uint64_t before = 0;
  for (int i = 0; i < 10'000; ++i) {
    const std::uint64_t id = random.next() >> (1 + random.below(63));
    ASSERT_EQ(id_from_text(id_to_text(id)), id);
    ASSERT_EQ(id_to_text(before) < id_to_text(id), before < id);
    before = id;
  }
}

TEST(Ids, TextOfTheWrongLengthOrAlphabetIsRefused) {
  EXPECT_FALSE(id_from_text("123"));
  EXPECT_FALSE(id_from_text(""));
  EXPECT_FALSE(id_from_text("000000000000!"));
  EXPECT_FALSE(id_from_text("000000000000u"));  // not in Crockford's alphabet
  EXPECT_FALSE(id_from_text("zzzzzzzzzzzzz"));  // 65 bits
  EXPECT_FALSE(id_from_text("8000000000000"));  // the 64th bit
  EXPECT_TRUE(id_from_text("7zzzzzzzzzzzz"));
}

TEST(Ids, AreUniqueAcrossThreads) {
  constexpr std::size_t kThreads = 4, kEach = 50'000;
  sim::SimClock clock;  // stands still: every id borrows from the future
  IdSource ids(clock, 3);
  std::array<std::vector<std::uint64_t>, kThreads> made;
  {
    std::vector<Thread> threads;
    for (auto& mine : made)
      threads.emplace_back("ids", [&] {
        mine.reserve(kEach);
        for (std::size_t i = 0; i < kEach; ++i) mine.push_back(ids.next());
      });
  }
  std::vector<std::uint64_t> all;
  for (auto& mine : made) {
    EXPECT_TRUE(std::ranges::is_sorted(mine));
    all.insert(all.end(), mine.begin(), mine.end());
  }
  std::ranges::sort(all);
  EXPECT_EQ(std::ranges::adjacent_find(all), all.end());
}

TEST(Ids, KeepRisingWhenTheClockStepsBack) {
  sim::SimClock clock;
  IdSource ids(clock, 1);
  std::uint64_t last = 0;
  for (int i = 0; i < 1000; ++i) {
    if (i % 3 == 0) clock.step_wall(std::chrono::hours(-1));
    const std::uint64_t id = ids.next();
    ASSERT_GT(id, last);
    last = id;
  }
}

TEST(Ids, MoreThan4096InAMillisecondBorrowFromTheFuture) {
  sim::SimClock clock;
  IdSource ids(clock, 5);
  const WallTime start = clock.wall();
  std::uint64_t last = ids.next();
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t id = ids.next();
    ASSERT_GT(id, last);
    last = id;
  }
  EXPECT_EQ(IdSource::time_of(last) - start, milliseconds(20'000 / 4096));
}

TEST(Ids, CarryTheirTimeAndNode) {
  sim::SimClock clock;
  IdSource here(clock, 1), there(clock, 2);
  EXPECT_EQ(IdSource::time_of(here.next()), clock.wall());
  for (int i = 0; i < 10'000; ++i) ASSERT_NE(here.next(), there.next());
}

TEST(Ids, AdvancePastLeavesStoredIdsBehind) {
  sim::SimClock clock;
  IdSource before(clock, 900);
  clock.advance(std::chrono::hours(5));
  const std::uint64_t stored = before.next();
  sim::SimClock earlier;  // restarted with a clock five hours behind
  IdSource after(earlier, 1);
  after.advance_past(stored);
  const std::uint64_t id = after.next();
  EXPECT_GT(id, stored);
  after.advance_past(1);
  EXPECT_GT(after.next(), id);
}

}  // namespace
}  // namespace sluice
