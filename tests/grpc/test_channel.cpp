// The gRPC channel end to end: a Client, real sockets, a real door behind them, or a peer that is
// dead, hung, speaks garbage or is cut off in the middle.
#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "grpc/channel_fixture.hpp"
#include "grpc_probe/probe.pb.h"
#include "sluice/resilience/attempt.hpp"
#include "sluice/wire/details.pb.h"
#include "support/certificates.hpp"
#include "support/tcp_peer.hpp"
#include "support/temp_folder.hpp"

namespace sluice::transport {
namespace {

using ::testing::HasSubstr;

TEST_F(ChannelTest, RES_1_a_command_of_another_server_by_its_name) {
  start_door();
  connect_to(door->port());
  rpc::CallContext context = keyed("k \"1\"");
  context.correlation = "c-9";
  context.trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const auto first = call(writes("shop.order"), "{\"a\":1}", seconds(7), context);
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_EQ(*first->body, "{\"run\":1,\"state\":\"placed\"}");
  EXPECT_FALSE(first->replayed);
  EXPECT_EQ(seen.payload, "{\"a\":1}");
  EXPECT_EQ(seen.idempotency_key, "k \"1\"");
  EXPECT_EQ(seen.correlation, "c-9");
  EXPECT_EQ(seen.trace, context.trace);
  EXPECT_LE(seen.deadline - clock.now(), milliseconds(7500)) << "the deadline travels";
  const auto again = call(writes("shop.order"), "{\"a\":1}", seconds(7), context);
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->replayed);
  EXPECT_EQ(*again->body, *first->body);
}

TEST_F(ChannelTest, RES_1_a_method_typed_by_its_messages) {
  start_door();
  connect_to(door->port());
  const auto place = rpc::remote<probe::v1::PlaceOrderRequest, probe::v1::PlaceOrderResponse>(
      *client, {.name = "shop.place", .method = "probe.v1.Shop/PlaceOrder"});
  probe::v1::PlaceOrderRequest request;
  request.set_buyer_id("b-1");
  const auto placed = block_on(callers, place(keyed("t"), request), clock.now() + seconds(10));
  ASSERT_TRUE(placed) << placed.error().to_string();
  EXPECT_EQ((*placed)->state(), "placed");
  EXPECT_EQ(seen.payload, "{\"buyer_id\":\"b-1\"}");
  EXPECT_EQ(message_json("probe.v1.PlaceOrderRequest", request.SerializeAsString()), seen.payload);
  EXPECT_THAT(message_json("probe.v1.PlaceOrderRequest", "\xFF"), HasSubstr("not a message"));
  EXPECT_THAT(message_json("probe.v1.None", ""), HasSubstr("no linked"));
}

TEST_F(ChannelTest, RES_6_shadow_traffic_is_never_sent_unmarked) {
  start_door();
  connect_to(door->port());
  rpc::CallContext context;
  context.ns = Namespace("shop", true);
  ASSERT_TRUE(call(reads("context"), "{}", seconds(5), context));
  EXPECT_TRUE(seen.ns.shadow());
}

TEST_F(ChannelTest, RES_3_the_callees_failure_keeps_kind_code_and_pushback) {
  start_door();
  connect_to(door->port());
  const auto limited = call(writes("fail"));
  EXPECT_EQ(limited.error().kind(), FailureKind::rate_limited);
  EXPECT_EQ(limited.error().code(), "slow_down");
  EXPECT_EQ(limited.error().retry_after(), milliseconds(1500));
  EXPECT_EQ(call(writes("nothing")).error().code(), "unknown_command");
  EXPECT_EQ(call(writes("unsettled")).error().kind(), FailureKind::pending);
}

TEST_F(ChannelTest, RES_3_refusals_here_map_to_statuses_with_details) {
  using resilience::Policy;
  const auto status_of = [](Policy policy, Duration after) {
    resilience::Block block;
    block.policy = policy;
    block.retry_after = after;
    block.rule = "code.*";
    block.version = 3;
    return to_grpc_status(resilience::to_failure(block));
  };
  EXPECT_EQ(status_of(Policy::rate, seconds(1)).error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status_of(Policy::bulkhead, seconds(1)).error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status_of(Policy::adaptive, seconds(1)).error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status_of(Policy::breaker, seconds(1)).error_code(), grpc::UNAVAILABLE);
  EXPECT_EQ(status_of(Policy::timeout, seconds(1)).error_code(), grpc::DEADLINE_EXCEEDED);
  const Failure told = from_grpc_status(status_of(Policy::breaker, milliseconds(2500)));
  EXPECT_EQ(told.code(), "blocked_by_breaker");
  EXPECT_EQ(told.retry_after(), milliseconds(2500));
  EXPECT_THAT(told.details(), ::testing::Contains(std::pair<std::string, std::string>("rule", "code.*")));
  const Failure unknown = from_grpc_status(status_of(Policy::rate, resilience::kNoRetryAfter));
  EXPECT_FALSE(unknown.retry_after().has_value());
}

TEST_F(ChannelTest, RES_3_a_dead_peer_is_unavailable_and_nothing_took_effect) {
  test::DeadPort dead;
  connect_to(dead.port());
  for (const RemoteCommand* command : {&reads("get"), &writes("put")}) {
    const auto failed = call(*command);
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().kind(), FailureKind::unavailable) << failed.error().to_string();
    EXPECT_EQ(failed.error().code(), "cannot_connect");
    EXPECT_THAT(std::string(failed.error().detail()), HasSubstr(std::to_string(dead.port())));
  }
}

TEST_F(ChannelTest, RES_32_a_hung_peer_costs_the_deadline_and_no_more) {
  test::TcpPeer hung;
  GrpcChannelOptions with;
  with.connect_timeout = seconds(60);
  connect_to(hung.port(), with);
  const Instant began = clock.now();
  const auto failed = call(writes("put"), "{}", milliseconds(100));
  EXPECT_EQ(failed.error().kind(), FailureKind::timeout) << failed.error().to_string();
  EXPECT_LT(clock.now() - began, seconds(5));
  EXPECT_EQ(call(writes("put"), "{}", Duration::zero()).error().kind(), FailureKind::timeout);
}

TEST_F(ChannelTest, RES_3_a_peer_that_speaks_garbage_is_unavailable) {
  for (const std::string& greeting :
       {std::string("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        std::string("\x00\xFF\x13 no protocol at all \r\n\r\n", 27)}) {
    test::TcpPeer garbage(greeting);
    connect_to(garbage.port());
    const auto failed = call(writes("put"), "{}", seconds(3));
    ASSERT_FALSE(failed);
    EXPECT_TRUE(failed.error().kind() == FailureKind::unavailable ||
                failed.error().kind() == FailureKind::timeout)
        << failed.error().to_string();
  }
}

TEST_F(ChannelTest, RES_3_a_connection_lost_after_sending_is_an_unknown_outcome) {
  start_door();
  test::TcpPeer relay("", door->port());
  connect_to(relay.port());
  const auto cut_during = [&](const RemoteCommand& command) {
    const std::size_t before = held_count();
    Thread cutter("cutter", [&] {
      (void)wait_until([&] { return held_count() > before; });
      relay.cut();
    });
    auto failed = call(command);
    cutter.join();
    return failed;
  };
  ASSERT_TRUE(call(reads("echo")));
  const auto written = cut_during(client->add({.name = "hold"}));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().kind(), FailureKind::unknown_outcome) << written.error().to_string();
  EXPECT_EQ(written.error().code(), "connection_lost");
  rpc::Client reader(channel_, {});
  client = std::make_unique<rpc::Client>(channel_, std::vector<std::shared_ptr<rpc::Interceptor>>{});
  const auto read = cut_during(reads("hold"));
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().kind(), FailureKind::unavailable) << read.error().to_string();
  EXPECT_TRUE(wait_until([&] { return call(reads("echo")).has_value(); })) << "it connects again";
}

TEST_F(ChannelTest, RES_32_a_deadline_after_sending_is_unknown_for_writes_and_late_for_reads) {
  start_door();
  connect_to(door->port());
  ASSERT_TRUE(call(reads("echo")));
  const auto written = call(writes("hold"), "{}", milliseconds(60));
  EXPECT_EQ(written.error().kind(), FailureKind::unknown_outcome) << written.error().to_string();
  EXPECT_EQ(written.error().code(), "deadline_exceeded");
  client = std::make_unique<rpc::Client>(channel_, std::vector<std::shared_ptr<rpc::Interceptor>>{});
  EXPECT_EQ(call(reads("hold"), "{}", milliseconds(60)).error().kind(), FailureKind::timeout);
}

TEST_F(ChannelTest, RES_32_a_callers_cancellation_reaches_the_callee_and_is_no_timeout) {
  start_door();
  connect_to(door->port());
  CancelScope scope;
  Thread canceller("cancel", [&] {
    (void)wait_until([&] { return held_count() == 1; });
    callers.lane().post([&] { scope.cancel(); });
  });
  const auto cancelled = call(reads("hold"), "{}", seconds(20), {}, &scope);
  canceller.join();
  EXPECT_EQ(cancelled.error().kind(), FailureKind::cancelled);
  EXPECT_TRUE(wait_until([&] { return door->drained(); })) << "the callee was told";
  const auto late = call(reads("echo"), "{}", seconds(5), {}, &scope);
  EXPECT_EQ(late.error().kind(), FailureKind::cancelled) << "not even begun";
}

TEST_F(ChannelTest, RES_32_an_answer_that_came_in_time_counts_however_late_a_busy_lane_looks_at_it) {
  std::atomic<bool> held{false};
  add("shop.busy", rpc::KeyUse::none, [&](rpc::Invocation& invocation) {
    // The caller's lane is held until the time of the call is over; what stands before the answer is more than
    // one turn of it runs, and timers come first in the next.
    callers.lane().post([&, until = clock.now() + milliseconds(1100)] {
      for (int i = 0; i < 1000; ++i) callers.lane().post([] {});
      held = true;
      while (clock.now() < until) std::this_thread::yield();
    });
    (void)wait_until([&] { return held.load(); });
    invocation.finish(rpc::Answer::of(Reply::ok("{}")));
  });
  start_door();
  resilience::Guards guards(clock, random);
  auto rules = resilience::parse_rules("[guard.\"shop.busy\".timeout]\ntimeout = \"1s\"\n", "test");
  ASSERT_TRUE(rules && guards.reload(*std::move(rules)));
  connect_to(door->port(), {}, {rpc::guard_calls(guards, random)});
  const auto answered = call(writes("shop.busy"));
  EXPECT_TRUE(answered) << answered.error().to_string();
}

TEST_F(ChannelTest, RES_30_retries_end_to_end_carry_one_key_and_run_once) {
  start_door();
  test::TcpPeer relay("", door->port());
  resilience::Guards guards(clock, random);
  auto rules = resilience::parse_rules(
      "[guard.\"shop.order\".timeout]\ntimeout = \"300ms\"\n"
      "[guard.\"shop.order\".retry]\nattempts = 6\nbase = \"200ms\"\njitter = \"none\"\n", "test");
  ASSERT_TRUE(rules) << rules.error().to_string();
  ASSERT_TRUE(guards.reload(*std::move(rules)));
  connect_to(relay.port(), {}, {rpc::guard_calls(guards, random)});
  relay.hold(true);  // what is sent is swallowed for a while
  Thread healer("heal", [&] {
    (void)wait_until([&] { return relay.accepted() > 0; });
    relay.cut(true);
  });
  const auto placed = call(writes("shop.order"), "{}", seconds(10), keyed("once"));
  healer.join();
  ASSERT_TRUE(placed) << placed.error().to_string();
  EXPECT_EQ(runs, 1);
}

TEST_F(ChannelTest, RES_1_what_cannot_be_sent_is_refused_here) {
  start_door();
  connect_to(door->port());
  rpc::CallContext context;
  context.headers = {{"X-Upper", "1"}};
  EXPECT_EQ(call(reads("echo"), "{}", seconds(5), context).error().code(), "bad_header");
  context.headers = {{"x-text", "caf\xC3\xA9\n"}};
  EXPECT_EQ(call(reads("echo"), "{}", seconds(5), context).error().code(), "bad_header");
  EXPECT_EQ(make_grpc_channel({}).error().code(), "bad_target");
  GrpcChannelOptions few;
  few.max_calls = 0;
  connect_to(door->port(), few);
  EXPECT_EQ(call(reads("echo")).error().code(), "too_many_calls");
}

TEST_F(ChannelTest, RES_1_tls_to_a_peer_that_is_trusted_and_to_one_that_is_not) {
  testing_support::TempFolder folder;
  const auto made = test::make_certificate("localhost"), other = test::make_certificate("localhost");
  options.tls_cert = folder.file("cert.pem");
  options.tls_key = folder.file("key.pem");
  std::ofstream(options.tls_cert) << made.certificate;
  std::ofstream(options.tls_key) << made.key;
  std::ofstream(folder.file("other.pem")) << other.certificate;
  options.listen = "localhost:0";
  start_door();
  GrpcChannelOptions with;
  with.target = "localhost:" + std::to_string(door->port());
  with.tls = true;
  with.tls_ca = options.tls_cert;
  connect_to(0, with);
  const auto good = call(reads("echo"));
  EXPECT_TRUE(good) << good.error().to_string();
  with.tls_ca = folder.file("other.pem");
  connect_to(0, with);
  EXPECT_EQ(call(reads("echo"), "{}", seconds(3)).error().code(), "cannot_connect");
  with.tls_ca = folder.file("none.pem");
  EXPECT_EQ(make_grpc_channel(with).error().code(), "bad_certificate");
}

TEST_F(ChannelTest, RES_1_a_channel_that_goes_ends_its_calls) {
  start_door();
  connect_to(door->port());
  CancelScope scope;
  Thread canceller("cancel", [&] {
    (void)wait_until([&] { return held_count() == 1; });
    callers.lane().post([&] { scope.cancel(); });
  });
  EXPECT_FALSE(call(writes("hold"), "{}", seconds(20), {}, &scope));
  canceller.join();
  client.reset();
  channel_.reset();  // returns though the callee may still be told
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
}

TEST_F(ChannelTest, RES_10_and_12_a_hung_peer_opens_the_breaker_and_service_returns_after_it) {
  start_door();
  test::TcpPeer relay("", door->port());
  resilience::Guards guards(clock, random);
  auto rules = resilience::parse_rules(
      "[guard.echo.timeout]\ntimeout = \"300ms\"\n"
      "[guard.echo.breaker]\nwindow = \"count\"\nminimum_calls = 3\nisolation = \"100ms\"\n"
      "isolation_max = \"200ms\"\ntrials = 1\n", "test");
  ASSERT_TRUE(rules) << rules.error().to_string();
  ASSERT_TRUE(guards.reload(*std::move(rules)));
  connect_to(relay.port(), {}, {rpc::guard_calls(guards, random)});
  ASSERT_TRUE(call(reads("echo")));
  relay.hold(true);
  ASSERT_TRUE(wait_until([&] {
    const auto refused = call(reads("echo"));
    return !refused && refused.error().code() == "blocked_by_breaker";
  }));
  const Instant began = clock.now();
  for (int i = 0; i < 20; ++i) (void)call(reads("echo"));
  EXPECT_LT(clock.now() - began, seconds(3)) << "refused, not waited for: that would be 6 s";
  relay.cut(true);
  ASSERT_TRUE(wait_until([&] { return relay.has_cut(); }));
  EXPECT_TRUE(wait_until([&] { return call(reads("echo")).has_value(); }));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(call(reads("echo"))) << "full service";
}

TEST_F(ChannelTest, RES_30_pushback_is_read_with_its_limits_and_garbage_is_none) {
  const auto told = [](std::int64_t seconds_after, int nanos) {
    wire::Status status;
    auto* any = status.add_details();
    any->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
    wire::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(seconds_after);
    retry.mutable_retry_delay()->set_nanos(nanos);
    any->set_value(retry.SerializeAsString());
    return from_grpc_status({grpc::UNAVAILABLE, "later", status.SerializeAsString()}).retry_after();
  };
  EXPECT_EQ(told(2, 500'000'000), milliseconds(2500));
  EXPECT_LT(told(-5, 0), milliseconds(0)) << "never";
  EXPECT_EQ(told(INT64_MAX, 0), std::chrono::days(1));
  const Failure garbage = from_grpc_status({grpc::UNAVAILABLE, "x", "\xFF\x13 no details"});
  EXPECT_EQ(garbage.kind(), FailureKind::unavailable);
  EXPECT_EQ(garbage.code(), "grpc_14");
  EXPECT_FALSE(garbage.retry_after().has_value());
}

TEST_F(ChannelTest, RES_30_that_a_callee_gave_up_on_its_own_calls_is_no_word_about_ours) {
  const Failure down(FailureKind::unavailable, "down", "");
  const Failure told = from_grpc_status(to_grpc_status(resilience::given_up(down.with("region", "SG"), "three attempts")));
  EXPECT_FALSE(resilience::is_given_up(told));
  EXPECT_TRUE(resilience::worth_retrying(told, false));
  EXPECT_THAT(told.details(), ::testing::Contains(std::pair<std::string, std::string>("region", "SG")));
}

TEST_F(ChannelTest, RES_13_a_storm_of_calls_cut_at_every_moment_leaves_nothing_behind) {
  start_door();
  connect_to(door->port());
  const RemoteCommand* const commands[] = {&reads("echo"), &reads("hold"), &writes("context")};
  struct Worker {
    static Task<int> run(rpc::Client& to, const RemoteCommand* const* from, sim::SimRandom& luck) {
      TaskContext& task = co_await current_context();
      for (int i = 0; i < 50; ++i) {
        Task<Result<rpc::Response>> one = to.call(*from[luck.below(3)], {}, "{}");
        const Instant until = task.lane->clock().now() + microseconds(luck.below(4000));
        Task<Result<rpc::Response>> cut = resilience::with_deadline(std::move(one), until);
        (void)co_await cut;
      }
      co_return 0;
    }
    TaskContext context;
    Task<int> task;
    std::atomic<int>* left = nullptr;
  };
  constexpr int kWorkers = 32;
  std::atomic<int> working = kWorkers;
  std::vector<std::unique_ptr<Worker>> workers;
  callers.start();
  for (int i = 0; i < kWorkers; ++i) {
    auto worker = std::make_unique<Worker>();
    worker->context.lane = &callers.lane();
    worker->left = &working;
    worker->task = Worker::run(*client, commands, random);
    workers.push_back(std::move(worker));
  }
  callers.lane().post([&] {
    for (auto& worker : workers)
      if (worker->task.start(worker->context,
                             [](void* one) noexcept { --*static_cast<Worker*>(one)->left; },
                             worker.get()))
        --working;
  });
  ASSERT_TRUE(wait_until([&] { return working == 0; }));
  EXPECT_TRUE(wait_until([&] { return door->drained(); })) << "every cut call was told";
  std::atomic<bool> gone = false;
  callers.lane().post([&] {
    workers.clear();
    gone = true;
  });
  EXPECT_TRUE(wait_until([&] { return gone.load(); }));
  EXPECT_TRUE(call(reads("echo")));
}

}  // namespace
}  // namespace sluice::transport
