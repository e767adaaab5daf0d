// The life cycle of a key, the same over memory alone, the memory store and SQLite.
#include <set>

#include "idempotency/keys_fixture.hpp"

namespace sluice::idempotency {
namespace {

SLUICE_KEYS_SUITE(KeyLife);

TEST_P(KeyLife, IDEM_3_first_runs_and_a_duplicate_replays_the_same_bytes) {
  const Bytes reply("\x00\xff{\"ok\":1}", 10);
  auto first = request("k");
  decide(must_run(first), reply);
  auto second = request("k");
  EXPECT_EQ(claim(second).replayed(), reply);
  EXPECT_EQ(second.as<Replay>()->cached->exchange, first.exchange);
}

TEST_P(KeyLife, IDEM_5_other_fingerprint_is_a_mismatch_while_running_and_after) {
  auto first = request("k");
  auto held = must_run(first);
  auto second = request("k", "pay 6");
  EXPECT_NE(claim(second).as<Mismatch>(), nullptr);
  decide(std::move(held), "r");
  auto third = request("k", "pay 6");
  EXPECT_NE(claim(third).as<Mismatch>(), nullptr);
  EXPECT_EQ(keys->stats().mismatches, 2u);
}

TEST_P(KeyLife, IDEM_6_waiters_get_the_reply_of_the_first) {
  auto first = request("k");
  auto held = must_run(first);
  auto second = request("k");
  auto third = request("k");
  ASSERT_FALSE(keys->claim(second));
  ASSERT_FALSE(keys->claim(third));
  lane.run_ready();
  EXPECT_FALSE(second.ran);
  decide(std::move(held), "r1");
  lane.run_ready();
  ASSERT_TRUE(second.ran && third.ran);
  EXPECT_EQ(second.replayed(), "r1");
  EXPECT_EQ(second.as<Replay>()->cached, third.as<Replay>()->cached);
}

TEST_P(KeyLife, IDEM_6_without_waiting_a_duplicate_is_told_in_progress) {
  auto first = request("k");
  const auto held = must_run(first);
  auto second = request("k");
  second.policy.wait = false;
  ASSERT_TRUE(keys->claim(second));
  ASSERT_NE(second.as<InProgress>(), nullptr);
  EXPECT_EQ(second.as<InProgress>()->exchange, first.exchange);
  EXPECT_GT(second.as<InProgress>()->retry_after, milliseconds(0));
}

TEST_P(KeyLife, IDEM_6_waiting_ends_at_the_deadline_or_after_max_wait) {
  auto first = request("k");
  const auto held = must_run(first);
  auto by_deadline = request("k");
  by_deadline.deadline = rig.clock.now() + seconds(2);
  auto by_policy = request("k");
  by_policy.policy.max_wait = seconds(5);
  auto passed = request("k");
  passed.deadline = rig.clock.now();
  ASSERT_FALSE(keys->claim(by_deadline));
  ASSERT_FALSE(keys->claim(by_policy));
  EXPECT_TRUE(keys->claim(passed));
  turn(milliseconds(1900));
  EXPECT_FALSE(by_deadline.ran);
  turn(milliseconds(200));
  EXPECT_TRUE(by_deadline.ran);
  EXPECT_NE(by_deadline.as<InProgress>(), nullptr);
  EXPECT_FALSE(by_policy.ran);
  turn(seconds(4));
  EXPECT_TRUE(by_policy.ran);
}

TEST_P(KeyLife, IDEM_6_a_forgotten_waiter_is_never_run) {
  auto first = request("k");
  auto held = must_run(first);
  auto second = request("k");
  ASSERT_FALSE(keys->claim(second));
  EXPECT_TRUE(keys->forget(second));
  EXPECT_FALSE(keys->forget(second));
  decide(std::move(held), "r");
  turn(std::chrono::hours(1));
  EXPECT_FALSE(second.ran);
}

TEST_P(KeyLife, IDEM_6_a_waiter_answered_before_it_is_forgotten_still_runs) {
  auto first = request("k");
  auto held = must_run(first);
  auto second = request("k");
  ASSERT_FALSE(keys->claim(second));
  decide(std::move(held), "r");
  EXPECT_FALSE(keys->forget(second));
  lane.run_ready();
  EXPECT_TRUE(second.ran);
}

TEST_P(KeyLife, IDEM_7_release_hands_the_key_to_the_next_waiter) {
  auto first = request("k");
  auto held = must_run(first);
  auto second = request("k");
  auto third = request("k");
  ASSERT_FALSE(keys->claim(second));
  ASSERT_FALSE(keys->claim(third));
  held.release();
  until_ran(second);
  ASSERT_TRUE(second.ran);
  EXPECT_FALSE(third.ran);
  ASSERT_NE(second.as<idempotency::Run>(), nullptr);
  EXPECT_EQ(second.as<idempotency::Run>()->claim.exchange(), second.exchange);
  decide(std::move(second.as<idempotency::Run>()->claim), "r2");
  until_ran(third);
  EXPECT_EQ(third.replayed(), "r2");
}

TEST_P(KeyLife, IDEM_7_a_dropped_claim_releases) {
  auto first = request("k");
  {
    const auto dropped = must_run(first);
  }
  EXPECT_EQ(keys->stats().running, 0u);
  auto second = request("k", "another payload");
  EXPECT_TRUE(must_run(second));
}

TEST_P(KeyLife, IDEM_8_an_expired_key_runs_as_new) {
  auto first = request("k");
  first.policy.ttl = seconds(60);
  decide(must_run(first), "old");
  turn(seconds(59));
  EXPECT_NE(keys->lookup("k"), nullptr);
  turn(seconds(2));
  EXPECT_EQ(keys->lookup("k"), nullptr);
  auto second = request("k", "other payload");
  decide(must_run(second), "new");
  auto third = request("k", "other payload");
  EXPECT_EQ(claim(third).replayed(), "new");
}

TEST_P(KeyLife, IDEM_8_an_expired_key_is_refused_where_declared) {
  auto first = request("k");
  first.policy.ttl = seconds(60);
  decide(must_run(first), "old");
  turn(seconds(61));
  auto second = request("k");
  second.policy.refuse_expired = true;
  EXPECT_NE(claim(second).as<ExpiredKey>(), nullptr);
}

TEST_P(KeyLife, IDEM_8_a_hit_does_not_prolong_the_life_of_a_key) {
  auto first = request("k");
  first.policy.ttl = seconds(60);
  decide(must_run(first), "r");
  for (int i = 0; i < 5; ++i) {
    turn(seconds(11));
    EXPECT_NE(keys->lookup("k"), nullptr);
  }
  turn(seconds(6));
  EXPECT_EQ(keys->lookup("k"), nullptr);
}

TEST_P(KeyLife, IDEM_9_claims_past_the_bound_are_overloaded_not_evicted) {
  keys = make_keys({.max_claims = 2});
  auto a = request("a");
  auto b = request("b");
  auto c = request("c");
  auto held_a = must_run(a);
  const auto held_b = must_run(b);
  ASSERT_TRUE(keys->claim(c));
  ASSERT_FALSE(c.answer);
  EXPECT_EQ(c.answer.error().kind(), FailureKind::overloaded);
  EXPECT_TRUE(c.answer.error().retry_after());
  held_a.release();
  EXPECT_TRUE(must_run(c));
}

TEST_P(KeyLife, IDEM_1_scopes_that_look_alike_when_joined_are_apart) {
  const Namespace live("app");
  const Namespace shadow("app", true);
  const std::vector<Bytes> scopes{
      make_scope(live, "ann", "pay", 1, "k"),   make_scope(live, "annp", "ay", 1, "k"),
      make_scope(live, "bob", "pay", 1, "k"),   make_scope(live, "ann", "pay", 2, "k"),
      make_scope(shadow, "ann", "pay", 1, "k"), make_scope(live, "ann", "pay", 1, "kk")};
  for (const auto& scope : scopes) {
    auto r = request(scope);
    decide(must_run(r), "reply of " + to_hex(scope));
  }
  for (const auto& scope : scopes) {
    auto again = request(scope);
    EXPECT_EQ(claim(again).replayed(), "reply of " + to_hex(scope));
  }
}

// Names of every length, made of the bytes that lengths are made of: no two lists of them are one scope.
TEST(Scope, IDEM_1_no_two_callers_commands_versions_or_keys_are_one_scope) {
  std::vector<std::string> words{""};
  for (const char a : {'\0', '\1', 'a'}) {
    words.push_back(std::string(1, a));
    for (const char b : {'\0', '\1', 'a'}) words.push_back(std::string{a, b});
  }
  std::set<Bytes> scopes;
  std::size_t made = 0;
  for (const auto& ns : {Namespace("a"), Namespace("a", true), Namespace("aa")})
    for (const auto& principal : words)
      for (const auto& command : words)
        for (const std::uint32_t version : {1u, 97u, 256u})
          for (const auto& key : words) {
            scopes.insert(make_scope(ns, principal, command, version, key));
            ++made;
          }
  EXPECT_EQ(scopes.size(), made);
}

TEST_P(KeyLife, IDEM_8_an_expired_key_stays_refused_after_a_restart) {
  if (!store) GTEST_SKIP() << "keys in memory alone go with the process";
  const auto refusing = [](Request& r) -> Request& {
    r.policy.ttl = seconds(10);
    r.policy.refuse_expired = true;
    r.policy.refuse_for = seconds(30);
    return r;
  };
  Request first = request("k"), late = request("k"), again = request("k"), purged = request("k"),
          much_later = request("k");
  decide(must_run(refusing(first)), "done");
  turn(seconds(11));
  keys = make_keys();  // nothing is in memory any more
  EXPECT_NE(claim(refusing(late)).as<ExpiredKey>(), nullptr);
  EXPECT_NE(claim(refusing(again)).as<ExpiredKey>(), nullptr) << "from memory this time";
  (void)store->purge(seconds(1), 100);
  keys = make_keys();
  EXPECT_NE(claim(refusing(purged)).as<ExpiredKey>(), nullptr) << "a purge must not make it run again";
  turn(seconds(30));
  keys = make_keys();
  EXPECT_TRUE(must_run(refusing(much_later))) << "refused for as long as declared, not for ever";
}

}  // namespace
}  // namespace sluice::idempotency
