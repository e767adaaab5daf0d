// Of what a node remembers a voucher to be sold out: of its own look at the stock, and of nobody's memory.
#include "voucher/batch_fixture.hpp"
#include "voucher/slow_store.hpp"

namespace sluice::voucher {
namespace {

class VoucherSoldOutMemory : public VoucherBatchTest {
 protected:
  SlowStore slow{*world.store};
  Node here{world, 2, slow}, there{world, 3, *world.store};

  void SetUp() override {
    VoucherBatchTest::SetUp();
    open_voucher("hot", 1, 10, 100);
    add_user("ann");
    rpc::CommandSpec restock;
    restock.name = "restock-here";
    restock.app = "voucher";
    restock.handler = rpc::flow_handler(here.distribution.restock());
    ASSERT_TRUE(registry.add(std::move(restock)));
  }
  std::string told(const Call& call) {
    const Json reply = said(call);
    const Json item = reply.is_object() ? reply["results"][0] : Json{{"reason", reply}};
    return item.value("reason", item.value("status", ""));
  }
  std::string buy(Node& node, const std::string& id) {
    auto call = start_on(node, id, batch(id, {{"ann", "hot"}}));
    drive();
    return told(*call);
  }
  void let_go() {
    slow.hold_commits = false;
    slow.answer();
    drive();
  }
};

TEST_F(VoucherSoldOutMemory, VOUCHER_7_what_another_node_remembers_is_not_remembered_after_a_restock_here) {
  ASSERT_EQ(buy(there, "a"), "issued");
  ASSERT_EQ(buy(there, "b"), "sold_out");
  ASSERT_EQ(send("more", R"({"voucher":"hot","stock":5})", "restock-here")["stock"], 6);
  slow.hold_commits = true;
  auto late = start_on(here, "c", batch("c", {{"ann", "hot"}}));
  drive();
  ASSERT_EQ(buy(there, "c"), "sold_out") << "by its memory";
  let_go();
  EXPECT_EQ(told(*late), "sold_out") << "as the first was told";
  EXPECT_FALSE(here.distribution.sold_out("voucher", "hot"));
  EXPECT_EQ(buy(here, "d"), "issued");
}

TEST_F(VoucherSoldOutMemory, VOUCHER_7_who_is_refused_by_the_memory_at_its_end_does_not_prolong_it) {
  ASSERT_EQ(buy(here, "a"), "issued");
  ASSERT_EQ(buy(here, "b"), "sold_out");
  world.clock.advance(kSoldOutFor - milliseconds(1));
  slow.hold_commits = true;
  auto late = start_on(here, "c", batch("c", {{"ann", "hot"}}));
  drive();
  world.clock.advance(milliseconds(1));
  let_go();
  EXPECT_EQ(told(*late), "sold_out");
  EXPECT_FALSE(here.distribution.sold_out("voucher", "hot")) << "another node's restock would never be seen while requests come";
}

}  // namespace
}  // namespace sluice::voucher
