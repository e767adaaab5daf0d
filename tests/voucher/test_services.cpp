// What the distribution service and the code service give out together.
#include <set>

#include "apps/voucher/books.hpp"
#include "apps/voucher/segments.hpp"
#include "voucher/services_fixture.hpp"

namespace sluice::voucher {
namespace {

using testing::HasSubstr;

using VoucherServices = VoucherServicesTest;

// As long as a code may be.
std::string fmt_code(std::int64_t n) {
  const std::string number = std::to_string(n);
  return std::string(64 - number.size(), 'C') + number;
}

TEST_F(VoucherServices, VOUCHER_6_codes_come_in_segments_from_the_code_service_and_each_goes_to_one_user) {
  std::set<std::string> given;
  for (int round = 0; round < 4; ++round) {
    std::vector<std::pair<std::string, std::string>> items;
    for (int i = 0; i < 25; ++i) items.push_back({user(round * 25 + i), "v1"});
    const Json reply = batch(items);
    ASSERT_EQ(reply["results"].size(), 25u) << reply.dump();
    for (const auto& one : reply["results"]) {
      ASSERT_EQ(one["status"], "issued") << one.dump();
      EXPECT_TRUE(given.insert(one["code"]).second) << "a code was given twice";
    }
  }
  EXPECT_EQ(given.size(), 100u);
  const Json saved = shop.ask("voucher.downstream.show", Json::object());
  EXPECT_GE(saved["code_calls"], 10) << saved.dump();  // segments of ten
  EXPECT_LE(saved["code_calls"], 12) << saved.dump();
  EXPECT_EQ(saved["codes_at_hand"].get<int>() + saved["code_waits"].get<int>(), 100) << "the others shared: " << saved.dump();
}

TEST_F(VoucherServices, VOUCHER_3_past_the_cache_every_batch_asks_and_no_code_is_kept_at_hand) {
  VoucherOptions options = options_for(codes.server->grpc_port(), codes.token);
  options.downstream.bypass_cache = true;
  Service past{make_app(options), true};
  const Voucher v = open_for_all("v1", 100);
  store::Commit fill;
  fill.then = {store::KvPut{voucher_key("voucher", v.id), encode(v), {}}, store::KvPut{stock_key("voucher", v.id), "", v.stock},
               store::KvPut{budget_key("voucher", v.id), "", v.budget_minor}};
  Json items = Json::array();
  for (int i = 0; i < 20; ++i) {
    items.push_back({{"user", user(i)}, {"voucher", "v1"}});
    fill.then.push_back(store::KvPut{user_key("voucher", user(i)), encode(User{user(i), "SG"}), {}});
  }
  ASSERT_TRUE(store::commit_and_wait(past.store(), std::move(fill)));
  std::set<std::string> given;
  for (const char* id : {"a", "b"}) {
    const Json answer = past.ask(kBatch, {{"request_id", id}, {"region", "SG"}, {"items", items}}, std::string("Idempotency-Key: ") + id + "\r\n");
    for (const auto& one : answer["results"]) {
      ASSERT_EQ(one["status"], "issued") << one.dump();
      given.insert(one["code"].get<std::string>());
    }
  }
  EXPECT_EQ(given.size(), 40u);
  const Json saved = past.ask("voucher.downstream.show", Json::object());
  EXPECT_EQ(saved["code_calls"], 2) << saved.dump();
  EXPECT_EQ(saved["codes_at_hand"], 0);
  std::int64_t leased = 0;
  for (const auto& one : codes.ask("voucher.code.segments.list", {{"store", saved["store"]}})["segments"]) leased += one["count"].get<std::int64_t>();
  EXPECT_LE(leased, 20) << "what the second batch has not told yet; no more was asked for than was wanted";
}

TEST_F(VoucherServices, VOUCHER_6_no_code_stands_in_the_log) {
  const Json reply = batch({{user(0), "v1"}, {user(1), "v1"}});
  shop.server->stop();  // what is logged is written
  EXPECT_THAT(lines->all, HasSubstr("a service was called"));
  for (const auto& one : reply["results"]) {
    ASSERT_EQ(one["status"], "issued") << reply.dump();
    EXPECT_THAT(lines->all, testing::Not(HasSubstr(one["code"].get<std::string>())));
  }
  EXPECT_THAT(lines->all, testing::Not(HasSubstr("L-V1-"))) << "nor those leased beside them";
}

TEST_F(VoucherServices, VOUCHER_2_a_full_batch_of_different_vouchers_is_issued_within_the_usual_time) {
  std::vector<std::pair<std::string, std::string>> items;
  for (int i = 0; i < 500; ++i) {
    open_voucher("voucher", "w" + std::to_string(i), 10, 2);
    items.emplace_back(user(i % 200), "w" + std::to_string(i));
  }
  const Json answer = batch(items);
  int issued = 0;
  for (const auto& result : answer.value("results", Json::array())) issued += result.value("status", "") == "issued";
  EXPECT_EQ(issued, 500) << answer.dump().substr(0, 300);
}

TEST_F(VoucherServices, VOUCHER_6_distribution_services_with_stores_of_their_own_get_different_codes) {
  Service other{make_app(options_for(codes.server->grpc_port(), codes.token)), true};
  const Voucher v = open_for_all("v1", 100);
  store::Commit fill;
  fill.then = {store::KvPut{voucher_key("voucher", v.id), encode(v), {}}, store::KvPut{stock_key("voucher", v.id), "", v.stock},
               store::KvPut{budget_key("voucher", v.id), "", v.budget_minor},
               store::KvPut{user_key("voucher", user(0)), encode(User{user(0), "SG"}), {}}};
  ASSERT_TRUE(store::commit_and_wait(other.store(), std::move(fill)));
  std::set<std::string> given;
  for (Service* service : {&shop, &other}) {
    const Json answer = service->ask(kBatch, {{"request_id", "r"}, {"region", "SG"}, {"items", {{{"user", user(0)}, {"voucher", "v1"}}}}},
                                     "Idempotency-Key: r\r\n");
    ASSERT_EQ(answer["results"][0]["status"], "issued") << answer.dump();
    given.insert(answer["results"][0]["code"].get<std::string>());
  }
  EXPECT_EQ(given.size(), 2u) << "one code went to both";
}

TEST_F(VoucherServices, VOUCHER_6_when_the_codes_run_out_it_is_said_and_nothing_is_taken) {
  open_voucher("voucher", "few", 100, 3);
  int issued = 0, none = 0;
  for (int i = 0; i < 6; ++i) {
    const Json one = batch({{user(i), "few"}})["results"][0];
    issued += one["status"] == "issued";
    none += one.value("reason", "") == "no_code";
  }
  EXPECT_EQ(issued, 3);
  EXPECT_EQ(none, 3);
  store::GetRows rows;
  rows.keys = {stock_key("voucher", "few")};
  EXPECT_EQ((*store::ask_now(shop.store(), rows))[0]->number, 97);
}

// Two services that give out codes of one code service: the one that comes second is not told that there are none
// while the first has them leased.
TEST_F(VoucherServices, VOUCHER_6_codes_leased_to_another_service_are_a_failure_to_be_tried_again) {
  open_voucher("voucher", "ten", 100, 10);
  Service other{make_app(options_for(codes.server->grpc_port(), codes.token)), true};
  const Voucher v = open_for_all("ten", 100);
  store::Commit fill;
  fill.then = {store::KvPut{voucher_key("voucher", v.id), encode(v), {}}, store::KvPut{stock_key("voucher", v.id), "", v.stock},
               store::KvPut{budget_key("voucher", v.id), "", v.budget_minor},
               store::KvPut{user_key("voucher", user(0)), encode(User{user(0), "SG"}), {}}};
  ASSERT_TRUE(store::commit_and_wait(other.store(), std::move(fill)));
  ASSERT_EQ(batch({{user(0), "ten"}})["results"][0]["status"], "issued") << "and has leased all ten";
  const auto late = [&] {
    return other.ask(kBatch, {{"request_id", "r"}, {"region", "SG"}, {"items", {{{"user", user(0)}, {"voucher", "ten"}}}}},
                     "Idempotency-Key: r\r\n");
  };
  const Json told = late();
  ASSERT_TRUE(told.contains("results")) << told.dump();
  const Json& busy = told["results"][0];
  EXPECT_EQ(busy["status"], "failed") << busy.dump();
  EXPECT_EQ(busy["reason"], "codes_leased");
  EXPECT_EQ(busy["retryable"], true);
  EXPECT_GT(busy.value("retry_after_ms", 0), 0) << busy.dump();
  for (int i = 1; i < 10; ++i) ASSERT_EQ(batch({{user(i), "ten"}})["results"][0]["status"], "issued");
  EXPECT_EQ(batch({{user(10), "ten"}})["results"][0]["reason"], "no_code") << "now they are gone, and the code service is told";
  Json end = Json::object();
  for (int i = 0; i < 500 && end.value("status", "") != "refused"; ++i) {  // a second, until it asks again
    end = late()["results"][0];
    poll(nullptr, 0, 10);
  }
  EXPECT_EQ(end.value("reason", ""), "no_code") << "the failure was not remembered: " << end.dump();
}

TEST_F(VoucherServices, VOUCHER_6_a_voucher_with_too_many_segments_out_fails_alone) {
  open_voucher("voucher", "lots", 1000, 300);
  for (int i = 0; i < 256; ++i) {
    const Json leased = codes.ask(kGetCodes.data(), {{"owner", "other"}, {"region", "SG"}, {"vouchers", {"lots"}}, {"count", 1}},
                                  "Idempotency-Key: l" + std::to_string(i) + "\r\n");
    ASSERT_FALSE(leased.contains("http")) << leased.dump();
  }
  const Json results = batch({{user(1), "lots"}, {user(2), "v1"}})["results"];
  EXPECT_EQ(results[0].value("reason", ""), "codes_leased") << results.dump();
  EXPECT_EQ(results[1]["status"], "issued") << results.dump();
}

TEST_F(VoucherServices, VOUCHER_8_a_fault_plan_is_the_servers_and_not_of_the_app_that_a_caller_names) {
  const auto made = [](Service& service) {
    return service.ask("sluice.token.create", {{"name", "team2"}, {"permissions", {"team2:*"}}})["token"].get<std::string>();
  };
  const std::string admin = std::exchange(codes.token, made(codes));
  for (const char* app : {"", "X-Sluice-App: team2\r\n"}) {
    EXPECT_EQ(codes.ask("voucher.faults.codes.set", {{"rules", {{{"error_rate", 1}}}}}, app).value("http", 0), 403) << app;
    EXPECT_EQ(codes.ask("voucher.faults.codes.get", Json::object(), app).value("http", 0), 403) << app;
  }
  codes.token = admin;
  EXPECT_TRUE(codes.ask("voucher.faults.codes.get", Json::object())["rules"].empty());
  shop.token = made(shop);
  EXPECT_EQ(shop.ask("voucher.downstream.show", Json::object(), "X-Sluice-App: team2\r\n").value("http", 0), 403);
}

TEST_F(VoucherServices, VOUCHER_3_codes_are_asked_for_once_an_item_is_eligible) {
  Voucher closed = open_for_all("closed", 10), elsewhere = open_for_all("elsewhere", 10);
  closed.to = closed.from + seconds(1);
  elsewhere.region = "TH";
  for (const auto* v : {&closed, &elsewhere}) {
    open_voucher("voucher", v->id, 10, 10);
    store::Commit changed;
    changed.then = {store::KvPut{voucher_key("voucher", v->id), encode(*v), {}}};
    ASSERT_TRUE(store::commit_and_wait(shop.store(), std::move(changed)));
  }
  const Json none = batch({{user(0), "closed"}, {user(0), "elsewhere"}, {"nobody", "v1"}, {user(0), "unknown"}});
  const std::vector<std::string> reasons{"outside_window", "wrong_region", "unknown_user", "unknown_voucher"};
  for (std::size_t i = 0; i < reasons.size(); ++i) EXPECT_EQ(none["results"][i].value("reason", ""), reasons[i]) << none.dump();
  EXPECT_EQ(shop.ask("voucher.downstream.show", Json::object())["code_calls"], 0) << "codes of what nobody may have were leased";
  const Json some = batch({{user(1), "closed"}, {user(1), "v1"}, {user(1), "v2"}});
  EXPECT_EQ(some["results"][1]["status"], "issued") << some.dump();
  EXPECT_EQ(some["results"][2]["status"], "issued");
  EXPECT_EQ(shop.ask("voucher.downstream.show", Json::object())["code_calls"], 1) << "one call for both";
  store::GetRows rows;
  rows.keys = {segment_key("voucher", "closed")};
  EXPECT_FALSE((*store::ask_now(codes.store(), rows))[0]);
}

TEST_F(VoucherServices, VOUCHER_5_a_repeated_batch_asks_no_service) {
  const Json first = batch({{user(0), "v1"}, {user(1), "v2"}}, "SG", "", "same");
  ASSERT_EQ(first["results"][0]["status"], "issued") << first.dump();
  const auto calls = shop.ask("voucher.downstream.show", Json::object())["code_calls"];
  const Json again = shop.ask(kBatch, {{"request_id", "same"}, {"region", "SG"},
                                       {"items", {{{"user", user(0)}, {"voucher", "v1"}}, {{"user", user(1)}, {"voucher", "v2"}}}}},
                              "Idempotency-Key: another\r\n");
  EXPECT_EQ(again, first);
  EXPECT_EQ(shop.ask("voucher.downstream.show", Json::object())["code_calls"], calls);
}

TEST_F(VoucherServices, VOUCHER_6_finished_segments_are_told_also_when_no_code_is_wanted) {
  const Json leased = codes.ask(std::string(kGetCodes).c_str(), {{"owner", "a"}, {"vouchers", {"v1"}}, {"count", 10}}, "Idempotency-Key: 1\r\n");
  const auto& one = leased["segments"][0];
  ASSERT_EQ(one["codes"].size(), 10u) << leased.dump();
  const Json told = codes.ask(std::string(kGetCodes).c_str(),
                              {{"owner", "a"}, {"finished", {{{"voucher", "v1"}, {"first", one["first"]}, {"token", one["token"]}}}}},
                              "Idempotency-Key: 2\r\n");
  EXPECT_EQ(told["segments"], Json::array()) << told.dump();
  const Json rest = codes.ask(std::string(kGetCodes).c_str(), {{"owner", "a"}, {"vouchers", {"v1"}}, {"count", 10}, {"resume", true}},
                              "Idempotency-Key: 3\r\n");
  EXPECT_EQ(rest["segments"][0]["first"], 10) << "what is finished is not resumed: " << rest.dump();
}

// A service that comes back after long work may own more codes than a message holds.
TEST_F(VoucherServices, VOUCHER_6_what_is_resumed_fits_a_message) {
  Segments segments;
  constexpr std::int64_t kEach = 9000;
  for (int i = 0; i < 20; ++i) (void)segments.lease({{}, "a"}, 20 * kEach, kEach, WallTime(milliseconds(0)), WallTime(milliseconds(i + 1)));
  for (int part = 0; part < 20; ++part) {
    store::Commit there;
    if (part == 0) there.then = {store::KvPut{pool_key("voucher", "big"), "", 20 * kEach}, store::KvPut{segment_key("voucher", "big"), segments.encode(), {}}};
    for (std::int64_t n = part * kEach; n < (part + 1) * kEach; ++n)
      there.then.push_back(store::KvPut{code_key("voucher", "big", n), fmt_code(n), {}});
    ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  }
  std::set<std::int64_t> seen;
  for (int i = 0; i < 10; ++i) {
    const Json answer = codes.ask(std::string(kGetCodes).c_str(), {{"owner", "a"}, {"vouchers", {"big"}}, {"resume", true}},
                                  "Idempotency-Key: big" + std::to_string(i) + "\r\n");
    ASSERT_TRUE(answer.contains("segments")) << answer.dump().substr(0, 200);
    EXPECT_LT(answer.dump().size(), 2u << 20);
    for (const auto& one : answer["segments"]) seen.insert(one["first"].get<std::int64_t>());
  }
  EXPECT_EQ(seen.size(), 20u) << "what did not fit comes with the next questions";
}

TEST_F(VoucherServices, VOUCHER_6_a_universal_code_is_asked_for_once_and_goes_to_all) {
  open_voucher("voucher", "all", 60, 0);
  store::Commit there;
  there.then.push_back(store::KvPut{pool_key("voucher", "all"), "WELCOME", 0});
  ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  int issued = 0, sold_out = 0;
  for (int round = 0; round < 4; ++round) {
    std::vector<std::pair<std::string, std::string>> items;
    for (int i = 0; i < 20; ++i) items.push_back({user(round * 20 + i), "all"});
    const auto answer = batch(items);
    for (const auto& one : answer["results"]) {
      issued += one.value("code", "") == "WELCOME";
      sold_out += one.value("reason", "") == "sold_out";
    }
  }
  EXPECT_EQ(issued, 60);
  EXPECT_EQ(sold_out, 20);
  const std::string metrics = test::HttpClient(shop.server->port()).ask(test::get("/metrics"))->body;
  EXPECT_THAT(metrics, HasSubstr("outcome=\"ok\"} 1\n")) << "eighty items, one call: the code is remembered for its lease";
  const auto books = audit_books(shop.store(), "voucher", &codes.store());
  ASSERT_TRUE(books);
  for (const auto& wrong : books->wrong) ADD_FAILURE() << wrong;
}
TEST_F(VoucherServices, VOUCHER_9_shadow_traffic_has_its_own_codes_and_its_own_breaker) {
  const Json shadow = batch({{user(0), "v1"}}, "SG", "X-Sluice-Shadow: true\r\n");
  ASSERT_EQ(shadow["results"][0]["status"], "issued") << shadow.dump();
  EXPECT_THAT(shadow["results"][0]["code"].get<std::string>(), HasSubstr("S-V1")) << "of the shadow pool, in the downstream too";
  const Json live = batch({{user(0), "v1"}});
  EXPECT_THAT(live["results"][0]["code"].get<std::string>(), HasSubstr("L-V1-1000")) << "the live pool was not touched";
  faults({{"rules", {{{"error_rate", 1.0}}}}});
  for (int i = 0; i < 8; ++i) (void)batch({{user(i), "v2"}}, "SG", "X-Sluice-Shadow: true\r\n");
  EXPECT_EQ(breaker("SG", true), "open");
  EXPECT_EQ(breaker("SG", false), "closed") << "shadow failures opened a live breaker";
}

}  // namespace
}  // namespace sluice::voucher
