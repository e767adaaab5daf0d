// The typed gRPC services of the voucher apps, and HTTP beside them.
#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc_channel.hpp"
#include "voucher/services_fixture.hpp"
#include "voucher/v1/codes.pb.h"
#include "voucher/v1/distribution.pb.h"
#include "voucher/v1/users.pb.h"

namespace sluice::voucher {
namespace {

namespace v1 = ::voucher::v1;

using testing::HasSubstr;

using VoucherTypedServices = VoucherServicesTest;

TEST_F(VoucherTypedServices, VOUCHER_1_grpc_and_http_are_one_command_and_replay_each_others_reply) {
  RealClock clock;
  LaneThread caller(clock, "caller");
  caller.start();
  transport::GrpcChannelOptions to;
  to.target = "127.0.0.1:" + std::to_string(shop.server->grpc_port());
  to.token = shop.token;
  auto channel = transport::make_grpc_channel(std::move(to));
  ASSERT_TRUE(channel);
  {
    rpc::Client client(*std::move(channel), {});
    const auto distribute = rpc::remote<v1::BatchDistributeVoucherRequest, v1::BatchDistributeVoucherResponse>(
        client, {.name = "distribute", .method = "voucher.v1.Distribution/BatchDistributeVoucher"});
    v1::BatchDistributeVoucherRequest request;
    request.set_request_id("both");
    request.set_region("SG");
    auto* item = request.add_items();
    item->set_user(user(1));
    item->set_voucher("v1");
    rpc::CallContext context;
    context.ns = Namespace("voucher");
    context.idempotency_key = "both";
    const auto first = block_on(caller, distribute(context, request));
    ASSERT_TRUE(first) << first.error().to_string();
    ASSERT_EQ((*first)->results_size(), 1);
    EXPECT_EQ((*first)->results(0).status(), "issued");
    EXPECT_EQ((*first)->results(0).value_minor(), 500);
    const auto again = block_on(caller, distribute(context, request));
    ASSERT_TRUE(again);
    EXPECT_EQ((*again)->SerializeAsString(), (*first)->SerializeAsString()) << "a replay is the same, byte for byte";
    test::HttpClient http(shop.server->port());
    const auto response = http.ask(test::post(
        kBatch, R"({"request_id":"both","region":"SG","items":[{"user":"u1","voucher":"v1"}]})",
        "Authorization: Bearer " + shop.token + "\r\nIdempotency-Key: both\r\n"));
    ASSERT_TRUE(response);
    EXPECT_EQ(response->headers.count("idempotency-replayed"), 1u) << response->body;
    EXPECT_THAT(response->body, HasSubstr((*first)->results(0).code()));
    request.mutable_items(0)->set_user(user(2));
    const auto other = block_on(caller, distribute(context, request));
    ASSERT_FALSE(other) << "another request under the same key";
    EXPECT_EQ(other.error().kind(), FailureKind::fingerprint_mismatch);
  }
  caller.stop();
  caller.join();
}

// The same commands by the typed services of the code and the user service.
TEST(VoucherTyped, VOUCHER_1_codes_and_users_have_typed_services_of_their_own) {
  Service codes{make_code_service(), true};
  Service users{make_user_service(), true};
  store::Commit there;
  there.then.push_back(store::KvPut{pool_key("voucher", "v1"), "", 30});
  for (std::int64_t n = 0; n < 30; ++n)
    there.then.push_back(store::KvPut{code_key("voucher", "v1", n), "CODE-" + std::to_string(n), {}});
  there.then.push_back(store::KvPut{pool_key("voucher", "all"), "WELCOME", 0});
  ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  store::Commit known;
  known.then.push_back(store::KvPut{user_key("voucher", "ann"), encode(User{"ann", "SG"}), {}});
  ASSERT_TRUE(store::commit_and_wait(users.store(), std::move(known)));
  RealClock clock;
  LaneThread caller(clock, "caller");
  caller.start();
  const auto open = [](Service& to) {
    transport::GrpcChannelOptions options;
    options.target = "127.0.0.1:" + std::to_string(to.server->grpc_port());
    options.token = to.token;
    return std::make_unique<rpc::Client>(*transport::make_grpc_channel(std::move(options)),
                                         std::vector<std::shared_ptr<rpc::Interceptor>>{});
  };
  {
    const auto to_codes = open(codes), to_users = open(users);
    const auto lease = rpc::remote<v1::BatchGetCodeUsingCacheRequest, v1::BatchGetCodeUsingCacheResponse>(
        *to_codes, {.name = "lease", .method = "voucher.v1.Codes/BatchGetCodeUsingCache"});
    rpc::CallContext context;
    context.ns = Namespace("voucher");
    const auto leased = [&](const std::string& key, const v1::BatchGetCodeUsingCacheRequest& request) {
      context.idempotency_key = key;
      auto answer = block_on(caller, lease(context, request));
      EXPECT_TRUE(answer) << answer.error().to_string();
      return answer ? **answer : v1::BatchGetCodeUsingCacheResponse();
    };
    v1::BatchGetCodeUsingCacheRequest request;
    request.set_owner("shop-1");
    for (const char* voucher : {"v1", "all", "other"}) request.add_vouchers(voucher);
    request.set_count(20);
    const auto first = leased("a", request);
    ASSERT_EQ(first.segments_size(), 3);
    EXPECT_EQ(first.lease_ms(), 600'000);
    EXPECT_EQ(first.segments(0).codes_size(), 20);
    EXPECT_EQ(first.segments(1).universal(), "WELCOME");
    EXPECT_TRUE(first.segments(2).none());
    EXPECT_EQ(leased("a", request).SerializeAsString(), first.SerializeAsString()) << "a replay is the same";
    request.clear_vouchers();
    auto* finished = request.add_finished();  // 64-bit integers, which JSON has as text
    finished->set_voucher("v1");
    finished->set_first(first.segments(0).first());
    finished->set_token(first.segments(0).token());
    (void)leased("b", request);
    request.clear_finished();
    request.add_vouchers("v1");
    request.set_resume(true);
    const auto rest = leased("c", request);
    ASSERT_EQ(rest.segments_size(), 1);
    EXPECT_EQ(rest.segments(0).first(), 20) << "what is finished is not given again";
    EXPECT_EQ(rest.segments(0).codes(9), "CODE-29");
    request.set_count(-1);
    context.idempotency_key = "d";
    const auto refused = block_on(caller, lease(context, request));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), "bad_request");
    const auto exists = rpc::remote<v1::ExistsRequest, v1::ExistsResponse>(
        *to_users, {.name = "exists", .method = "voucher.v1.Users/Exists", .read_only = true});
    v1::ExistsRequest who;
    for (const char* user : {"ann", "nobody"}) who.add_users(user);
    rpc::CallContext plain;
    plain.ns = Namespace("voucher");
    const auto answer = block_on(caller, exists(plain, who));
    ASSERT_TRUE(answer) << answer.error().to_string();
    ASSERT_EQ((*answer)->exists_size(), 2);
    EXPECT_TRUE((*answer)->exists(0));
    EXPECT_FALSE((*answer)->exists(1));
  }
  caller.stop();
  caller.join();
}

}  // namespace
}  // namespace sluice::voucher
