// The code service by itself, in virtual time: what is leased to whom, what becomes of it when nobody comes back, and
// which questions it takes.
#include <set>

#include "apps/voucher/app.hpp"
#include "apps/voucher/code_service.hpp"
#include "voucher/batch_fixture.hpp"

namespace sluice::voucher {
namespace {

using testing::HasSubstr;

class VoucherCodes : public VoucherBatchTest {
 protected:
  Metrics metrics;
  flow::Flows flows;
  resilience::Guards guards{world.clock, world.random};
  std::map<std::string, server::ChannelConfig> channels;
  server::AppContext context{registry, flows, *world.store, keys, world.clock, world.random, ids, {&lane}, null_logger(), metrics, guards, channels, {}};
  std::unique_ptr<server::App> service = make_code_service();
  int asked = 0;

  void SetUp() override {
    VoucherBatchTest::SetUp();
    ASSERT_TRUE(service->install(context));
    open_voucher("v1", 100, 30);
  }
  Json ask(const Json& question, const char* command = kGetCodes.data()) { return ask(question, command, registry); }
  Json ask(const Json& question, const char* command, rpc::Registry& at) {
    auto call = prepared("q" + std::to_string(++asked), question.dump(), command);
    if (command == kList) call->command.idempotency_key.reset();
    lane.post([&at, raw = call.get()] { at.dispatch(*raw); });
    drive();
    if (call->answer && call->answer->failure) return {{"refused", std::string(call->answer->failure->code())}, {"detail", std::string(call->answer->failure->detail())}};
    const Json answer = said(*call);
    if (answer.is_string()) return {{"refused", answer}, {"detail", Reply::decode(last_)->detail}};
    return answer;
  }
  static Json leasing(const std::string& owner, const std::string& store, int count = 10) {
    Json question{{"owner", owner}, {"vouchers", {"v1"}}, {"count", count}};
    if (!store.empty()) question["store"] = store;
    return question;
  }
  static std::set<std::string> codes_of(const Json& answer) {
    std::set<std::string> codes;
    for (const auto& one : answer.value("segments", Json::array()))
      for (const auto& code : one.value("codes", Json::array())) codes.insert(code.get<std::string>());
    return codes;
  }
  static constexpr const char* kList = "voucher.code.segments.list";
  Json listed(const Json& question = Json::object()) { return ask(question, kList)["segments"]; }
  Json freed(const Json& question) { return ask(question, "voucher.code.segments.free"); }
};

TEST_F(VoucherCodes, VOUCHER_6_two_stores_side_by_side_get_different_codes_also_after_their_leases) {
  std::set<std::string> here, there;
  for (int round = 0; round < 3; ++round) {
    here.merge(codes_of(ask(leasing("shop-1", "aa"))));
    there.merge(codes_of(ask(leasing("shop-2", "bb"))));
    world.clock.advance(std::chrono::minutes(11));
  }
  EXPECT_EQ(here.size(), 10u) << "its own, again and again";
  EXPECT_EQ(there.size(), 10u);
  for (const auto& code : here) EXPECT_FALSE(there.contains(code)) << code << " went to both";
  EXPECT_EQ(codes_of(ask(leasing("shop-3", "cc"))).size(), 10u) << "fresh ones";
  const Json none = ask(leasing("shop-4", "dd"))["segments"][0];
  EXPECT_TRUE(none.value("none", false)) << none.dump();
  EXPECT_EQ(none.value("leased_ms", 0), 600'000) << "they may come back, nobody knows when: " << none.dump();
}

TEST_F(VoucherCodes, VOUCHER_6_a_copy_of_a_store_resumes_nothing_under_the_same_owner) {
  const auto first = codes_of(ask(leasing("shop-1", "aa")));
  Json again = leasing("shop-1", "bb");
  again["resume"] = true;
  const auto second = codes_of(ask(again));
  EXPECT_EQ(second.size(), 10u);
  for (const auto& code : first) EXPECT_FALSE(second.contains(code)) << code;
}

TEST_F(VoucherCodes, VOUCHER_6_NODE_3_a_lease_ends_by_the_stores_clock_at_a_node_days_ahead) {
  sim::SimClock ahead;
  ahead.step_wall(std::chrono::hours(48));
  Node node(ahead, 7, *world.store);
  flow::Flows its_flows;
  server::AppContext its{node.registry, its_flows, *world.store, node.keys, ahead, world.random, node.ids, {&lane}, null_logger(), metrics, guards, channels, {}};
  const auto twin = make_code_service();
  ASSERT_TRUE(twin->install(its));
  const auto first = codes_of(ask(leasing("shop-1", "aa", 30)));
  const Json none = ask(leasing("shop-2", "aa"), kGetCodes.data(), node.registry)["segments"][0];
  EXPECT_EQ(none.value("leased_ms", 0), 600'000) << none.dump();
  world.clock.advance(std::chrono::minutes(9));
  const Json all = ask(Json::object(), kList, node.registry)["segments"];
  ASSERT_EQ(all.size(), 1u) << all.dump();
  EXPECT_EQ(all[0]["lease_ms"], 60'000);
  EXPECT_EQ(all[0]["overdue_ms"], 0);
  world.clock.advance(std::chrono::minutes(1));
  EXPECT_EQ(codes_of(ask(leasing("shop-2", "aa", 30), kGetCodes.data(), node.registry)), first);
  EXPECT_TRUE(codes_of(ask(leasing("shop-1", "aa"))).empty()) << "until then they are the other's";
}

TEST_F(VoucherCodes, VOUCHER_6_segments_of_a_store_that_never_came_back_are_listed_and_withdrawn) {
  (void)ask(leasing("shop-1", "aa", 20));
  world.clock.advance(std::chrono::minutes(9));
  (void)ask(leasing("shop-2", "bb"));
  world.clock.advance(std::chrono::minutes(2));
  const Json all = listed(), overdue = listed({{"overdue", true}});
  ASSERT_EQ(all.size(), 2u) << all.dump();
  ASSERT_EQ(overdue.size(), 1u) << overdue.dump();
  EXPECT_EQ(overdue[0], Json({{"voucher", "v1"}, {"first", 0}, {"count", 20}, {"store", "aa"}, {"owner", "shop-1"}, {"token", 1},
                              {"lease_ms", 0}, {"overdue_ms", 60'000}}));
  EXPECT_EQ(listed({{"owner", "shop-2"}})[0]["lease_ms"], 480'000);
  EXPECT_EQ(freed({{"store", "aa"}, {"withdraw", true}}), Json({{"segments", 1}, {"codes", 20}}));
  EXPECT_EQ(listed().size(), 1u);
  EXPECT_TRUE(codes_of(ask(leasing("shop-1", "aa"))).empty()) << "withdrawn: nobody gets them";
}

TEST_F(VoucherCodes, VOUCHER_6_segments_go_on_to_the_store_that_has_their_assignments) {
  const auto first = codes_of(ask(leasing("shop-1", "aa", 30)));
  EXPECT_EQ(freed({{"store", "aa"}, {"to", "bb"}}), Json({{"segments", 1}, {"codes", 30}}));
  EXPECT_TRUE(codes_of(ask(leasing("shop-1", "bb"))).empty()) << "who had them may use them until the lease ends";
  world.clock.advance(std::chrono::minutes(10));
  EXPECT_EQ(codes_of(ask(leasing("shop-1", "bb"))), first);
  Json late{{"owner", "shop-1"}, {"store", "aa"}, {"finished", {{{"voucher", "v1"}, {"first", 0}, {"token", 1}}}}};
  (void)ask(late);
  EXPECT_EQ(listed().size(), 1u) << "the old store is fenced";
}

TEST_F(VoucherCodes, VOUCHER_6_many_vouchers_are_listed_and_freed_in_pages) {
  for (const char* id : {"v2", "v3"}) {
    open_voucher(id, 10, 10);
    (void)ask({{"owner", "o"}, {"store", "aa"}, {"vouchers", {id}}});
  }
  (void)ask(leasing("o", "aa"));
  const Json page = ask({{"limit", 2}}, kList);
  EXPECT_EQ(page["segments"].size(), 2u);
  EXPECT_EQ(page["next"], "v2");
  EXPECT_EQ(ask({{"limit", 2}, {"after", "v2"}}, kList)["segments"][0]["voucher"], "v3");
  EXPECT_EQ(freed({{"owner", "o"}, {"withdraw", true}, {"limit", 1}}), Json({{"segments", 1}, {"codes", 10}, {"next", "v1"}}));
  EXPECT_EQ(freed({{"owner", "o"}, {"withdraw", true}, {"after", "v1"}}), Json({{"segments", 2}, {"codes", 20}}));
  EXPECT_TRUE(listed().empty());
}

TEST_F(VoucherCodes, VOUCHER_6_what_is_to_become_of_segments_is_said_or_nothing_is_freed) {
  (void)ask(leasing("shop-1", "aa"));
  for (const Json& unclear : {Json{{"withdraw", true}}, Json{{"store", "aa"}}, Json{{"store", "aa"}, {"to", "bb"}, {"withdraw", true}},
                              Json{{"store", "a/a"}, {"withdraw", true}}, Json{{"store", "aa"}, {"withdrawn", true}}, Json::array()})
    EXPECT_EQ(freed(unclear).value("refused", ""), "bad_request") << unclear.dump();
  EXPECT_THAT(freed({{"store", "aa"}, {"withdrawn", true}})["detail"].get<std::string>(), HasSubstr("withdrawn: unknown member; there are store"));
  EXPECT_EQ(ask({{"limit", 0}}, kList).value("refused", ""), "bad_request");
  EXPECT_EQ(listed().size(), 1u);
}

TEST_F(VoucherCodes, VOUCHER_3_who_bypasses_the_cache_gets_codes_that_nobody_had_while_there_are_any) {
  (void)ask(leasing("shop-1", "aa"));
  world.clock.advance(std::chrono::minutes(11));
  Json fresh = leasing("shop-1", "aa", 15);
  fresh["bypass_cache"] = true;
  EXPECT_EQ(ask(fresh)["segments"][0]["first"], 10) << "neither what it has nor what ran out";
  EXPECT_EQ(ask(fresh)["segments"][0]["first"], 25);
  EXPECT_EQ(ask(fresh)["segments"][0]["first"], 0) << "codes are lost to nobody";
  fresh["resume"] = true;
  EXPECT_EQ(ask(fresh).value("refused", ""), "bad_request");
}

TEST_F(VoucherCodes, VOUCHER_2_a_member_that_is_not_known_is_refused_by_its_name) {
  Json slip = leasing("shop-1", "aa");
  slip["bypas_cache"] = true;
  EXPECT_EQ(ask(slip), Json({{"refused", "bad_request"}, {"detail", "bypas_cache: unknown member; there are owner, store, region, vouchers, "
                                                                    "count, resume, bypass_cache, finished"}}));
  Json inner{{"owner", "shop-1"}, {"finished", {{{"voucher", "v1"}, {"first", 0}, {"tokn", 1}}}}};
  EXPECT_THAT(ask(inner)["detail"].get<std::string>(), HasSubstr("finished: tokn: unknown member"));
  EXPECT_TRUE(listed().empty()) << "and nothing was leased";
}

}  // namespace
}  // namespace sluice::voucher
