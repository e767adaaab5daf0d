// Several addresses of one target: gRPC's own resolution and balancing, as a channel uses them.
#include "grpc/channel_fixture.hpp"
#include "support/chaos_proxy.hpp"

namespace sluice::transport {
namespace {

class Balanced : public ChannelTest {
 protected:
  // Two doors; in front of each a proxy by which its machine is lost.
  void start_two() {
    start_door();
    second = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, options, hooks);
    ASSERT_TRUE(second->start());
    lines[0] = std::make_unique<test::ChaosProxy>(door->port());
    lines[1] = std::make_unique<test::ChaosProxy>(second->port());
  }
  ~Balanced() override {
    client.reset();
    channel_.reset();
    if (second) second->stop();
  }
  void connect_to_both(const std::string& balancing, std::vector<std::shared_ptr<rpc::Interceptor>> chain = {},
                       GrpcChannelOptions with = {}) {
    with.target = "ipv4:127.0.0.1:" + std::to_string(lines[0]->port()) + ",127.0.0.1:" + std::to_string(lines[1]->port());
    with.balancing = balancing;
    connect_to(0, with, std::move(chain));
  }
  void lose(int which) {
    test::Chaos gone;
    gone.refuse = true;
    lines[static_cast<std::size_t>(which)]->set(gone);
    lines[static_cast<std::size_t>(which)]->cut();
  }
  /// Calls that each of the two took of `n`, all answered.
  std::pair<std::uint64_t, std::uint64_t> shares(int n) {
    const auto first = door->stats().calls, other = second->stats().calls;
    for (int i = 0; i < n; ++i) EXPECT_TRUE(call(echo()));
    return {door->stats().calls - first, second->stats().calls - other};
  }
  const RemoteCommand& echo() { return reads("echo"); }

  std::unique_ptr<GrpcDoor> second;
  std::unique_ptr<test::ChaosProxy> lines[2];
};

TEST_F(Balanced, RES_1_calls_are_spread_go_on_when_one_is_lost_and_come_back_to_it) {
  start_two();
  connect_to_both("round_robin");
  ASSERT_TRUE(wait_until([&] { const auto [a, b] = shares(2); return a == 1 && b == 1; })) << "both are connected";
  EXPECT_EQ(shares(20), (std::pair<std::uint64_t, std::uint64_t>{10, 10}));
  lose(0);
  // What was under way may fail; then all calls go to the one that is left.
  ASSERT_TRUE(wait_until([&] { return call(echo()).has_value() && call(echo()).has_value(); }));
  EXPECT_EQ(shares(20), (std::pair<std::uint64_t, std::uint64_t>{0, 20}));
  lines[0]->set({});
  EXPECT_TRUE(wait_until([&] { return shares(2).first == 1; })) << "it is used again";
}

TEST_F(Balanced, RES_30_a_call_that_meets_the_lost_one_is_repeated_at_the_other) {
  start_two();
  resilience::Guards guards(clock, random);
  auto rules = resilience::parse_rules("[guard.echo.retry]\nattempts = 3\nbase = \"1ms\"\n", "test");
  ASSERT_TRUE(rules && guards.reload(*std::move(rules)));
  connect_to_both("round_robin", {rpc::guard_calls(guards, random)});
  ASSERT_TRUE(wait_until([&] { const auto [a, b] = shares(2); return a == 1 && b == 1; }));
  lose(1);
  EXPECT_EQ(shares(50).first, 50u) << "none failed";
}

TEST_F(Balanced, RES_1_pick_first_stays_with_one_and_takes_the_other_when_it_is_lost) {
  start_two();
  connect_to_both("pick_first");
  EXPECT_EQ(shares(10), (std::pair<std::uint64_t, std::uint64_t>{10, 0}));
  lose(0);
  ASSERT_TRUE(wait_until([&] { return call(echo()).has_value(); }));
  EXPECT_EQ(shares(10), (std::pair<std::uint64_t, std::uint64_t>{0, 10}));
}

// One that answers speaks for both where calls time out; pings find the dead one, also while there are no calls.
TEST_F(Balanced, RES_32_of_two_connections_the_dead_one_is_found_without_calls) {
  start_two();
  GrpcChannelOptions with;
  with.keepalive = milliseconds(500);
  with.keepalive_timeout = milliseconds(300);
  connect_to_both("round_robin", {}, with);
  ASSERT_TRUE(wait_until([&] { const auto [a, b] = shares(2); return a == 1 && b == 1; }));
  lines[1]->strand();
  EXPECT_TRUE(wait_until([&] { return lines[1]->connections() == 2; })) << "nobody calls, nobody looks";
  ASSERT_TRUE(wait_until([&] { const auto [a, b] = shares(2); return a == 1 && b == 1; }));
  EXPECT_EQ(lines[0]->connections(), 1u);
}

TEST_F(Balanced, RES_1_a_name_is_resolved) {
  start_door();
  for (const char* scheme : {"", "dns:///"}) {
    GrpcChannelOptions with;
    with.target = scheme + ("localhost:" + std::to_string(door->port()));
    connect_to(0, with);
    EXPECT_TRUE(call(reads("echo"))) << with.target;
  }
  GrpcChannelOptions nobody;
  nobody.target = "dns:///nobody.invalid:1";
  connect_to(0, nobody);
  EXPECT_EQ(call(reads("echo"), "{}", seconds(5)).error().kind(), FailureKind::unavailable);
}

}  // namespace
}  // namespace sluice::transport
