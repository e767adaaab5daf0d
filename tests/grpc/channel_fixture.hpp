// A Client over a gRPC channel to the door of GrpcTest, with a lane of its own that calls.
#pragma once
#include "grpc/grpc_fixture.hpp"
#include "sluice/rpc/interceptors.hpp"
#include "sluice/transport/grpc_channel.hpp"

namespace sluice::transport {

using rpc::RemoteCommand;

class ChannelTest : public GrpcTest {
 protected:
  ChannelTest() {
    add("shop.order", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
      {
        const std::lock_guard lock(mutex);
        seen = invocation.command;
      }
      invocation.finish(rpc::Answer::of(
          Reply::ok("{\"run\":" + std::to_string(++runs) + ",\"state\":\"placed\"}")));
    });
  }
  ~ChannelTest() override {
    client.reset();
    channel_.reset();
    callers.stop();
    callers.join();
  }
  void start_door() {
    GrpcMethods methods;
    methods.bind("probe.v1.Shop/PlaceOrder", "shop.order");
    lane.start();
    door = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, options,
                                      hooks);
    ASSERT_TRUE(door->bind(methods));
    ASSERT_TRUE(door->start());
  }
  void connect_to(std::uint16_t port, GrpcChannelOptions with = {},
                  std::vector<std::shared_ptr<rpc::Interceptor>> chain = {}) {
    if (with.target.empty()) with.target = "127.0.0.1:" + std::to_string(port);
    with.token = "ann-token";
    auto made = make_grpc_channel(with);
    ASSERT_TRUE(made) << made.error().to_string();
    channel_ = *made;
    client = std::make_unique<rpc::Client>(channel_, std::move(chain));
  }
  Result<rpc::Response> call(const RemoteCommand& command, const std::string& body = "{}",
                             Duration within = seconds(10), rpc::CallContext context = {},
                             CancelScope* scope = nullptr) {
    return block_on(callers, client->call(command, std::move(context), body),
                    clock.now() + within, scope);
  }
  const RemoteCommand& reads(std::string name) {
    return client->add({.name = std::move(name), .read_only = true});
  }
  const RemoteCommand& writes(std::string name) { return client->add({.name = std::move(name)}); }
  static rpc::CallContext keyed(std::string key) {
    rpc::CallContext context;
    context.idempotency_key = std::move(key);
    return context;
  }

  LaneThread callers{clock, "callers"};
  std::shared_ptr<rpc::Channel> channel_;
  std::unique_ptr<rpc::Client> client;
};

}  // namespace sluice::transport
