// A gRPC door beside an HTTP door on one registry and on the same lanes, on free ports.
#pragma once
#include <grpcpp/create_channel.h>
#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <vector>

#include "sim/random.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc.hpp"
#include "sluice/transport/http.hpp"
#include "sluice/v1/commands.pb.h"
#include "support/http_client.hpp"
#include "transport/grpc/status.hpp"
#include "support/any_store.hpp"

namespace sluice::transport {

/// What a blocking call came to.
struct Called {
  grpc::Status status;
  std::string body;
  std::string wire;  ///< the reply's message
  std::map<std::string, std::string> trailing;
  Failure failure() const { return from_grpc_status(status); }
};

struct CallOptions {
  std::map<std::string, std::string> metadata{{"authorization", "Bearer ann-token"}};
  Duration within = seconds(20);
  std::uint32_t version = 0;
  std::function<void(grpc::ClientContext&)> seen = {};  ///< before the call starts
  std::shared_ptr<grpc::ClientContext> context = {};    ///< for one call; null: one of its own

  CallOptions with(std::string key, std::string value) && {
    metadata[std::move(key)] = std::move(value);
    return std::move(*this);
  }
};

class GrpcTest : public ::testing::Test {
 protected:
  GrpcTest() : registry(*store, keys, ids) {
    add("echo", rpc::KeyUse::optional, [](rpc::Invocation& invocation) {
      invocation.finish(rpc::Answer::of(Reply::ok("{\"echo\":" + invocation.command.payload + "}"),
                                        invocation.exchange()));
    });
    add("place", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
      ++runs;
      invocation.finish(rpc::Answer::of(Reply::ok("{\"run\":" + std::to_string(runs) + "}")));
    });
    add("decline", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
      ++runs;
      Reply reply = Reply::from(Failure(FailureKind::rejected, "no_funds", "the account is empty"));
      reply.body = "{\"balance\":0}";
      invocation.finish(rpc::Answer::of(reply, invocation.exchange()));
    });
    add("hold", rpc::KeyUse::none, [this](rpc::Invocation& invocation) {
      std::lock_guard lock(mutex);
      held.push_back(&invocation);
      scopes.push_back(std::make_unique<CancelListener>());
      scopes.back()->link(
          invocation.scope,
          [](void* owner) noexcept {
            auto& one = *static_cast<rpc::Invocation*>(owner);
            one.finish(rpc::Answer::of(Failure(one.scope.reason(), "given_up", "held")));
          },
          &invocation);
    });
    add("fail", rpc::KeyUse::none, [](rpc::Invocation& invocation) {
      invocation.finish(
          rpc::Answer::of(Failure(FailureKind::rate_limited, "slow_down", "too \"many\"\n")
                              .with("limit", "7")
                              .with_retry_after(milliseconds(1500))));
    });
    add("context", rpc::KeyUse::none, [this](rpc::Invocation& invocation) {
      const auto& c = invocation.command;
      const std::lock_guard lock(mutex);
      seen = c;
      left = c.deadline - clock.now();
      invocation.finish(rpc::Answer::of(Reply::ok("{}")));
    });
    add("unsettled", rpc::KeyUse::none, [](rpc::Invocation& invocation) {
      const bool doubt = invocation.command.payload == "true";
      invocation.finish(doubt ? rpc::Answer::in_doubt({7}) : rpc::Answer::pending({7}));
    });
    hooks.authenticate =
        [](std::string_view token) -> Result<std::shared_ptr<const rpc::Principal>> {
      if (token == "ann-token")
        return std::make_shared<rpc::Principal>(rpc::Principal{"ann", {"*:*"}, true});
      if (token == "bob-token")
        return std::make_shared<rpc::Principal>(rpc::Principal{"bob", {"bank:*"}, false});
      return fail(FailureKind::unauthenticated, "unknown_token", "this token is not known");
    };
  }
  ~GrpcTest() override {
    if (door) door->stop();
    if (http) http->stop();
    lane.stop();
    lane.join();
    store->close();
  }
  void add(std::string name, rpc::KeyUse use, rpc::Handler handler) {
    rpc::CommandSpec spec;
    spec.name = std::move(name);
    spec.app = "shop";
    spec.idempotency = use;
    spec.handler = std::move(handler);
    ASSERT_TRUE(registry.add(std::move(spec)));
  }
  void start() {
    lane.start();
    door = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, options,
                                      hooks);
    const auto started = door->start();
    ASSERT_TRUE(started) << started.error().to_string();
    channel = connect(grpc::InsecureChannelCredentials());
  }
  void start_http() {
    HttpOptions with;
    with.port = 0;
    HttpHooks same;
    same.authenticate = hooks.authenticate;
    http = std::make_unique<HttpDoor>(registry, clock, with, same);
    ASSERT_TRUE(http->start());
  }
  std::shared_ptr<grpc::Channel> connect(std::shared_ptr<grpc::ChannelCredentials> credentials,
                                         const std::string& host = "127.0.0.1") {
    grpc::ChannelArguments arguments;
    // Each test has connections of its own.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(host + ":" + std::to_string(door->port()), credentials,
                                     arguments);
  }

  template <class Request, class Response>
  Called ask(const char* path, const Request& request, Response& response,
             const CallOptions& with = {}) {
    // Who cancels it from another thread keeps it longer than the call.
    const auto own = with.context ? with.context : std::make_shared<grpc::ClientContext>();
    grpc::ClientContext& context = *own;
    for (const auto& [key, value] : with.metadata) context.AddMetadata(key, value);
    context.set_deadline(gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC),
        gpr_time_from_nanos(std::chrono::nanoseconds(with.within).count(), GPR_TIMESPAN)));
    if (with.seen) with.seen(context);
    Called called;
    called.status = grpc::internal::BlockingUnaryCall(
        channel.get(), grpc::internal::RpcMethod(path, grpc::internal::RpcMethod::NORMAL_RPC),
        &context, request, &response);
    const std::lock_guard lock(mutex);  // what a handler left behind is there for the caller
    for (const auto& [key, value] : context.GetServerTrailingMetadata())
      called.trailing[std::string(key.data(), key.size())] = std::string(value.data(), value.size());
    return called;
  }
  Called execute(const std::string& name, const std::string& payload, const CallOptions& with = {}) {
    v1::ExecuteRequest request;
    request.set_name(name);
    request.set_version(with.version);
    request.set_payload(payload);
    v1::ExecuteReply reply;
    Called called = ask("/sluice.v1.Commands/Execute", request, reply, with);
    called.body = reply.body();
    called.wire = reply.SerializeAsString();
    return called;
  }
  /// Waits for other threads, in real time.
  template <class F>
  static bool wait_until(F until) {
    for (int i = 0; i < 10'000; ++i) {
      if (until()) return true;
      pollfd none{-1, 0, 0};
      ::poll(&none, 1, 1);
    }
    return false;
  }
  std::size_t held_count() {
    std::lock_guard lock(mutex);
    return held.size();
  }

  RealClock clock;
  sim::SimRandom random{1};
  LaneThread lane{clock, "test"};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  idempotency::Keys keys{clock, store.get()};
  IdSource ids{clock, 1};
  rpc::Registry registry;
  GrpcOptions options;
  GrpcHooks hooks;
  std::unique_ptr<HttpDoor> http;
  std::unique_ptr<GrpcDoor> door;
  std::shared_ptr<grpc::Channel> channel;
  std::mutex mutex;
  std::vector<rpc::Invocation*> held;
  std::vector<std::unique_ptr<CancelListener>> scopes;
  rpc::Command seen;
  Duration left{};
  std::atomic<int> runs = 0;
};

}  // namespace sluice::transport
