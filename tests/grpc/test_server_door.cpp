// The gRPC door of a whole server: configured, with its tokens, beside HTTP, stopped with it.
#include <grpcpp/create_channel.h>
#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include "server/running.hpp"
#include "sluice/v1/commands.pb.h"

namespace sluice::server {
namespace {

Config with_grpc(const std::string& listen = "127.0.0.1:0") {
  Config config;
  config.grpc.listen = listen;
  return config;
}

struct Client {
  explicit Client(RunningServer& running)
      : token(running.admin),
        channel(grpc::CreateChannel("127.0.0.1:" + std::to_string(running.server->grpc_port()),
                                    grpc::InsecureChannelCredentials())) {}
  grpc::Status execute(const std::string& name, const std::string& key, std::string* body = nullptr) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer " + token);
    context.AddMetadata("idempotency-key", key);
    v1::ExecuteRequest request;
    request.set_name(name);
    v1::ExecuteReply reply;
    const auto status = grpc::internal::BlockingUnaryCall(
        channel.get(),
        grpc::internal::RpcMethod("/sluice.v1.Commands/Execute",
                                  grpc::internal::RpcMethod::NORMAL_RPC),
        &context, request, &reply);
    if (body != nullptr) *body = reply.body();
    return status;
  }
  std::string token;
  std::shared_ptr<grpc::Channel> channel;
};

TEST(GrpcServer, IDEM_4_one_key_is_one_effect_through_both_doors) {
  RunningServer running(with_grpc());
  Client client(running);
  EXPECT_TRUE(client.execute("probe.count", "k").ok());
  const auto over_http = running.ask(test::post("probe.count", "{}", running.keyed("k")));
  EXPECT_EQ(over_http.headers.at("idempotency-replayed"), "true");
  EXPECT_EQ(running.runs(), 1);
  client.token = "wrong";
  EXPECT_EQ(client.execute("probe.count", "k2").error_code(), grpc::UNAUTHENTICATED);
}

TEST(GrpcServer, CORE_4_the_doors_drain_together_and_answer_what_they_took) {
  RunningServer running(with_grpc());
  Client client(running);
  std::string body;
  std::atomic<bool> ok = false;
  Thread call("client", [&] { ok = client.execute("probe.hold", "h", &body).ok(); });
  ASSERT_TRUE(wait_until([&] { return running.probe->held() == 1; }));
  std::atomic<bool> stopped = false;
  Thread stop("stop", [&] { stopped = running.server->stop().has_value(); });
  // Also HTTP takes nothing new while a call of gRPC still runs.
  EXPECT_TRUE(wait_until([&] { return !test::HttpClient(running.server->port()).connected(); }));
  EXPECT_FALSE(stopped);
  running.probe->release();
  call.join();
  stop.join();
  EXPECT_TRUE(ok);
  EXPECT_EQ(body, "{\"held\":true}");
  EXPECT_TRUE(stopped);
}

TEST(GrpcServer, CONSOLE_4_beyond_the_loopback_it_needs_tls_or_an_explicit_word) {
  const auto refused = [](Config config) {
    config.store_kind = "memory";
    ServerParts parts;
    parts.logger = &null_logger();
    const auto opened = Server::open(std::move(config), std::move(parts));
    return opened ? std::string() : std::string(opened.error().code());
  };
  EXPECT_EQ(refused(with_grpc("0.0.0.0:0")), "remote_not_allowed");
  EXPECT_EQ(refused(with_grpc("[::]:0")), "remote_not_allowed");
  EXPECT_EQ(refused(with_grpc("[::1]:0")), "");
  EXPECT_EQ(refused(with_grpc("localhost:0")), "");
  Config allowed = with_grpc("0.0.0.0:0");
  allowed.allow_remote = true;
  EXPECT_EQ(refused(allowed), "");
}

}  // namespace
}  // namespace sluice::server
