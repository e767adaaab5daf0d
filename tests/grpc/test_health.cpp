// Health over gRPC: what /readyz says over HTTP, for the server and each service by name, asked and watched.
#include <grpcpp/generic/generic_stub.h>

#include <condition_variable>

#include "grpc/grpc_fixture.hpp"
#include "server/running.hpp"

namespace sluice::transport {
namespace {

constexpr const char* kServing = "\x08\x01";
constexpr const char* kNotServing = "\x08\x02";

// A HealthCheckRequest is one text, a HealthCheckResponse one number.
grpc::ByteBuffer asks(const std::string& service) {
  std::string bytes;
  if (!service.empty()) bytes = "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}
std::string text_of(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  (void)buffer.Dump(&slices);
  std::string text;
  for (const auto& slice : slices) text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

// Health/Check: the answer's bytes, or the code of the failure.
std::string check(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) {
  grpc::ClientContext context;
  grpc::ByteBuffer reply;
  const auto status = grpc::internal::BlockingUnaryCall(
      channel.get(), grpc::internal::RpcMethod("/grpc.health.v1.Health/Check", grpc::internal::RpcMethod::NORMAL_RPC), &context,
      asks(service), &reply);
  return status.ok() ? text_of(reply) : std::to_string(status.error_code());
}

// Health/Watch: keeps all that it is told.
class Watching final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  Watching(const std::shared_ptr<grpc::Channel>& channel, const std::string& service) : stub_(channel), request_(asks(service)) {
    stub_.PrepareBidiStreamingCall(&context_, "/grpc.health.v1.Health/Watch", {}, this);
    StartWriteLast(&request_, {});
    StartRead(&reply_);
    StartCall();
  }
  ~Watching() {
    context_.TryCancel();
    std::unique_lock lock(mutex_);
    told_more_.wait(lock, [this] { return over_; });
  }
  /// What was told once there is so much of it.
  std::vector<std::string> told(std::size_t n) {
    std::unique_lock lock(mutex_);
    told_more_.wait_for(lock, seconds(10), [&] { return told_.size() >= n || over_; });
    return told_;
  }
  void OnReadDone(bool ok) override {
    if (!ok) return;
    {
      const std::lock_guard lock(mutex_);
      told_.push_back(text_of(reply_));
    }
    told_more_.notify_all();
    StartRead(&reply_);
  }
  void OnDone(const grpc::Status&) override {
    const std::lock_guard lock(mutex_);
    over_ = true;
    told_more_.notify_all();
  }

 private:
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::ByteBuffer request_, reply_;
  std::mutex mutex_;
  std::condition_variable told_more_;
  std::vector<std::string> told_;
  bool over_ = false;
};

class HealthTest : public GrpcTest {
 protected:
  HealthTest() {
    hooks.ready = [this]() -> Status {
      return ready ? Status{} : fail(FailureKind::unavailable, "store_down", "the database is gone");
    };
  }
  std::atomic<bool> ready = true;
};

TEST_F(HealthTest, CONSOLE_1_health_tells_what_readyz_tells_of_the_server_and_of_each_service) {
  ready = false;
  start();
  for (const char* service : {"", "sluice.v1.Commands"}) EXPECT_EQ(check(channel, service), kNotServing) << service << ", at the start";
  ready = true;
  door->tell_health();
  for (const char* service : {"", "sluice.v1.Commands"}) EXPECT_EQ(check(channel, service), kServing) << service;
  EXPECT_EQ(check(channel, "shop.v1.Nothing"), std::to_string(grpc::NOT_FOUND));
  ready = false;
  door->tell_health();
  for (const char* service : {"", "sluice.v1.Commands"}) EXPECT_EQ(check(channel, service), kNotServing) << service;
}

TEST_F(HealthTest, CONSOLE_1_who_watches_health_is_told_each_change_once) {
  start();
  Watching watching(channel, "sluice.v1.Commands");
  EXPECT_EQ(watching.told(1), (std::vector<std::string>{kServing}));
  ready = false;
  door->tell_health();
  door->tell_health();
  EXPECT_EQ(watching.told(2), (std::vector<std::string>{kServing, kNotServing}));
  ready = true;
  door->tell_health();
  EXPECT_EQ(watching.told(3), (std::vector<std::string>{kServing, kNotServing, kServing}));
  door->drain();
  door->tell_health();
  EXPECT_EQ(watching.told(4), (std::vector<std::string>{kServing, kNotServing, kServing, kNotServing}));
}

TEST(GrpcServerHealth, CONSOLE_1_a_server_whose_store_is_gone_says_so_over_both_doors) {
  server::Config config;
  config.grpc.listen = "127.0.0.1:0";
  server::RunningServer running(std::move(config));
  const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(running.server->grpc_port()), grpc::InsecureChannelCredentials());
  EXPECT_EQ(running.ask(test::get("/readyz")).status, 200);
  EXPECT_EQ(check(channel, ""), kServing);
  Watching watching(channel, "");
  EXPECT_EQ(watching.told(1).size(), 1u);
  running.server->context().store.close();
  EXPECT_EQ(running.ask(test::get("/readyz")).status, 503);
  EXPECT_EQ(watching.told(2), (std::vector<std::string>{kServing, kNotServing}));
  EXPECT_EQ(check(channel, "sluice.v1.Commands"), kNotServing);
}

}  // namespace
}  // namespace sluice::transport
