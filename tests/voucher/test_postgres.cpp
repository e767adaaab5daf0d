// Nodes of the distribution service on one PostgreSQL, and one code service.
#include <poll.h>

#include <set>

#include "support/private_postgres.hpp"
#include "voucher/services.hpp"

namespace sluice::voucher {
namespace {

TEST(VoucherPostgres, VOUCHER_6_nodes_of_one_store_lease_codes_under_names_of_their_own) {
  Service codes{make_code_service(), true};
  auto& database = testing_support::PrivatePostgres::shared();
  const std::string url = database.socket_url(database.new_database());
  const auto on_it = [&](server::Config& config) { config.store_kind = "sqlite", config.postgres.url = url; };
  const VoucherOptions options = options_for(codes.server->grpc_port(), codes.token);  // no owner is named
  Service one{make_app(options), false, "", on_it}, two{make_app(options), false, "", on_it};
  ASSERT_TRUE(two.token.empty()) << "the first node has made the first token";
  two.token = one.token;
  store::Commit here, there;
  here.then = {store::KvPut{voucher_key("voucher", "v1"), encode(open_for_all("v1", 100)), {}},
               store::KvPut{stock_key("voucher", "v1"), "", 100},
               store::KvPut{budget_key("voucher", "v1"), "", 500'000'000},
               store::KvPut{user_key("voucher", "ann"), encode(User{"ann", "SG"}), {}}};
  ASSERT_TRUE(store::commit_and_wait(one.store(), std::move(here)));
  there.then.push_back(store::KvPut{pool_key("voucher", "v1"), "", 100});
  for (std::int64_t n = 0; n < 100; ++n)
    there.then.push_back(store::KvPut{code_key("voucher", "v1", n), "CODE-" + std::to_string(n), {}});
  ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  std::set<std::string> given;
  for (int i = 0; i < 12; ++i) {
    Service& node = i % 2 == 0 ? one : two;
    const std::string id = "r" + std::to_string(i);
    const Json body{{"request_id", id}, {"region", "SG"}, {"items", {{{"user", "ann"}, {"voucher", "v1"}}}}};
    Json reply;
    for (int wait = 0; wait < 500; ++wait) {  // until the second node has read the token
      reply = node.ask(kBatch, body, "Idempotency-Key: " + id + "\r\n");
      if (reply.value("http", 0) != 401) break;
      poll(nullptr, 0, 10);
    }
    ASSERT_TRUE(reply.contains("results")) << reply.dump();
    ASSERT_EQ(reply["results"][0]["status"], "issued") << reply.dump();
    EXPECT_TRUE(given.insert(reply["results"][0]["code"]).second);
  }
}

}  // namespace
}  // namespace sluice::voucher
