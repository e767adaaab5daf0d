// What is asked and refused before an item runs: users, the caller's rate, regions.
#include <gmock/gmock.h>

#include "voucher/batch_fixture.hpp"
#include "voucher/services_fixture.hpp"

namespace sluice::voucher {
namespace {

using testing::HasSubstr;

TEST(VoucherUsers, VOUCHER_3_users_are_asked_of_the_user_service_once_for_a_batch) {
  Service codes{make_code_service(), true};
  Service users{make_user_service(), true};
  store::Commit known;
  for (int i = 0; i < 5; ++i)
    known.then.push_back(store::KvPut{user_key("voucher", "somebody" + std::to_string(i)), encode(User{"somebody" + std::to_string(i), "SG"}), {}});
  ASSERT_TRUE(store::commit_and_wait(users.store(), std::move(known)));
  VoucherOptions options = options_for(codes.server->grpc_port(), codes.token, users.server->grpc_port());
  options.code_service.clear();
  options.user_token = users.token;
  RealClock log_clock;
  const auto lines = std::make_shared<Lines>();
  const auto logger = make_logger(log_clock, lines);
  Service shop{make_app(options), false, "", {}, logger.get()};
  Json items = Json::array();
  for (int i = 0; i < 10; ++i) items.push_back({{"user", "somebody" + std::to_string(i)}, {"voucher", "none"}});
  const Json reply = shop.ask(kBatch, {{"request_id", "a"}, {"region", "SG"}, {"items", items}}, "Idempotency-Key: a\r\n");
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(reply["results"][i]["reason"], i < 5 ? "unknown_voucher" : "unknown_user") << reply.dump();
  const std::string metrics = test::HttpClient(shop.server->port()).ask(test::get("/metrics"))->body;
  EXPECT_THAT(metrics, HasSubstr("sluice_client_calls_total{command=\"voucher.user.exists.SG\",traffic=\"live\",outcome=\"ok\"} 1"))
      << "ten items, one call";
  users.server->stop();
  const Json down = shop.ask(kBatch, {{"request_id", "b"}, {"region", "TH"}, {"items", {{{"user", "somebody9"}, {"voucher", "none"}}}}},
                             "Idempotency-Key: b\r\n");
  EXPECT_EQ(down["results"][0]["reason"], "user_service_unavailable") << down.dump();
  shop.server->stop();  // what is logged is written
  EXPECT_THAT(lines->all, testing::AllOf(HasSubstr("a service was called"), HasSubstr("a call of a service failed")));
  EXPECT_THAT(lines->all, testing::Not(HasSubstr("somebody9"))) << "who it was about is nobody's business who reads logs";
  EXPECT_THAT(lines->all, testing::Not(HasSubstr("somebody1")));
}

TEST(VoucherLimits, VOUCHER_3_a_caller_past_its_rate_is_refused_as_a_whole_and_told_when) {
  VoucherOptions options;
  options.caller_rate = 10;
  Service shop{make_app(options), false};
  Json items = Json::array();
  for (int i = 0; i < 300; ++i) items.push_back({{"user", "u" + std::to_string(i)}, {"voucher", "none"}});
  const auto send = [&](const char* id, const char* region) {
    return shop.ask(kBatch, {{"request_id", id}, {"region", region}, {"items", items}},
                    std::string("Idempotency-Key: ") + id + "\r\n");
  };
  EXPECT_TRUE(send("a", "SG").contains("results"));
  const Json refused = send("b", "SG");
  EXPECT_EQ(refused["http"], 429) << refused.dump();
  EXPECT_EQ(refused["code"], "caller_rate_limit");
  EXPECT_EQ(send("c", "TH")["code"], "caller_rate_limit") << "over all regions: a caller names what region he likes";
}

// The limits by themselves, in virtual time.
class VoucherCallerLimits : public VoucherBatchTest {
 protected:
  static resilience::HotKeyOptions a_second(std::uint64_t items) {
    resilience::HotKeyOptions options;
    options.limit = items;
    return options;
  }
  resilience::HotKeys everywhere{a_second(30), world.random}, in_region{a_second(20), world.random};
  Distribution limited{*world.store, world.clock, ids, nullptr, CallerLimits{&everywhere, &in_region}};
  bool may(std::size_t items, const char* region, const char* caller = "ann") {
    return limited.check_rate_limit_availability("voucher", caller, region, items).has_value();
  }
};

TEST_F(VoucherCallerLimits, VOUCHER_3_a_caller_has_a_rate_in_each_region_and_one_over_all_of_them) {
  EXPECT_TRUE(may(20, "SG"));
  const auto refused = limited.check_rate_limit_availability("voucher", "ann", "SG", 1);
  ASSERT_FALSE(refused) << "the region's is spent";
  EXPECT_EQ(refused.error().code(), "caller_rate_limit");
  EXPECT_EQ(refused.error().detail(), "1 items are more than caller 'ann' may ask for in SG now: 0 are left (--caller-region-rate); nothing was run");
  EXPECT_EQ(refused.error().retry_after(), milliseconds(50));
  EXPECT_FALSE(may(11, "TH")) << "over all regions: a caller names what region he likes";
  EXPECT_TRUE(may(10, "TH")) << "what was refused has taken nothing";
  EXPECT_FALSE(may(1, "VN"));
  EXPECT_TRUE(may(20, "SG", "ben")) << "another caller";
  world.clock.advance(seconds(1));
  EXPECT_TRUE(may(20, "TH")) << "what was refused over all regions took nothing in its own";
}

TEST_F(VoucherCallerLimits, VOUCHER_3_a_caller_who_names_many_regions_gets_no_more_for_it) {
  std::size_t passed = 0;
  for (char a = 'A'; a <= 'Z'; ++a)
    for (char b = 'A'; b <= 'Z'; ++b) passed += may(1, std::string{a, b}.c_str());
  EXPECT_EQ(passed, 30u);
}

TEST(VoucherLimits, VOUCHER_3_only_regions_that_are_served_are_taken) {
  VoucherOptions options;
  options.regions = {"SG", "TH"};
  Service shop{make_app(options), false};
  const auto send = [&](const char* id, const char* region) {
    return shop.ask(kBatch, {{"request_id", id}, {"region", region}, {"items", {{{"user", "u"}, {"voucher", "none"}}}}},
                    std::string("Idempotency-Key: ") + id + "\r\n");
  };
  EXPECT_TRUE(send("a", "TH").contains("results"));
  const Json refused = send("b", "XX");
  EXPECT_EQ(refused["http"], 400);
  EXPECT_EQ(refused["code"], "unknown_region");
  EXPECT_EQ(refused["detail"], "request.region: expected one of SG, TH (--regions of this service), got \"XX\"");
}

}  // namespace
}  // namespace sluice::voucher
