// Nodes of the distribution service on one PostgreSQL, and one code service.
#include <poll.h>

#include <set>

#include "support/private_postgres.hpp"
#include "voucher/services.hpp"

namespace sluice::voucher {
namespace {

/// Two nodes of a shop on one database, and a code service apart; v1 and v2 are open.
class VoucherPostgres : public testing::Test {
 protected:
  testing_support::PrivatePostgres& database = testing_support::PrivatePostgres::shared();
  const std::string url = database.socket_url(database.new_database());
  const std::function<void(server::Config&)> on_it = [this](server::Config& config) {
    config.store_kind = "sqlite";
    config.postgres.url = url;
  };
  Service codes{make_code_service(), true};
  const VoucherOptions options = options_for(codes.server->grpc_port(), codes.token);  // no owner is named
  Service one{make_app(options), false, "", on_it}, two{make_app(options), false, "", on_it};

  void SetUp() override {
    ASSERT_TRUE(two.token.empty()) << "the first node has made the first token";
    two.token = one.token;
    store::Commit here, there;
    here.then.push_back(store::KvPut{user_key("voucher", "ann"), encode(User{"ann", "SG"}), {}});
    for (const std::string v : {"v1", "v2"}) {
      here.then.push_back(store::KvPut{voucher_key("voucher", v), encode(open_for_all(v, 100)), {}});
      here.then.push_back(store::KvPut{stock_key("voucher", v), "", 100});
      here.then.push_back(store::KvPut{budget_key("voucher", v), "", 500'000'000});
      there.then.push_back(store::KvPut{pool_key("voucher", v), "", 100});
      for (std::int64_t n = 0; n < 100; ++n)
        there.then.push_back(store::KvPut{code_key("voucher", v, n), (v == "v1" ? "CODE-" : "OTHER-") + std::to_string(n), {}});
    }
    ASSERT_TRUE(store::commit_and_wait(one.store(), std::move(here)));
    ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  }
  Json send(Service& node, const std::string& key, const std::string& id, const std::vector<std::string>& vouchers) {
    Json body{{"request_id", id}, {"region", "SG"}, {"items", Json::array()}};
    for (const auto& voucher : vouchers) body["items"].push_back({{"user", "ann"}, {"voucher", voucher}});
    Json reply;
    for (int wait = 0; wait < 500; ++wait) {  // until the second node has read the token
      reply = node.ask(kBatch, body, "Idempotency-Key: " + key + "\r\n");
      if (reply.value("http", 0) != 401) break;
      poll(nullptr, 0, 10);
    }
    return reply;
  }
};

TEST_F(VoucherPostgres, VOUCHER_6_nodes_of_one_store_lease_codes_under_names_of_their_own) {
  std::set<std::string> given;
  for (int i = 0; i < 12; ++i) {
    const std::string id = "r" + std::to_string(i);
    const Json reply = send(i % 2 == 0 ? one : two, id, id, {"v1"});
    ASSERT_TRUE(reply.contains("results")) << reply.dump();
    ASSERT_EQ(reply["results"][0]["status"], "issued") << reply.dump();
    EXPECT_TRUE(given.insert(reply["results"][0]["code"]).second);
  }
}

TEST_F(VoucherPostgres, VOUCHER_5_a_request_id_with_an_issued_item_is_its_batchs_on_every_node) {
  ASSERT_TRUE(send(one, "first", "first", {"v1"}).contains("results")) << "codes of v1 are at hand";
  ASSERT_FALSE(codes.ask("voucher.faults.codes.set", {{"rules", {{{"error_rate", 1}}}}}).contains("http"));
  const Json half = send(one, "r", "r", {"v2", "v1"});
  ASSERT_TRUE(half.contains("results")) << half.dump();
  ASSERT_EQ(half["results"][0]["reason"], "code_service_unavailable") << half.dump();
  ASSERT_EQ(half["results"][1]["status"], "issued") << half.dump();
  for (Service* node : {&two, &one}) EXPECT_EQ(send(*node, "r", "r", {"v1"}).value("code", ""), "fingerprint_mismatch");
  ASSERT_FALSE(codes.ask("voucher.faults.codes.set", Json::object()).contains("http"));
  Json whole;
  for (int wait = 0; wait < 500; ++wait) {  // until the failures are forgotten
    whole = send(two, "r", "r", {"v2", "v1"});
    if (whole.contains("results") && whole["results"][0]["status"] != "failed") break;
    poll(nullptr, 0, 10);
  }
  EXPECT_EQ(whole["results"][0]["status"], "issued") << whole.dump();
  EXPECT_EQ(whole["results"][1], half["results"][1]);
}

}  // namespace
}  // namespace sluice::voucher
