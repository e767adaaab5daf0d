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

TEST(Overload, VOUCHER_9_a_flood_of_shadow_traffic_refuses_no_live_request_and_moves_no_live_figure) {
  Config config;
  config.gate.permits = 1;
  config.gate.max_waiting = 0;
  RunningServer running(config);
  const std::string shadow = running.bearer() + "X-Sluice-Shadow: true\r\n";
  const auto figure = [&](const std::string& name) {
    const std::string page = running.ask(test::get("/metrics")).body, line = "\n" + name + " ";
    const auto at = page.find(line);
    return at == std::string::npos ? std::string("absent") : page.substr(at + line.size(), page.find('\n', at + 1) - at - line.size());
  };
  HttpClient first(running.server->port());
  first.send(post("probe.hold", "{}", shadow));
  ASSERT_TRUE(wait_until([&] { return running.probe->held() == 1; }));
  for (int i = 0; i < 5; ++i) {
    const auto refused = running.ask(post("probe.hold", "{}", shadow));
    EXPECT_EQ(refused.status, 503) << "it has bounds of its own: " << refused.body;
    EXPECT_TRUE(refused.has("commands_shadow")) << refused.body;
  }
  EXPECT_EQ(running.ask(post("probe.nothing", "{}", shadow)).status, 404);
  EXPECT_EQ(figure(R"(sluice_admission_in_use{gate="commands"})"), "0");
  EXPECT_EQ(figure(R"(sluice_admission_in_use{gate="commands_shadow"})"), "1");
  EXPECT_EQ(figure(R"(sluice_admission_refused{gate="commands"})"), "0");
  EXPECT_EQ(figure(R"(sluice_admission_refused{gate="commands_shadow"})"), "5");
  EXPECT_EQ(figure(R"(sluice_http_responses_total{class="5xx",traffic="live"})"), "0");
  EXPECT_EQ(figure(R"(sluice_http_responses_total{class="5xx",traffic="shadow"})"), "5");
  EXPECT_EQ(figure(R"(sluice_http_request_seconds_count{traffic="shadow"})"), "6");
  EXPECT_EQ(figure(R"(sluice_requests_refused_total{code="unknown_command",traffic="shadow"})"), "1");
  EXPECT_EQ(running.ask(post("probe.count", "{}", running.keyed("a"))).status, 200);
  // Nor the other way round.
  HttpClient live(running.server->port());
  live.send(post("probe.hold", "{}", running.bearer()));
  ASSERT_TRUE(wait_until([&] { return running.probe->held() == 2; }));
  running.probe->release();
  EXPECT_EQ(first.receive()->status, 200);
  EXPECT_EQ(running.ask(post("probe.count", "{}", shadow)).status, 200);
  running.probe->release();
  EXPECT_EQ(live.receive()->status, 200);
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
