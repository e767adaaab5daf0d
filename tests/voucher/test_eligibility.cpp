// Who may have a voucher: each rule by its name, in the order of the stages.
#include "voucher/batch_fixture.hpp"

namespace sluice::voucher {
namespace {

class VoucherEligibility : public VoucherBatchTest {
 protected:
  int asked = 0;
  /// "issued", or why not.
  std::string buy(const std::string& user, const std::string& voucher, const std::string& region = "DE") {
    const std::string id = "r" + std::to_string(++asked);
    const Json result = send(id, batch(id, {{user, voucher}}, region))["results"][0];
    return result["status"] == "issued" ? std::string("issued") : result.value("reason", result.dump());
  }
};

TEST_F(VoucherEligibility, VOUCHER_3_the_stages_stand_in_the_order_of_the_specification) {
  const std::string drawn = distribution->flow().to_dot();
  std::size_t before = 0;
  for (const char* stage : {"check_user_existence", "load_vouchers", "check_eligibility", "load_codes", "reserve", "distribute"}) {
    const auto at = drawn.find('"' + std::string(stage) + '"');
    ASSERT_NE(at, std::string::npos) << stage << drawn;
    EXPECT_GT(at, before) << stage << drawn;
    before = at;
  }
}

TEST_F(VoucherEligibility, VOUCHER_3_the_first_rule_that_refuses_is_told) {
  open_voucher("none", 0, 0, 1, "FR", [](Voucher& v) { v.to = v.from + seconds(1); });
  EXPECT_EQ(buy("nobody", "unknown"), "unknown_user") << "users before vouchers";
  add_user("ann");
  EXPECT_EQ(buy("ann", "unknown"), "unknown_voucher");
  EXPECT_EQ(buy("ann", "none"), "outside_window") << "the window before the region";
  open_voucher("fr", 0, 0, 1, "FR");
  EXPECT_EQ(buy("ann", "fr"), "wrong_region") << "the region before the stock";
  EXPECT_EQ(buy("ann", "fr", "FR"), "sold_out") << "the stock before the codes";
  open_voucher("empty", 1, 0);
  EXPECT_EQ(buy("ann", "empty"), "no_code");
}

TEST_F(VoucherEligibility, VOUCHER_3_a_window_is_open_from_its_first_to_before_its_last_instant) {
  add_user("ann");
  const WallTime now = world.clock.wall();
  open_voucher("soon", 9, 9, 9, "ALL", [&](Voucher& v) { v.from = now + seconds(10), v.to = now + seconds(20); });
  EXPECT_EQ(buy("ann", "soon"), "outside_window");
  world.clock.advance(seconds(10));
  EXPECT_EQ(buy("ann", "soon"), "issued");
  world.clock.advance(seconds(10));
  EXPECT_EQ(buy("ann", "soon"), "outside_window");
}

TEST_F(VoucherEligibility, VOUCHER_3_the_quota_of_a_day_holds_for_all_users_and_comes_back_with_the_next) {
  open_voucher("daily", 9, 9, 9, "ALL", [](Voucher& v) { v.day_quota = 2, v.to = v.from + std::chrono::hours(24 * 9); });
  for (const char* user : {"ann", "ben", "cat"}) add_user(user);
  EXPECT_EQ(buy("ann", "daily"), "issued");
  EXPECT_EQ(buy("ben", "daily"), "issued");
  EXPECT_EQ(buy("cat", "daily"), "day_quota");
  world.clock.advance(std::chrono::hours(24));
  EXPECT_EQ(buy("cat", "daily"), "issued");
  EXPECT_TRUE(world.books().balanced());
}

TEST_F(VoucherEligibility, VOUCHER_3_NODE_3_nodes_days_apart_count_one_day_and_keep_one_window_by_the_stores_clock) {
  open_voucher("daily", 9, 9, 9, "ALL", [](Voucher& v) { v.day_quota = 2; });
  for (const char* user : {"ann", "ben", "cat"}) add_user(user);
  sim::SimClock behind, ahead;
  behind.step_wall(-std::chrono::hours(48));
  ahead.step_wall(std::chrono::hours(48));
  Node one(behind, 7, *world.store), two(ahead, 8, *world.store);
  const auto buy_at = [&](Node& node, const std::string& user) {
    const std::string id = "r" + std::to_string(++asked);
    const auto call = start_on(node, id, batch(id, {{user, "daily"}}));
    drive();
    const Json result = said(*call)["results"][0];
    return result["status"] == "issued" ? std::string("issued") : result.value("reason", result.dump());
  };
  EXPECT_EQ(buy_at(one, "ann"), "issued");
  EXPECT_EQ(buy_at(two, "ben"), "issued");
  EXPECT_EQ(buy_at(one, "cat"), "day_quota");
  EXPECT_EQ(buy_at(two, "cat"), "day_quota");
  world.clock.advance(std::chrono::hours(1));
  EXPECT_EQ(buy_at(one, "cat"), "outside_window");
  EXPECT_EQ(buy_at(two, "cat"), "outside_window");
  EXPECT_TRUE(world.books().balanced());
}

TEST_F(VoucherEligibility, VOUCHER_4_no_more_money_is_spent_than_the_budget_has) {
  open_voucher("dear", 100, 100, 100, "ALL", [](Voucher& v) { v.budget_minor = 3 * v.value_minor + v.value_minor - 1; });
  for (int i = 0; i < 40; ++i) add_user("u" + std::to_string(i));
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 40; ++i)
    calls.push_back(start("k" + std::to_string(i), batch("r" + std::to_string(i) + "x", {{"u" + std::to_string(i), "dear"}})));
  drive();
  int issued = 0, spent = 0;
  for (const auto& call : calls) {
    ASSERT_TRUE(call->answer && call->answer->reply);
    const Json one = Json::parse(Reply::decode(*call->answer->reply)->body)["results"][0];
    issued += one["status"] == "issued";
    spent += one.value("reason", "") == "budget_exhausted";
  }
  EXPECT_EQ(issued, 3);
  EXPECT_EQ(spent, 37);
  const Books books = world.books();
  EXPECT_EQ(books.events, 3u) << "an event for each that was issued, and no other";
  for (const auto& wrong : books.wrong) ADD_FAILURE() << wrong;
  EXPECT_EQ(send("more", R"({"voucher":"dear","budget_minor":1})", "restock")["stock"], 100);
  EXPECT_EQ(buy("u0", "dear"), "issued") << "one minor unit was missing";
}

TEST_F(VoucherEligibility, VOUCHER_9_shadow_traffic_takes_of_a_stock_of_its_own) {
  admin->may_shadow = true;
  open_voucher("v1", 1, 1);
  add_user("ann");
  const auto shadow = [&](const std::string& id) {
    auto call = start(id, batch(id, {{"ann", "v1"}}));
    call->command.ns = Namespace("voucher", true);
    drive();
    return Json::parse(Reply::decode(*call->answer->reply)->body)["results"][0].value("reason", "issued");
  };
  EXPECT_EQ(shadow("s1"), "unknown_user") << "live users are none of shadow traffic";
  store::Commit copy;
  for (const auto& key : {user_key("voucher", "ann"), voucher_key("voucher", "v1"), stock_key("voucher", "v1"),
                          budget_key("voucher", "v1"), pool_key("voucher", "v1"), code_key("voucher", "v1", 0)}) {
    auto row = world.row(key);
    ASSERT_TRUE(row);
    store::KvKey there = key;
    there.ns = "voucher~shadow";
    copy.then.push_back(store::KvPut{there, row->value, row->number});
  }
  ASSERT_TRUE(store::commit_and_wait(*world.store, std::move(copy)));
  EXPECT_EQ(shadow("s2"), "issued");
  EXPECT_EQ(shadow("s3"), "sold_out");
  EXPECT_EQ(world.row(stock_key("voucher", "v1"))->number, 1);
  EXPECT_FALSE(distribution->sold_out("voucher", "v1")) << "what is remembered is shadow traffic's too";
  EXPECT_EQ(buy("ann", "v1"), "issued");
}

}  // namespace
}  // namespace sluice::voucher
