// What becomes of claims while the store is slow, fails, or never answers.
#include "idempotency/keys_fixture.hpp"

namespace sluice::idempotency {
namespace {

/// Keeps questions until the test answers them.
class SlowStore final : public store::Store {
 public:
  std::vector<store::PendingQuery*> asked;
  std::optional<Failure> inline_failure;
  explicit SlowStore(Clock& clock) : clock_(clock) {}

  bool ask(store::PendingQuery& pending) override {
    if (inline_failure) {
      pending.answer = fail(*inline_failure);
      return true;
    }
    asked.push_back(&pending);
    return false;
  }
  void answer(Result<store::Answer> with) {
    auto* pending = asked.front();
    asked.erase(asked.begin());
    pending->answer = std::move(with);
    pending->run(pending);
  }
  void answer_unknown() { answer(store::Answer(store::FindKey::Answer{})); }

  void submit(store::PendingCommit&) override {}
  WallTime now() override { return clock_.wall(); }
  std::uint64_t incarnation() const override { return 1; }
  std::uint64_t largest_id() override { return 0; }
  void set_expander(store::Expander*) override {}
  Result<store::PurgeResult> purge(milliseconds, std::size_t) override {
    return store::PurgeResult{};
  }
  store::StoreStats stats() const override { return {}; }
  Status health() override { return {}; }
  void close() override {}

 private:
  Clock& clock_;
};

struct KeyTrouble : testing::Test {
  sim::SimClock clock;
  Lane lane{clock};
  SlowStore store{clock};
  Keys keys{clock, &store};
  Request a{"k", "p", 1, &lane};
  Request b{"k", "p", 2, &lane};
  Request c{"k", "other", 3, &lane};
  void turn(Duration by) {
    clock.advance(by);
    lane.run_ready();
  }
};

const Failure kDown(FailureKind::unavailable, "store_closed", "the store is closed");

TEST_F(KeyTrouble, IDEM_11_a_failing_store_fails_the_command_by_default) {
  store.inline_failure = kDown;
  ASSERT_TRUE(keys.claim(a));
  ASSERT_FALSE(a.answer);
  EXPECT_EQ(a.answer.error().kind(), FailureKind::unavailable);
  EXPECT_NE(a.answer.error().detail().find("idempotency"), std::string::npos);
  store.inline_failure.reset();
  EXPECT_FALSE(keys.claim(a));  // nothing stayed behind: it is asked again
  store.answer_unknown();
  lane.run_ready();
  EXPECT_NE(a.as<idempotency::Run>(), nullptr);
}

TEST_F(KeyTrouble, IDEM_11_fail_open_runs_without_the_key_and_says_so) {
  a.policy.fail_open = true;
  ASSERT_FALSE(keys.claim(a));
  ASSERT_FALSE(keys.claim(b));
  store.answer(fail(kDown));
  lane.run_ready();
  ASSERT_NE(a.as<idempotency::Run>(), nullptr);
  EXPECT_FALSE(a.as<idempotency::Run>()->claim);
  EXPECT_FALSE(b.answer);
  EXPECT_EQ(keys.stats().running, 0u);
}

TEST_F(KeyTrouble, IDEM_10_one_question_per_key_is_in_flight) {
  b.policy.wait = false;
  ASSERT_FALSE(keys.claim(a));
  ASSERT_FALSE(keys.claim(b));
  ASSERT_FALSE(keys.claim(c));
  EXPECT_EQ(store.asked.size(), 1u);
  store.answer_unknown();
  lane.run_ready();
  EXPECT_NE(a.as<idempotency::Run>(), nullptr);
  EXPECT_NE(b.as<InProgress>(), nullptr);
  EXPECT_NE(c.as<Mismatch>(), nullptr);
}

// The fingerprint is compared per request, also of those who came while the store was asked.
TEST_F(KeyTrouble, IDEM_5_a_duplicate_with_another_body_gets_mismatch_also_while_the_lookup_is_under_way) {
  ASSERT_FALSE(keys.claim(a));
  ASSERT_FALSE(keys.claim(b));
  ASSERT_FALSE(keys.claim(c));
  store::KeyRow row;
  row.exchange = {77};
  row.scope = "k";
  row.fingerprint = print_of("p");
  row.state = store::KeyState::completed;
  row.reply = "the reply";
  row.expires_at = WallTime::max();
  store.answer(store::Answer(store::FindKey::Answer{row}));
  lane.run_ready();
  EXPECT_EQ(a.replayed(), "the reply");
  EXPECT_EQ(b.replayed(), "the reply");
  EXPECT_NE(c.as<Mismatch>(), nullptr);
}

TEST_F(KeyTrouble, IDEM_5_a_waiting_duplicate_with_another_body_gets_mismatch_when_the_first_runs) {
  ASSERT_FALSE(keys.claim(a));
  ASSERT_FALSE(keys.claim(c));  // would wait
  store.answer_unknown();
  lane.run_ready();
  ASSERT_NE(a.as<idempotency::Run>(), nullptr);
  EXPECT_TRUE(c.ran) << "told at once, not when the first has finished";
  EXPECT_NE(c.as<Mismatch>(), nullptr);
  a.as<idempotency::Run>()->claim.release();
}

TEST_F(KeyTrouble, IDEM_5_a_key_that_another_node_runs_is_a_mismatch_for_another_body) {
  ASSERT_FALSE(keys.claim(a));
  ASSERT_FALSE(keys.claim(c));
  store::KeyRow row;
  row.exchange = {77};
  row.scope = "k";
  row.fingerprint = print_of("p");
  row.state = store::KeyState::claimed;
  row.expires_at = WallTime::max();
  store.answer(store::Answer(store::FindKey::Answer{row}));
  lane.run_ready();
  EXPECT_NE(a.as<InProgress>(), nullptr);
  EXPECT_NE(c.as<Mismatch>(), nullptr);
}

TEST_F(KeyTrouble, IDEM_11_a_silent_store_costs_the_deadline_and_no_more) {
  a.deadline = clock.now() + seconds(1);
  ASSERT_FALSE(keys.claim(a));
  turn(milliseconds(1100));
  ASSERT_TRUE(a.ran);
  EXPECT_EQ(a.answer.error().kind(), FailureKind::timeout);
  EXPECT_EQ(keys.stats().running, 1u);  // the question is still out
  store.answer_unknown();
  EXPECT_EQ(keys.stats().running, 0u);
}

TEST_F(KeyTrouble, IDEM_6_the_first_may_be_forgotten_while_others_wait) {
  ASSERT_FALSE(keys.claim(a));
  ASSERT_FALSE(keys.claim(b));
  EXPECT_TRUE(keys.forget(a));
  store.answer_unknown();
  lane.run_ready();
  EXPECT_FALSE(a.ran);
  EXPECT_NE(b.as<idempotency::Run>(), nullptr);
}

struct KeyBounds : testing::Test {
  sim::SimClock clock;
  Lane lane{clock};
  void finish(Keys& keys, const std::string& key, Bytes reply) {
    Request r(key, "p", 1, &lane);
    ASSERT_TRUE(keys.claim(r));
    r.as<idempotency::Run>()->claim.completed(std::move(reply));
  }
};

TEST_F(KeyBounds, IDEM_9_least_recently_used_replies_go_first) {
  Keys keys(clock, nullptr, {.max_entries = 3, .shards = 1});
  for (const char* key : {"a", "b", "c"}) finish(keys, key, "r");
  EXPECT_NE(keys.lookup("a"), nullptr);  // now b is the oldest
  finish(keys, "d", "r");
  EXPECT_EQ(keys.lookup("b"), nullptr);
  for (const char* key : {"a", "c", "d"}) EXPECT_NE(keys.lookup(key), nullptr) << key;
  EXPECT_EQ(keys.stats().entries, 3u);
  EXPECT_EQ(keys.stats().evicted, 1u);
}

TEST_F(KeyBounds, IDEM_9_a_claim_that_is_answered_from_a_reply_makes_it_recent) {
  Keys keys(clock, nullptr, {.max_entries = 3, .shards = 1});
  for (const char* key : {"a", "b", "c"}) finish(keys, key, "r");
  Request duplicate("a", "p", 2, &lane);
  ASSERT_TRUE(keys.claim(duplicate));
  ASSERT_NE(duplicate.as<Replay>(), nullptr);
  finish(keys, "d", "r");
  EXPECT_EQ(keys.lookup("b"), nullptr) << "b is the oldest now";
  EXPECT_NE(keys.lookup("a"), nullptr);
}

TEST_F(KeyBounds, IDEM_9_bytes_are_bounded_and_too_large_a_reply_is_not_kept) {
  Keys keys(clock, nullptr, {.max_bytes = 10'000, .shards = 1});
  for (int i = 0; i < 100; ++i) finish(keys, "k" + std::to_string(i), Bytes(1000, 'x'));
  EXPECT_LE(keys.stats().bytes, 10'000u);
  EXPECT_GE(keys.stats().entries, 5u);
  finish(keys, "big", Bytes(20'000, 'x'));
  EXPECT_EQ(keys.lookup("big"), nullptr);
  EXPECT_LE(keys.stats().bytes, 10'000u);
}

TEST_F(KeyBounds, IDEM_9_running_claims_are_never_evicted) {
  Keys keys(clock, nullptr, {.max_entries = 1, .shards = 1});
  Request held("held", "p", 1, &lane);
  ASSERT_TRUE(keys.claim(held));
  for (int i = 0; i < 50; ++i) finish(keys, "k" + std::to_string(i), "r");
  Request duplicate("held", "p", 2, &lane);
  duplicate.policy.wait = false;
  ASSERT_TRUE(keys.claim(duplicate));
  EXPECT_NE(duplicate.as<InProgress>(), nullptr);
}

TEST_F(KeyBounds, IDEM_8_a_ttl_of_for_ever_does_not_overflow) {
  Keys keys(clock, nullptr);
  Request r("k", "p", 1, &lane);
  r.policy.ttl = milliseconds::max();
  r.policy.max_wait = milliseconds::max();
  ASSERT_TRUE(keys.claim(r));
  Request waiter("k", "p", 2, &lane);
  waiter.policy = r.policy;
  ASSERT_FALSE(keys.claim(waiter));
  r.as<idempotency::Run>()->claim.completed("r");
  EXPECT_NE(keys.lookup("k"), nullptr);
  lane.run_ready();
  EXPECT_EQ(waiter.replayed(), "r");
}

}  // namespace
}  // namespace sluice::idempotency
