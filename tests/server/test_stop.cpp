// Stopping: what was accepted ends, within the grace; nothing new comes in.
#include "running.hpp"

namespace sluice::server {
namespace {

using test::get;
using test::HttpClient;
using test::post;

TEST(Stop, CORE_4_what_was_accepted_is_answered_and_nothing_new_comes_in) {
  RunningServer running;
  HttpClient first(running.server->port());
  first.send(post("probe.hold", "{}", running.bearer()));
  ASSERT_TRUE(wait_until([&] { return running.probe->held() == 1; }));
  const auto port = running.server->port();
  Status stopped;
  Thread stopping("stopping", [&] { stopped = running.server->stop(); });
  EXPECT_TRUE(wait_until([&] {
    HttpClient late(port);
    return !late.connected() || !late.ask(get("/healthz"));
  }));
  running.probe->release();
  const auto answer = first.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 200);
  EXPECT_TRUE(answer->has("held"));
  stopping.join();
  EXPECT_TRUE(stopped) << "nothing had to be cancelled";
}

TEST(Stop, CORE_4_in_the_drain_delay_it_is_not_ready_and_still_takes_requests) {
  Config config;
  config.drain_delay = milliseconds(2'000);
  RunningServer running(config);
  const auto port = running.server->port();
  ASSERT_EQ(running.ask(get("/readyz")).status, 200);
  Thread stopping("stopping", [&] { EXPECT_TRUE(running.server->stop()); });
  EXPECT_TRUE(wait_until([&] {
    const auto ready = HttpClient(port).ask(get("/readyz"));
    return ready && ready->status == 503 && ready->has("shutting_down");
  }));
  const auto alive = HttpClient(port).ask(get("/healthz"));
  ASSERT_TRUE(alive);
  EXPECT_EQ(alive->status, 200);
  const auto taken = HttpClient(port).ask(post("probe.count", "{}", running.bearer()));
  ASSERT_TRUE(taken) << "what comes before balancers have looked";
  EXPECT_EQ(taken->status, 200) << taken->body;
  stopping.join();
  EXPECT_FALSE(HttpClient(port).connected());
}

TEST(Stop, CORE_4_after_the_grace_what_runs_is_cancelled_and_told) {
  Config config;
  config.grace = milliseconds(20);
  RunningServer running(config);
  HttpClient client(running.server->port());
  client.send(post("probe.wait", "{}", running.keyed("a")));
  ASSERT_TRUE(wait_until([&] { return running.probe->waiting == 1; }));
  const auto stopped = running.server->stop();
  ASSERT_FALSE(stopped);
  EXPECT_EQ(stopped.error().kind(), FailureKind::timeout);
  EXPECT_EQ(running.probe->cancelled, 1);
  const auto answer = client.receive();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 503) << answer->body;
}

TEST(Operator, CONSOLE_1_a_key_shows_what_is_stored_under_it) {
  RunningServer running;
  ASSERT_EQ(running.ask(post("probe.count", "{}", running.keyed("a"))).status, 200);
  const auto show = [&](std::string_view key) {
    return running.ask(post("sluice.idempotency.show",
                            R"({"app":"shop","principal":"admin","command":"probe.count","key":")" +
                                std::string(key) + "\"}",
                            running.bearer()));
  };
  const auto found = show("a");
  EXPECT_EQ(found.status, 200) << found.body;
  EXPECT_TRUE(found.has("\"completed\"")) << found.body;
  const auto none = show("b");
  EXPECT_EQ(none.status, 404);
  EXPECT_TRUE(none.has("unknown_key"));
}

TEST(Operator, CONSOLE_1_flows_are_drawn_and_settling_names_its_mistakes) {
  RunningServer running;
  const auto drawn =
      running.ask(post("sluice.tx.graph", R"({"flow":"probe.wait"})", running.bearer()));
  EXPECT_EQ(drawn.status, 200) << drawn.body;
  EXPECT_TRUE(drawn.has("mermaid"));
  EXPECT_EQ(running.ask(post("sluice.tx.graph", R"({"flow":"none"})", running.bearer())).status,
            404);
  const auto settle = [&](std::string_view outcome) {
    return running.ask(post("sluice.tx.settle",
                            "{\"id\":\"" + id_to_text(1) + "\",\"outcome\":\"" +
                                std::string(outcome) + "\",\"reason\":\"test\"}",
                            running.bearer()));
  };
  EXPECT_EQ(settle("perhaps").status, 400);
  EXPECT_EQ(settle("committed").status, 404);
}

}  // namespace
}  // namespace sluice::server
