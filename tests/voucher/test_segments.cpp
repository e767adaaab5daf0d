// Leasing disjoint ranges of codes: who has what, and what becomes of it.
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "apps/voucher/segments.hpp"

namespace sluice::voucher {
namespace {

// Of one store, as the nodes of a database are.
Holder node(std::string owner) { return {"shop", std::move(owner)}; }
Holder elsewhere(std::string owner) { return {"other", std::move(owner)}; }
WallTime at(int second) { return WallTime(milliseconds(second * 1000)); }

TEST(Segments, VOUCHER_6_segments_are_disjoint_and_none_reaches_past_the_last_code) {
  Segments segments;
  std::set<std::int64_t> seen;
  std::int64_t total = 0;
  for (int i = 0; i < 5; ++i)
    if (const auto s = segments.lease(node("a" + std::to_string(i)), 25, 10, at(0), at(60))) {
      total += s->count;
      for (std::int64_t o = s->first; o < s->first + s->count; ++o) EXPECT_TRUE(seen.insert(o).second) << o;
    }
  EXPECT_EQ(total, 25);
  EXPECT_EQ(*seen.rbegin(), 24);
  EXPECT_FALSE(segments.lease(node("late"), 25, 10, at(0), at(60))) << "all are leased";
}

TEST(Segments, VOUCHER_6_a_lease_that_ran_out_changes_hands_with_the_next_token) {
  Segments segments;
  const auto first = segments.lease(node("a"), 10, 10, at(0), at(60));
  EXPECT_FALSE(segments.lease(node("b"), 10, 10, at(59), at(120)));
  const auto second = segments.lease(node("b"), 10, 10, at(60), at(120));
  ASSERT_TRUE(second);
  EXPECT_EQ(second->first, first->first);
  EXPECT_GT(second->token, first->token);
  EXPECT_FALSE(segments.finish(node("a"), first->first, first->token)) << "the old owner is fenced";
  EXPECT_TRUE(segments.resume(node("a"), at(200)).empty());
  EXPECT_TRUE(segments.finish(node("b"), second->first, second->token));
  EXPECT_EQ(segments.leased(), 0u);
  EXPECT_FALSE(segments.lease(node("c"), 10, 10, at(1000), at(2000))) << "what is finished never comes back";
}

TEST(Segments, VOUCHER_6_an_owner_that_comes_back_gets_its_own_again) {
  Segments segments;
  const auto one = segments.lease(node("a"), 100, 10, at(0), at(60));
  (void)segments.lease(node("b"), 100, 10, at(0), at(60));
  const auto again = segments.resume(node("a"), at(90));
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].first, one->first);
  EXPECT_EQ(again[0].token, one->token);
  EXPECT_EQ(again[0].expires, at(90));
}

TEST(Segments, VOUCHER_6_a_long_list_is_resumed_in_parts_those_renewed_longest_ago_first) {
  Segments segments;
  for (int i = 0; i < 5; ++i) (void)segments.lease(node("a"), 100, 10, at(0), at(60 + i));
  std::vector<std::int64_t> order;
  for (int part = 0; part < 3; ++part)
    for (const auto& s : segments.resume(node("a"), at(100 + part), 15)) order.push_back(s.first);
  EXPECT_EQ(order, (std::vector<std::int64_t>{0, 10, 20, 30, 40, 0})) << "two of ten are fifteen or more";
  EXPECT_EQ(segments.first_end(node("a"), at(0), at(999)), at(100));
  EXPECT_TRUE(segments.resume(node("a"), at(200), 0).empty());
  EXPECT_FALSE(Segments().first_end(node("a"), at(0), at(999)));
}

TEST(Segments, VOUCHER_6_a_segment_larger_than_there_is_room_for_is_left_for_another_time) {
  Segments segments;
  (void)segments.lease(node("a"), 100, 50, at(0), at(60));
  const auto fresh = segments.lease(node("b"), 100, 10, at(70), at(130), 20);
  ASSERT_TRUE(fresh);
  EXPECT_EQ(fresh->first, 50);
  EXPECT_EQ(segments.lease(node("b"), 100, 10, at(70), at(130), 50)->first, 0);
}

TEST(Segments, VOUCHER_6_of_many_that_are_leased_those_that_ran_out_are_leased_again) {
  Segments segments;
  for (std::size_t i = 0; i < Segments::kMaxLeased; ++i) ASSERT_TRUE(segments.lease(node("gone"), 1000, 1, at(0), at(60)));
  EXPECT_FALSE(segments.lease(node("b"), 1000, 1, at(0), at(60))) << "as many as may be";
  for (std::size_t i = 0; i < Segments::kMaxLeased; ++i) ASSERT_TRUE(segments.lease(node("b"), 1000, 1, at(60), at(120))) << i;
  EXPECT_EQ(segments.leased(), Segments::kMaxLeased);
}

TEST(Segments, VOUCHER_6_they_read_back_as_written_and_damage_is_found) {
  Segments segments;
  for (int i = 0; i < 4; ++i) (void)segments.lease(i % 2 == 0 ? node("owner-" + std::to_string(i)) : Holder{{}, "owner"}, 1000, 7 + i, at(i), at(60 + i));
  const Bytes bytes = segments.encode();
  const auto back = Segments::decode(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->all(), segments.all());
  EXPECT_EQ(back->encode(), bytes);
  for (std::size_t cut = 1; cut < bytes.size(); ++cut)
    EXPECT_FALSE(Segments::decode(ByteView(bytes).substr(0, cut))) << cut;
  EXPECT_TRUE(Segments::decode(ByteView()));
}

TEST(Segments, VOUCHER_6_a_segment_of_another_store_is_never_leased_again) {
  Segments segments;
  const auto first = segments.lease(node("a"), 20, 10, at(0), at(60));
  EXPECT_EQ(segments.lease(elsewhere("b"), 20, 10, at(1000), at(1060))->first, 10) << "fresh codes are for everybody";
  EXPECT_FALSE(segments.lease(elsewhere("b"), 20, 10, at(1001), at(1061)));
  EXPECT_TRUE(segments.resume(elsewhere("a"), at(2000)).empty()) << "a copy of the store under the same name";
  EXPECT_FALSE(segments.finish(elsewhere("a"), first->first, first->token));
  EXPECT_EQ(segments.first_end(elsewhere("b"), at(1001), at(1234)), at(1060)) << "its own";
  EXPECT_EQ(segments.first_end(elsewhere("b"), at(30), at(1234)), at(60)) << "who has it may finish it before";
  EXPECT_EQ(segments.first_end(elsewhere("b"), at(1061), at(1234)), at(1060));
  EXPECT_EQ(segments.first_end({"third", "c"}, at(1061), at(1234)), at(1234)) << "nobody knows when";
  const auto again = segments.lease(node("c"), 20, 10, at(1001), at(1061));
  ASSERT_TRUE(again) << "another node of the store knows what was assigned";
  EXPECT_EQ(again->first, 0);
}

TEST(Segments, VOUCHER_6_what_was_leased_before_stores_were_told_stays_its_owners) {
  Segments segments;
  (void)segments.lease({{}, "a"}, 30, 10, at(0), at(60));
  (void)segments.lease({{}, "b"}, 30, 10, at(0), at(60));
  EXPECT_FALSE(segments.lease(node("c"), 20, 10, at(100), at(160)));
  const auto own = segments.resume(node("a"), at(160));
  ASSERT_EQ(own.size(), 1u);
  EXPECT_EQ(own[0].holder, node("a")) << "and is its store's from then on";
  EXPECT_TRUE(segments.resume({{}, "a"}, at(200)).empty());
  EXPECT_EQ(segments.lease(node("b"), 20, 10, at(100), at(160))->first, 10);
}

TEST(Segments, VOUCHER_6_what_is_taken_from_a_store_is_anothers_when_its_lease_ends_or_nobodys) {
  Segments segments;
  (void)segments.lease(node("a"), 40, 10, at(0), at(60));
  (void)segments.lease(node("b"), 40, 10, at(0), at(60));
  (void)segments.lease(elsewhere("a"), 40, 10, at(0), at(60));
  EXPECT_EQ(segments.free({"shop", "a"}, "other").size(), 1u);
  EXPECT_TRUE(segments.resume(node("a"), at(90)).empty()) << "who had it is fenced";
  ASSERT_EQ(segments.resume(elsewhere("a"), at(60)).size(), 1u) << "and may have it until its lease ends";
  EXPECT_EQ(segments.lease(elsewhere("c"), 30, 10, at(60), at(120))->first, 0);
  EXPECT_EQ(segments.free({"shop", {}}, {}).size(), 1u);
  EXPECT_EQ(segments.leased(), 2u);
  for (const auto& s : segments.all()) EXPECT_EQ(s.holder.store, "other");
  EXPECT_FALSE(segments.lease(node("b"), 30, 10, at(1000), at(1060))) << "withdrawn: its codes go to nobody";
}

// Owners that come, go, are late and finish, at random: a code has one owner at a time, and of one store.
TEST(Segments, VOUCHER_6_whatever_happens_a_code_has_one_owner_at_a_time) {
  std::mt19937 random(7);
  for (int history = 0; history < 200; ++history) {
    Segments segments;
    constexpr std::int64_t kCodes = 300;
    std::map<std::int64_t, std::string> store_of;  // of each code, from its first lease on
    for (int step = 0; step < 100; ++step) {
      const std::string name(1, static_cast<char>('a' + random() % 4));
      const Holder owner = random() % 2 == 0 ? node(name) : elsewhere(name);
      switch (random() % 4) {
        case 0: (void)segments.resume(owner, at(step + 10)); break;
        case 1:
          for (const auto& s : std::vector(segments.all()))
            if (random() % 3 == 0) (void)segments.finish(s.holder, s.first, s.token);
          break;
        default: (void)segments.lease(owner, kCodes, 1 + random() % 20, at(step), at(step + 10));
      }
      std::set<std::int64_t> owned;
      for (const auto& s : segments.all()) {
        EXPECT_LE(s.first + s.count, kCodes);
        for (std::int64_t o = s.first; o < s.first + s.count; ++o) {
          ASSERT_TRUE(owned.insert(o).second);
          ASSERT_EQ(store_of.emplace(o, s.holder.store).first->second, s.holder.store) << o;
        }
      }
      auto round = Segments::decode(segments.encode());
      ASSERT_TRUE(round);
      segments = *std::move(round);
    }
  }
}

}  // namespace
}  // namespace sluice::voucher
