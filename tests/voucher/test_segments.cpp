// Leasing disjoint ranges of codes: who has what, and what becomes of it.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "apps/voucher/segments.hpp"

namespace sluice::voucher {
namespace {

WallTime at(int second) { return WallTime(milliseconds(second * 1000)); }

TEST(Segments, VOUCHER_6_segments_are_disjoint_and_none_reaches_past_the_last_code) {
  Segments segments;
  std::set<std::int64_t> seen;
  std::int64_t total = 0;
  for (int i = 0; i < 5; ++i)
    if (const auto s = segments.lease("a" + std::to_string(i), 25, 10, at(0), at(60))) {
      total += s->count;
      for (std::int64_t o = s->first; o < s->first + s->count; ++o) EXPECT_TRUE(seen.insert(o).second) << o;
    }
  EXPECT_EQ(total, 25);
  EXPECT_EQ(*seen.rbegin(), 24);
  EXPECT_FALSE(segments.lease("late", 25, 10, at(0), at(60))) << "all are leased";
}

TEST(Segments, VOUCHER_6_a_lease_that_ran_out_changes_hands_with_the_next_token) {
  Segments segments;
  const auto first = segments.lease("a", 10, 10, at(0), at(60));
  EXPECT_FALSE(segments.lease("b", 10, 10, at(59), at(120)));
  const auto second = segments.lease("b", 10, 10, at(60), at(120));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->first, first->first);
  EXPECT_GT(second->token, first->token);
  EXPECT_FALSE(segments.finish("a", first->first, first->token)) << "the old owner is fenced";
  EXPECT_TRUE(segments.resume("a", at(200)).empty());
  EXPECT_TRUE(segments.finish("b", second->first, second->token));
  EXPECT_EQ(segments.leased(), 0u);
  EXPECT_FALSE(segments.lease("c", 10, 10, at(1000), at(2000))) << "what is finished never comes back";
}

TEST(Segments, VOUCHER_6_an_owner_that_comes_back_gets_its_own_again) {
  Segments segments;
  const auto one = segments.lease("a", 100, 10, at(0), at(60));
  (void)segments.lease("b", 100, 10, at(0), at(60));
  const auto again = segments.resume("a", at(90));
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].first, one->first);
  EXPECT_EQ(again[0].token, one->token);
  EXPECT_EQ(again[0].expires, at(90));
}

TEST(Segments, VOUCHER_6_a_long_list_is_resumed_in_parts_those_renewed_longest_ago_first) {
  Segments segments;
  for (int i = 0; i < 5; ++i) (void)segments.lease("a", 100, 10, at(0), at(60 + i));
  std::vector<std::int64_t> order;
  for (int part = 0; part < 3; ++part)
    for (const auto& s : segments.resume("a", at(100 + part), 15)) order.push_back(s.first);
  EXPECT_EQ(order, (std::vector<std::int64_t>{0, 10, 20, 30, 40, 0})) << "two of ten are fifteen or more";
  EXPECT_EQ(segments.first_end(), at(100));
  EXPECT_TRUE(segments.resume("a", at(200), 0).empty());
  EXPECT_FALSE(Segments().first_end());
}

TEST(Segments, VOUCHER_6_a_segment_larger_than_there_is_room_for_is_left_for_another_time) {
  Segments segments;
  (void)segments.lease("a", 100, 50, at(0), at(60));
  const auto fresh = segments.lease("b", 100, 10, at(70), at(130), 20);
  ASSERT_TRUE(fresh);
  EXPECT_EQ(fresh->first, 50);
  EXPECT_EQ(segments.lease("b", 100, 10, at(70), at(130), 50)->first, 0);
}

TEST(Segments, VOUCHER_6_of_many_that_are_leased_those_that_ran_out_are_leased_again) {
  Segments segments;
  for (std::size_t i = 0; i < Segments::kMaxLeased; ++i) ASSERT_TRUE(segments.lease("gone", 1000, 1, at(0), at(60)));
  EXPECT_FALSE(segments.lease("b", 1000, 1, at(0), at(60))) << "as many as may be";
  for (std::size_t i = 0; i < Segments::kMaxLeased; ++i) ASSERT_TRUE(segments.lease("b", 1000, 1, at(60), at(120))) << i;
  EXPECT_EQ(segments.leased(), Segments::kMaxLeased);
}

TEST(Segments, VOUCHER_6_they_read_back_as_written_and_damage_is_found) {
  Segments segments;
  for (int i = 0; i < 4; ++i) (void)segments.lease("owner-" + std::to_string(i), 1000, 7 + i, at(i), at(60 + i));
  const Bytes bytes = segments.encode();
  const auto back = Segments::decode(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->all(), segments.all());
  EXPECT_EQ(back->encode(), bytes);
  for (std::size_t cut = 1; cut < bytes.size(); ++cut)
    EXPECT_FALSE(Segments::decode(ByteView(bytes).substr(0, cut))) << cut;
  EXPECT_TRUE(Segments::decode(ByteView()));
}

// Owners that come, go, are late and finish, at random: a code has one owner at a time.
TEST(Segments, VOUCHER_6_whatever_happens_a_code_has_one_owner_at_a_time) {
  std::mt19937 random(7);
  for (int history = 0; history < 200; ++history) {
    Segments segments;
    constexpr std::int64_t kCodes = 300;
    for (int step = 0; step < 100; ++step) {
      const std::string owner(1, static_cast<char>('a' + random() % 4));
      switch (random() % 4) {
        case 0: (void)segments.resume(owner, at(step + 10)); break;
        case 1:
          for (const auto& s : std::vector(segments.all()))
            if (random() % 3 == 0) (void)segments.finish(owner, s.first, s.token);
          break;
        default: (void)segments.lease(owner, kCodes, 1 + random() % 20, at(step), at(step + 10));
      }
      std::set<std::int64_t> owned;
      for (const auto& s : segments.all()) {
        EXPECT_LE(s.first + s.count, kCodes);
        for (std::int64_t o = s.first; o < s.first + s.count; ++o) ASSERT_TRUE(owned.insert(o).second);
      }
      auto round = Segments::decode(segments.encode());
      ASSERT_TRUE(round);
      segments = *std::move(round);
    }
  }
}

}  // namespace
}  // namespace sluice::voucher
