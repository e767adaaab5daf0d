// Whose a request id is while items of its batch have still to be run: the first batch's of which an item
// took effect, on every node, whatever becomes of the rest.
#include "voucher/batch_fixture.hpp"
#include "voucher/slow_store.hpp"

namespace sluice::voucher {
namespace {

class VoucherRequestId : public VoucherBatchTest {
 protected:
  void SetUp() override {
    VoucherBatchTest::SetUp();
    const auto longer = [](Voucher& v) { v.to += std::chrono::hours(48); };
    open_voucher("good", 10, 10, 10, "ALL", longer);
    open_voucher("broken", 10, 0, 10, "ALL", longer);
    pool("broken", 1);
    for (const char* user : {"ann", "ben", "cat"}) add_user(user);
  }
  void pool(const std::string& voucher, std::int64_t count) {
    store::Commit commit;
    commit.then = {store::KvPut{pool_key("voucher", voucher), "", count}};
    ASSERT_TRUE(store::commit_and_wait(*world.store, std::move(commit)));
  }
  void mend() {
    store::Commit commit;
    commit.then = {store::KvPut{code_key("voucher", "broken", 0), "MENDED-0", {}}};
    ASSERT_TRUE(store::commit_and_wait(*world.store, std::move(commit)));
  }
  Json send_to(Node& node, const std::string& key, const std::string& payload) {
    auto call = start_on(node, key, payload);
    drive();
    return said(*call);
  }
  // The first fails and stays to be run, the second is issued.
  const std::string half = batch("r1", {{"ann", "broken"}, {"ben", "good"}});
  const std::string shorter = batch("r1", {{"cat", "good"}});
};

TEST_F(VoucherRequestId, VOUCHER_5_one_issued_item_makes_the_request_id_its_batchs) {
  const Json first = send("k", half)["results"];
  ASSERT_EQ(first[0]["status"], "failed") << first.dump();
  ASSERT_EQ(first[1]["status"], "issued") << first.dump();
  EXPECT_EQ(send("k", shorter), "fingerprint_mismatch") << "where the item that failed stood";
  EXPECT_EQ(send("k2", batch("r1", {{"cat", "good"}, {"cat", "good"}})), "fingerprint_mismatch") << "a duplicate has no key";
  EXPECT_EQ(world.books().issued, 1);
  mend();
  const Json second = send("k", half)["results"];
  EXPECT_EQ(second[0]["status"], "issued") << second.dump();
  EXPECT_EQ(second[1], first[1]) << "and what was issued is told as it was";
  EXPECT_EQ(world.books().issued, 2);
}

TEST_F(VoucherRequestId, VOUCHER_5_a_refused_item_binds_the_request_id_as_well) {
  const Json first = send("k", batch("r1", {{"ann", "broken"}, {"nobody", "good"}}))["results"];
  ASSERT_EQ(first[1]["reason"], "unknown_user") << first.dump();
  EXPECT_EQ(send("k", shorter), "fingerprint_mismatch");
  open_voucher("none", 0, 5);
  const Json sold_out = send("k2", batch("r2", {{"ann", "broken"}, {"ben", "none"}}))["results"];
  ASSERT_EQ(sold_out[1]["reason"], "sold_out") << "by a precondition of its Commit: " << sold_out.dump();
  EXPECT_EQ(send("k2", batch("r2", {{"cat", "good"}})), "fingerprint_mismatch");
}

TEST_F(VoucherRequestId, VOUCHER_5_it_stays_bound_after_a_restart_and_on_other_nodes) {
  const Json first = send("k", half)["results"];
  Node other(world, 2, *world.store);
  EXPECT_EQ(send_to(other, "k", shorter), "fingerprint_mismatch");
  mend();
  const Json second = send_to(other, "k", half)["results"];
  EXPECT_EQ(second[0]["status"], "issued") << second.dump();
  EXPECT_EQ(second[1], first[1]);
  EXPECT_EQ(world.books().issued, 2);
}

TEST_F(VoucherRequestId, VOUCHER_5_of_two_batches_on_two_nodes_at_once_one_is_refused_whole) {
  SlowStore slow(*world.store);
  Node other(world, 2, slow);
  for (const auto& [id, payload] : {std::pair<std::string, std::string>("r1", half), {"r2", batch("r2", {{"ann", "good"}, {"ben", "good"}})}}) {
    slow.hold_commits = true;
    auto late = start_on(other, id + "-b", batch(id, {{"cat", "good"}}));
    drive();
    ASSERT_FALSE(late->answer);
    const Json won = send(id + "-a", payload)["results"];
    ASSERT_EQ(won[1]["status"], "issued") << won.dump();
    slow.hold_commits = false;
    slow.answer();
    drive();
    EXPECT_EQ(said(*late), "fingerprint_mismatch") << "told neither its own item nor the other batch's";
  }
  const Books books = world.books();
  EXPECT_EQ(books.issued, 3);
  for (const auto& wrong : books.wrong) ADD_FAILURE() << wrong;
}

TEST_F(VoucherRequestId, VOUCHER_5_without_an_item_that_ended_the_request_id_is_nobodys) {
  const Json first = send("k", batch("r1", {{"ann", "broken"}}))["results"];
  ASSERT_EQ(first[0]["status"], "failed") << first.dump();
  EXPECT_EQ(send("k", shorter)["results"][0]["status"], "issued");
  mend();
  EXPECT_EQ(send("k2", batch("r1", {{"ann", "broken"}})), "fingerprint_mismatch");
  EXPECT_EQ(world.books().issued, 1);
}

TEST_F(VoucherRequestId, VOUCHER_5_it_is_given_up_with_the_keys_of_the_items_and_leaves_nothing) {
  send("k", half);
  world.clock.advance(std::chrono::hours(24) - seconds(1));
  EXPECT_EQ(send("k", shorter), "fingerprint_mismatch");
  world.clock.advance(seconds(1));
  const auto purged = world.store->purge(std::chrono::hours(24 * 30), 1000);
  ASSERT_TRUE(purged);
  EXPECT_EQ(purged->keys, 1u) << "the request id's";
  EXPECT_EQ(send("k", shorter)["results"][0]["status"], "issued");
  world.clock.advance(std::chrono::hours(26));
  EXPECT_EQ(world.store->purge(std::chrono::hours(24 * 30), 1000)->keys, 4u) << "the items' that ended, the request id's, and that of the batch";
}

TEST_F(VoucherRequestId, VOUCHER_5_no_item_is_given_out_again_while_the_request_id_is_remembered) {
  const Json first = send("k", half)["results"];
  world.clock.advance(std::chrono::hours(23));
  mend();
  const Json whole = send("k1", half)["results"];
  EXPECT_EQ(whole[0]["status"], "issued");
  EXPECT_EQ(whole[1], first[1]);
  for (int i = 0; i < 2; ++i) {  // at 23 h 45 min and at 24 h 30 min
    world.clock.advance(std::chrono::minutes(45));
    EXPECT_EQ(send("k2" + std::to_string(i), half)["results"], whole);
  }
}

TEST_F(VoucherRequestId, VOUCHER_5_how_long_it_is_remembered_can_be_said) {
  distribution->keep_for(std::chrono::hours(2));
  const Json first = send("k", half)["results"];
  for (int hours = 1; hours <= 2; ++hours) {
    const Json again = send("k" + std::to_string(hours), half);
    ASSERT_TRUE(again.is_object()) << again.dump();
    EXPECT_EQ(again["results"][1], first[1]);
    world.clock.advance(std::chrono::hours(1));
  }
  const Json other = send("k3", shorter);
  ASSERT_TRUE(other.is_object()) << "the id is free again: " << other.dump();
  EXPECT_EQ(other["results"][0]["status"], "issued");
}

// The other one is a claim of the test's own, where a batch equal to ours would have come first.
TEST_F(VoucherRequestId, VOUCHER_5_of_two_equal_batches_the_later_waits_holding_nothing_the_other_needs) {
  const std::string four = batch("r1", {{"ann", "good"}, {"ann", "broken"}, {"ben", "broken"}, {"cat", "broken"}});
  const Json first = send("k", four)["results"];
  ASSERT_EQ(first[0]["status"], "issued") << first.dump();
  for (int i = 1; i < 4; ++i) ASSERT_EQ(first[i]["status"], "failed") << first.dump();
  const auto scope = [](std::string_view what, std::string_view key) {
    return idempotency::make_scope(Namespace("voucher"), "admin", what, 1, key);
  };
  const auto whole = store::ask_now(*world.store, store::FindKey{scope("voucher.batch", "r1")});
  ASSERT_TRUE(whole && *whole);
  idempotency::PendingClaim other;
  other.scope = scope("voucher.item", "r1/1");
  other.fingerprint = (*whole)->fingerprint;
  other.exchange = ids.exchange();
  other.lane = &lane;
  other.run = [](Job*) noexcept {};
  if (!keys.claim(other)) drive();
  ASSERT_TRUE(other.answer && std::holds_alternative<idempotency::Run>(*other.answer));
  const auto before = keys.stats().running;
  const auto later = start("k2", four);
  drive();
  EXPECT_FALSE(later->answer);
  EXPECT_EQ(keys.stats().running, before + 1) << "its own Idempotency-Key alone";
  other.answer = idempotency::Claimed();  // lets go
  drive();
  EXPECT_EQ(said(*later)["results"][0], first[0]);
}

}  // namespace
}  // namespace sluice::voucher
