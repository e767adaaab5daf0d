// The life of the door and of its calls: deadlines, cancellation, drain, bounds, TLS, health,
// reflection.
#include <gmock/gmock.h>

#include <fstream>

#include "grpc/grpc_fixture.hpp"
#include "support/certificates.hpp"
#include "support/tcp_peer.hpp"
#include "support/temp_folder.hpp"

namespace sluice::transport {
namespace {

using testing_support::TempFolder;
using ::testing::HasSubstr;

// A call on a thread of its own, for what must happen meanwhile.
class Background {
 public:
  explicit Background(std::function<Called()> call)
      : thread_("client", [this, call = std::move(call)] {
          result_ = call();
          done_ = true;
        }) {}
  bool done() const { return done_; }
  Called wait() {
    thread_.join();
    return result_;
  }

 private:
  Called result_;
  std::atomic<bool> done_ = false;
  Thread thread_;
};

TEST_F(GrpcTest, a_callers_deadline_gives_the_command_up) {
  start();
  CallOptions brief;
  brief.within = milliseconds(50);
  const auto r = execute("hold", "{}", brief);
  EXPECT_EQ(r.status.error_code(), grpc::DEADLINE_EXCEEDED);
  EXPECT_TRUE(wait_until([&] { return door->drained(); })) << "the command was told";
  EXPECT_GE(door->stats().cancelled, 1u);
}

TEST_F(GrpcTest, a_caller_that_cancels_cancels_the_command) {
  start();
  const auto context = std::make_shared<grpc::ClientContext>();
  CallOptions with;
  with.context = context;
  Background call([&] { return execute("hold", "{}", with); });
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  context->TryCancel();
  EXPECT_EQ(call.wait().status.error_code(), grpc::CANCELLED);
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
}

TEST_F(GrpcTest, STREAM_12_a_draining_door_ends_what_it_took_and_refuses_the_rest) {
  start();
  Background call([&] { return execute("hold", "{}"); });
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  door->drain();
  EXPECT_FALSE(door->drained());
  const auto late = execute("echo", "{}");
  EXPECT_EQ(late.status.error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(late.failure().kind(), FailureKind::shutting_down);
  EXPECT_FALSE(call.done());
  lane.lane().post([one = held[0]] { one->finish(rpc::Answer::of(Reply::ok("{\"kept\":1}"))); });
  EXPECT_EQ(call.wait().body, "{\"kept\":1}");
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
  door->stop();
  EXPECT_EQ(execute("echo", "{}").status.error_code(), grpc::UNAVAILABLE);
}

TEST_F(GrpcTest, STREAM_12_what_outlives_the_grace_is_cancelled_and_told_so) {
  start();
  Background call([&] { return execute("hold", "{}"); });
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  door->cancel();
  EXPECT_EQ(call.wait().failure().kind(), FailureKind::shutting_down);
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
}

TEST_F(GrpcTest, STREAM_12_a_command_that_does_not_end_does_not_hold_the_stop) {
  std::atomic<rpc::Invocation*> stuck = nullptr;
  add("stuck", rpc::KeyUse::none, [&](rpc::Invocation& invocation) { stuck = &invocation; });
  start();
  Background call([&] { return execute("stuck", "{}"); });
  ASSERT_TRUE(wait_until([&] { return stuck.load() != nullptr; }));
  door->stop();
  EXPECT_EQ(call.wait().failure().kind(), FailureKind::shutting_down);
  door.reset();
  std::atomic<bool> ended = false;  // and it may end after its door
  lane.lane().post([&] {
    stuck.load()->finish(rpc::Answer::of(Reply::ok("{}")));
    ended = true;
  });
  EXPECT_TRUE(wait_until([&] { return ended.load(); }));
}

// gRPC waits for the client's answer to its goodbye, which never comes.
TEST_F(GrpcTest, STREAM_12_clients_that_are_dead_do_not_hold_the_stop_past_the_grace) {
  options.stream.shutdown.grace = Duration::zero();
  lane.start();
  Duration least = seconds(10);
  for (std::size_t i = 1; i <= 3; ++i) {  // a busy machine may be late, but not three times
    door = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, options, hooks);
    ASSERT_TRUE(door->start());
    test::TcpPeer between({}, door->port());
    channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(between.port()), grpc::InsecureChannelCredentials());
    Background call([&] { return execute("hold", "{}"); });
    ASSERT_TRUE(wait_until([&] { return held_count() == i; }));
    between.hold(true);
    const Instant began = clock.now();
    door->stop();
    least = std::min(least, Duration(clock.now() - began));
    between.cut();
    EXPECT_FALSE(call.wait().status.ok());
  }
  EXPECT_LT(least, milliseconds(300));
}

TEST_F(GrpcTest, CONSOLE_9_as_many_calls_at_once_as_were_set) {
  options.max_calls = 1;
  start();
  Background call([&] { return execute("hold", "{}"); });
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  const auto second = execute("echo", "{}");
  EXPECT_EQ(second.failure().code(), "too_many_calls");
  EXPECT_EQ(second.failure().retry_after(), milliseconds(1000));
  lane.lane().post([one = held[0]] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
  EXPECT_TRUE(call.wait().status.ok());
  EXPECT_TRUE(wait_until([&] { return execute("echo", "{}").status.ok(); }));
}

TEST_F(GrpcTest, VOUCHER_9_shadow_calls_have_a_bound_of_their_own) {
  options.max_calls = 4;  // of which shadow traffic has a quarter beside
  start();
  const auto shadow = [] { return CallOptions{}.with("x-sluice-shadow", "true"); };
  Background first([&] { return execute("hold", "{}", shadow()); });
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  EXPECT_EQ(execute("echo", "{}", shadow()).failure().code(), "too_many_calls");
  std::vector<std::unique_ptr<Background>> live;
  for (int i = 0; i < 4; ++i) live.push_back(std::make_unique<Background>([&] { return execute("hold", "{}"); }));
  EXPECT_TRUE(wait_until([&] { return held_count() == 5; })) << "all four, whatever shadow traffic does";
  EXPECT_EQ(execute("echo", "{}").failure().code(), "too_many_calls");
  const std::lock_guard lock(mutex);
  for (auto* one : held) lane.lane().post([one] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
}

TEST_F(GrpcTest, CONSOLE_9_as_many_calls_at_once_of_one_connection_as_were_set) {
  options.max_streams = 1;
  start();
  Background first([&] { return execute("hold", "{}"); });
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  Background second([&] { return execute("hold", "{}"); });
  // Another connection has room of its own.
  const auto other = connect(grpc::InsecureChannelCredentials());
  v1::ExecuteRequest request;
  request.set_name("echo");
  request.set_payload("{}");
  for (int i = 0; i < 20; ++i) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer ann-token");
    v1::ExecuteReply reply;
    EXPECT_TRUE(grpc::internal::BlockingUnaryCall(
                    other.get(), grpc::internal::RpcMethod("/sluice.v1.Commands/Execute", grpc::internal::RpcMethod::NORMAL_RPC),
                    &context, request, &reply)
                    .ok());
  }
  ASSERT_EQ(held_count(), 1u) << "the second call of the connection waits at the client";
  EXPECT_FALSE(second.done());
  lane.lane().post([one = held[0]] { one->finish(rpc::Answer::of(Reply::ok("{\"n\":1}"))); });
  EXPECT_EQ(first.wait().body, "{\"n\":1}");
  ASSERT_TRUE(wait_until([&] { return held_count() == 2; })) << "and goes on when the first is over";
  lane.lane().post([one = held[1]] { one->finish(rpc::Answer::of(Reply::ok("{\"n\":2}"))); });
  EXPECT_EQ(second.wait().body, "{\"n\":2}");
}

TEST_F(GrpcTest, CONSOLE_9_a_port_in_use_and_a_bad_address_are_told) {
  start();
  for (const std::string& listen : {"127.0.0.1:" + std::to_string(door->port()),
                                    std::string("no such host:1"), std::string("nonsense")}) {
    GrpcOptions same = options;
    same.listen = listen;
    GrpcDoor second(registry, clock, {&lane.lane()}, same, hooks);
    const auto started = second.start();
    ASSERT_FALSE(started) << listen;
    EXPECT_EQ(started.error().code(), "cannot_listen");
    EXPECT_THAT(std::string(started.error().detail()), HasSubstr(listen));
  }
}

TEST_F(GrpcTest, health_follows_the_drain) {
  start();
  const auto health = [&] {
    const grpc::Slice none;
    grpc::ByteBuffer request(&none, 1), reply;
    const auto called = ask("/grpc.health.v1.Health/Check", request, reply);
    EXPECT_TRUE(called.status.ok()) << called.status.error_message();
    std::vector<grpc::Slice> slices;
    (void)reply.Dump(&slices);
    return slices.empty() ? std::string()
                          : std::string(reinterpret_cast<const char*>(slices[0].begin()),
                                        slices[0].size());
  };
  EXPECT_EQ(health(), "\x08\x01") << "SERVING";
  door->drain();
  EXPECT_EQ(health(), "\x08\x02") << "NOT_SERVING";
}

TEST_F(GrpcTest, tls_serves_who_trusts_the_certificate) {
  TempFolder folder;
  const auto made = test::make_certificate("localhost");
  options.tls_cert = folder.file("cert.pem");
  options.tls_key = folder.file("key.pem");
  std::ofstream(options.tls_cert) << made.certificate;
  std::ofstream(options.tls_key) << made.key;
  options.listen = "localhost:0";
  start();
  EXPECT_EQ(execute("echo", "{}").status.error_code(), grpc::UNAVAILABLE) << "not without TLS";
  grpc::SslCredentialsOptions trusting;
  trusting.pem_root_certs = made.certificate;
  channel = connect(grpc::SslCredentials(trusting), "localhost");
  const auto r = execute("echo", "{}");
  EXPECT_TRUE(r.status.ok()) << r.status.error_message();
  trusting.pem_root_certs = test::make_certificate("localhost").certificate;
  channel = connect(grpc::SslCredentials(trusting), "localhost");
  EXPECT_EQ(execute("echo", "{}").status.error_code(), grpc::UNAVAILABLE) << "another authority";
}

TEST_F(GrpcTest, CONSOLE_9_a_bad_certificate_or_key_is_told_with_its_file) {
  TempFolder folder;
  const auto one = test::make_certificate("localhost"), two = test::make_certificate("localhost");
  const auto write = [&](const std::string& name, const std::string& text) {
    std::ofstream(folder.file(name)) << text;
    return folder.file(name);
  };
  const std::string cert = write("cert.pem", one.certificate), key = write("key.pem", one.key);
  const auto refused = [&](const std::string& with_cert, const std::string& with_key) {
    options.tls_cert = with_cert;
    options.tls_key = with_key;
    GrpcDoor bad(registry, clock, {&lane.lane()}, options, hooks);
    const auto started = bad.start();
    EXPECT_FALSE(started);
    if (started) return std::string();
    EXPECT_EQ(started.error().kind(), FailureKind::invalid_argument);
    return std::string(started.error().detail());
  };
  EXPECT_THAT(refused(folder.file("none.pem"), key), HasSubstr("none.pem cannot be read"));
  EXPECT_THAT(refused(write("text.pem", "hello"), key), HasSubstr("text.pem holds no certificate"));
  EXPECT_THAT(refused(cert, cert), HasSubstr("cert.pem holds no private key"));
  EXPECT_THAT(refused(cert, write("other.pem", two.key)), HasSubstr("is not the key of the certificate"));
  EXPECT_THAT(refused(cert, ""), HasSubstr("grpc.tls_key is not set"));
}

}  // namespace
}  // namespace sluice::transport
