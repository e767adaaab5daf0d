// Typed services: a method is a command by one line.
#include <grpcpp/support/sync_stream.h>

#include "grpc/grpc_fixture.hpp"
#include "grpc_probe/probe.pb.h"

namespace sluice::transport {
namespace {

class TypedTest : public GrpcTest {
 protected:
  TypedTest() {
    add("shop.order", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
      {
        const std::lock_guard lock(mutex);
        seen = invocation.command;
      }
      invocation.finish(rpc::Answer::of(Reply::ok(
          "{\"run\":" + std::to_string(++runs) + ",\"state\":\"placed\",\"internal_note\":[1]}")));
    });
    add("shop.odd", rpc::KeyUse::none, [](rpc::Invocation& invocation) {
      invocation.finish(rpc::Answer::of(Reply::ok("{\"run\":\"many\"}")));
    });
  }
  void start_with(const std::string& method, const std::string& command) {
    GrpcMethods methods;
    methods.bind(method, command);
    lane.start();
    door = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, options,
                                      hooks);
    const auto bound = door->bind(methods);
    ASSERT_TRUE(bound) << bound.error().to_string();
    ASSERT_TRUE(door->start());
    channel = connect(grpc::InsecureChannelCredentials());
  }
  Failure refused(const std::string& method, const std::string& command) {
    GrpcMethods methods;
    methods.bind(method, command);
    GrpcDoor bad(registry, clock, {&lane.lane()}, options, hooks);
    const auto bound = bad.bind(methods);
    EXPECT_FALSE(bound);
    return bound ? Failure(FailureKind::none) : bound.error();
  }
  static constexpr const char* kPath = "/probe.v1.Shop/PlaceOrder";
};

TEST_F(TypedTest, CONSOLE_1_a_typed_method_is_a_command_with_all_it_has) {
  start_with("probe.v1.Shop/PlaceOrder", "shop.order");
  probe::v1::PlaceOrderRequest request;
  request.set_buyer_id("b-1");
  request.set_paid_minor(1250);
  auto* line = request.add_lines();
  line->set_article_id("a");
  line->set_count(2);
  probe::v1::PlaceOrderResponse response, again;
  EXPECT_EQ(ask(kPath, request, response).failure().code(), "idempotency_key_required");
  const auto r = ask(kPath, request, response, CallOptions().with("idempotency-key", "k"));
  ASSERT_TRUE(r.status.ok()) << r.status.error_message();
  EXPECT_EQ(seen.payload,
            R"({"buyer_id":"b-1","lines":[{"article_id":"a","count":2}],"paid_minor":"1250"})");
  EXPECT_EQ(response.run(), 1);
  EXPECT_EQ(response.state(), "placed");
  const auto replay = ask(kPath, request, again, CallOptions().with("idempotency-key", "k"));
  EXPECT_EQ(replay.trailing.at("idempotency-replayed"), "true");
  EXPECT_EQ(again.SerializeAsString(), response.SerializeAsString());
  // The same command by name, and the same key: one command, whatever the method.
  const auto by_name =
      execute("shop.order", seen.payload, CallOptions().with("idempotency-key", "k"));
  EXPECT_EQ(by_name.trailing.at("idempotency-replayed"), "true");
  EXPECT_EQ(runs, 1);
}

TEST_F(TypedTest, CONSOLE_9_a_message_or_a_reply_that_does_not_fit_is_told) {
  start_with("probe.v1.Shop/PlaceOrder", "shop.odd");
  const grpc::Slice garbage("\xFF\xFF\xFF");
  grpc::ByteBuffer bytes(&garbage, 1), reply;
  const auto broken = ask(kPath, bytes, reply);
  EXPECT_EQ(broken.failure().code(), "bad_message");
  EXPECT_EQ(broken.status.error_message(), "the request is no probe.v1.PlaceOrderRequest");
  probe::v1::PlaceOrderRequest request;
  probe::v1::PlaceOrderResponse response;
  const auto odd = ask(kPath, request, response);
  EXPECT_EQ(odd.status.error_code(), grpc::INTERNAL);
  EXPECT_EQ(odd.failure().code(), "reply_does_not_fit");
}

TEST_F(TypedTest, CONSOLE_9_bindings_are_checked_before_the_door_opens) {
  EXPECT_EQ(refused("probe.v1.Shop/Nothing", "shop.order").code(), "unknown_method");
  EXPECT_EQ(refused("probe.v1.Shop/Watch", "shop.order").code(), "method_streams");
  EXPECT_EQ(refused("probe.v1.Shop/PlaceOrder", "shop.none").code(), "unknown_command");
  EXPECT_EQ(refused("sluice.v1.Commands/Execute", "shop.order").code(), "method_bound_twice");
}

TEST_F(TypedTest, reflection_lists_the_services) {
  start_with("probe.v1.Shop/PlaceOrder", "shop.order");
  // ServerReflectionRequest{list_services: "*"}, told by number: the messages are in no package.
  grpc::ClientContext context;
  const grpc::Slice ask_all("\x3A\x01*");
  grpc::ByteBuffer request(&ask_all, 1), reply;
  grpc::internal::RpcMethod method(
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
      grpc::internal::RpcMethod::BIDI_STREAMING);
  const std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream(
      grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
          channel.get(), method, &context));
  ASSERT_TRUE(stream->Write(request) && stream->WritesDone() && stream->Read(&reply));
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(reply.Dump(&slices).ok());
  std::string text;
  for (const auto& slice : slices) text.append(slice.begin(), slice.end());
  for (const char* service : {"sluice.v1.Commands", "probe.v1.Shop", "grpc.health.v1.Health"})
    EXPECT_NE(text.find(service), std::string::npos) << service;
  EXPECT_TRUE(stream->Finish().ok());
}

}  // namespace
}  // namespace sluice::transport
