// What is too much is refused before anything ran; who leaves stops what he asked for.
#include "running.hpp"

namespace sluice::server {
namespace {

using test::HttpClient;
using test::post;

TEST(Overload, CORE_2_past_the_gates_bound_nothing_runs_and_503_tells_when_to_come_back) {
  Config config;
  config.gate.permits = 1;
  config.gate.max_waiting = 0;
  RunningServer running(config);
  HttpClient first(running.server->port());
  first.send(post("probe.hold", "{}", running.bearer()));
  ASSERT_TRUE(wait_until([&] { return running.probe->held() == 1; }));
  const auto refused = running.ask(post("probe.count", "{}", running.keyed("a")));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_TRUE(refused.has("gate_full")) << refused.body;
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  EXPECT_EQ(running.runs(), 0);
  running.probe->release();
  EXPECT_EQ(first.receive()->status, 200);
  EXPECT_EQ(running.ask(post("probe.count", "{}", running.keyed("a"))).status, 200)
      << "the key was not used up";
  EXPECT_EQ(running.runs(), 1);
}

TEST(Overload, CORE_2_waiting_for_a_permit_ends_with_503) {
  Config config;
  config.gate.permits = 1;
  config.gate.max_wait = milliseconds(20);
  RunningServer running(config);
  HttpClient first(running.server->port());
  first.send(post("probe.hold", "{}", running.bearer()));
  ASSERT_TRUE(wait_until([&] { return running.probe->held() == 1; }));
  const auto refused = running.ask(post("probe.count", "{}", running.keyed("a")));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_TRUE(refused.has("gate_wait")) << refused.body;
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  const auto late = running.ask(
      post("probe.count", "{}", running.keyed("b") + "X-Sluice-Deadline-Ms: 5\r\n"));
  EXPECT_EQ(late.status, 504) << "its own deadline came first: " << late.body;
  EXPECT_EQ(running.runs(), 0);
  running.probe->release();
  EXPECT_EQ(first.receive()->status, 200);
}

TEST(Overload, CORE_4_a_client_that_leaves_stops_its_stage_and_nothing_is_written) {
  Config config;
  config.gate.permits = 1;
  RunningServer running(config);
  {
    HttpClient client(running.server->port());
    client.send(post("probe.wait", "{}", running.keyed("a")));
    ASSERT_TRUE(wait_until([&] { return running.probe->waiting == 1; }));
  }
  ASSERT_TRUE(wait_until([&] { return running.probe->cancelled == 1; }));
  EXPECT_EQ(running.ask(post("probe.count", "{}", running.keyed("b"))).status, 200)
      << "the permit is back";
  EXPECT_EQ(running.runs(), 1) << "the stage's draft was dropped";
  HttpClient again(running.server->port());
  again.send(post("probe.wait", "{}", running.keyed("a")));
  EXPECT_TRUE(wait_until([&] { return running.probe->waiting == 2; }))
      << "the key is free: it runs again";
}

}  // namespace
}  // namespace sluice::server
