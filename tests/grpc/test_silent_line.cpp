// Connections that die without a word: bytes are taken and nothing comes back, for ever.
#include "grpc/channel_fixture.hpp"
#include "support/chaos_proxy.hpp"

namespace sluice::transport {
namespace {

class SilentLine : public ChannelTest {
 protected:
  static GrpcChannelOptions soon() {
    GrpcChannelOptions with;
    with.silence = milliseconds(300);
    return with;
  }
  // Keepalive would need more than 30 s.
  template <class F>
  bool within_seconds(F until) {
    const Instant end = clock.now() + seconds(10);
    while (clock.now() < end)
      if (until()) return true;
    return false;
  }
  bool answered(const RemoteCommand& command, Duration within = milliseconds(100)) {
    return call(command, "{}", within).has_value();
  }
};

TEST_F(SilentLine, RES_32_a_connection_on_which_nothing_is_answered_is_left_for_a_new_one) {
  start_door();
  test::ChaosProxy proxy(door->port());
  connect_to(proxy.port(), soon());
  const RemoteCommand& echo = reads("echo");
  ASSERT_TRUE(call(echo));
  proxy.strand();
  ASSERT_TRUE(within_seconds([&] { return !answered(echo); }));
  EXPECT_TRUE(within_seconds([&] { return answered(echo); })) << "it was kept though it is dead";
  EXPECT_GE(proxy.connections(), 2u);
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(call(echo)) << "full service";
}

TEST_F(SilentLine, RES_32_also_when_a_rules_timeout_cuts_the_calls) {
  start_door();
  test::ChaosProxy proxy(door->port());
  resilience::Guards guards(clock, random);
  auto rules = resilience::parse_rules("[guard.echo.timeout]\ntimeout = \"50ms\"\n", "test");
  ASSERT_TRUE(rules && guards.reload(*std::move(rules)));
  connect_to(proxy.port(), soon(), {rpc::guard_calls(guards, random)});
  const RemoteCommand& echo = reads("echo");
  ASSERT_TRUE(within_seconds([&] { return answered(echo, seconds(5)); }));
  proxy.strand();
  ASSERT_TRUE(within_seconds([&] { return !answered(echo, seconds(5)); }));
  EXPECT_TRUE(within_seconds([&] { return answered(echo, seconds(5)); })) << "it was kept though it is dead";
}

TEST_F(SilentLine, RES_32_a_connection_is_kept_while_anything_is_answered_on_it) {
  start_door();
  test::ChaosProxy proxy(door->port());
  connect_to(proxy.port(), soon());
  const RemoteCommand &echo = reads("echo"), &hold = reads("hold");
  const Instant end = clock.now() + seconds(1);
  while (clock.now() < end) {
    EXPECT_FALSE(answered(hold, milliseconds(60))) << "a slow command";
    EXPECT_TRUE(call(echo));
  }
  EXPECT_EQ(proxy.connections(), 1u);
}

TEST_F(SilentLine, RES_32_a_callee_that_hangs_gets_new_connections_now_and_then_and_no_more) {
  start_door();
  test::ChaosProxy proxy(door->port());
  connect_to(proxy.port(), soon());
  const RemoteCommand& hold = reads("hold");
  const Instant end = clock.now() + seconds(1);
  while (clock.now() < end) EXPECT_FALSE(answered(hold, milliseconds(20)));
  EXPECT_GE(proxy.connections(), 2u);
  EXPECT_LE(proxy.connections(), 4u) << "one for each 300 ms";
}

}  // namespace
}  // namespace sluice::transport
