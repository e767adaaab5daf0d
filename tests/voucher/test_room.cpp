// Batches wait until there is room for their items: for so many as the process gets through in time, and holding
// nothing meanwhile.
#include "voucher/batch_fixture.hpp"

namespace sluice::voucher {
namespace {

class VoucherRoom : public VoucherBatchTest {
 protected:
  void SetUp() override {
    VoucherBatchTest::SetUp();
    open_voucher("v1", 100, 100);
    for (int i = 0; i < 10; ++i) add_user("u" + std::to_string(i));
  }
  /// As other batches do that run.
  admission::Admission take(std::size_t items, bool shadow = false) {
    admission::PendingAdmission others;
    others.permits = items;
    EXPECT_TRUE(distribution->items(shadow).admit(others));
    auto taken = others.take();
    return taken ? *std::move(taken) : admission::Admission();
  }
  std::size_t waiting() const { return distribution->items(false).stats().waiting_for_permit; }
  std::size_t running() const { return distribution->items(false).stats().in_use; }
  static std::string of(const std::string& id, int first, int last) {
    std::vector<std::pair<std::string, std::string>> items;
    for (int i = first; i <= last; ++i) items.emplace_back("u" + std::to_string(i), "v1");
    return batch(id, items);
  }
};

TEST_F(VoucherRoom, VOUCHER_8_batches_wait_in_their_order_until_there_is_room_for_their_items) {
  auto others = take(kItemsAtOnce - 2);
  auto three = start("r1", of("r1", 0, 2));
  auto one = start("r2", of("r2", 3, 3));
  drive();
  EXPECT_FALSE(three->answer) << "two would fit";
  EXPECT_FALSE(one->answer) << "it would fit, and came later";
  EXPECT_EQ(waiting(), 2u);
  const auto shadow = take(kItemsAtOnce, true);  // live and shadow traffic take no room from each other
  others.release();
  drive();
  for (const auto* call : {three.get(), one.get()})
    for (const auto& item : said(*call)["results"]) EXPECT_EQ(item["status"], "issued") << item.dump();
  EXPECT_EQ(running(), 0u);
}

TEST_F(VoucherRoom, VOUCHER_2_a_deadline_that_passes_before_there_is_room_fails_the_batch_and_nothing_has_run) {
  auto others = take(kItemsAtOnce);
  auto late = prepared("r1", of("r1", 0, 1));
  late->command.deadline = world.clock.now() + milliseconds(1500);
  lane.post([&] { registry.dispatch(*late); });
  drive();
  EXPECT_FALSE(late->answer);
  world.clock.advance(milliseconds(1600));
  drive();
  ASSERT_TRUE(late->answer && late->answer->failure);
  EXPECT_EQ(late->answer->failure->kind(), FailureKind::timeout);
  EXPECT_TRUE(late->answer->failure->retryable());
  EXPECT_EQ(waiting(), 0u);
  EXPECT_EQ(world.books().issued, 0);
  others.release();
  // The request id was not taken either: with other items it is a new one.
  EXPECT_EQ(send("r1", of("r1", 2, 4))["results"][2]["status"], "issued");
}

TEST_F(VoucherRoom, VOUCHER_2_a_caller_that_leaves_gives_its_place_up) {
  auto others = take(kItemsAtOnce);
  auto gone = start("r1", of("r1", 0, 1));
  auto next = start("r2", of("r2", 2, 3));
  drive();
  EXPECT_EQ(waiting(), 2u);
  gone->scope.cancel(FailureKind::cancelled);
  drive();
  ASSERT_TRUE(gone->answer && gone->answer->failure);
  EXPECT_EQ(gone->answer->failure->kind(), FailureKind::cancelled);
  EXPECT_EQ(waiting(), 1u);
  others.release();
  drive();
  EXPECT_EQ(said(*next)["results"][0]["status"], "issued");
}

// However a batch ends, its room is free again.
TEST_F(VoucherRoom, VOUCHER_8_room_is_given_back_by_batches_that_are_refused_repeated_or_have_duplicates) {
  const std::string first = of("r1", 0, 2);
  EXPECT_EQ(send("r1", first)["results"][0]["status"], "issued");
  EXPECT_EQ(send("other-key", first)["results"][0]["status"], "issued") << "its items are repeated";
  EXPECT_EQ(send("r3", of("r1", 4, 5)), "fingerprint_mismatch") << "the request id is another batch's";
  EXPECT_EQ(send("r4", batch("r4", {{"u6", "v1"}, {"u6", "v1"}}))["results"][1]["reason"], "duplicate_item");
  EXPECT_EQ(running(), 0u);
  EXPECT_EQ(waiting(), 0u);
}

}  // namespace
}  // namespace sluice::voucher
