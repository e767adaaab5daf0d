// Limits, slow and hostile clients, pipelining and the stop, over real sockets. Time is virtual.
#include <atomic>

#include "http/door_fixture.hpp"

namespace sluice::transport {
namespace {

TEST_F(DoorTest, CONSOLE_9_a_header_past_the_limit_is_refused) {
  options.max_header_bytes = 1024;
  start();
  HttpClient client(door->port());
  const auto r = client.ask(get("/healthz", "X-Long: " + std::string(5000, 'x') + "\r\n"));
  ASSERT_TRUE(r);
  EXPECT_EQ(r->status, 431);
  EXPECT_TRUE(r->has("header_too_large"));
  EXPECT_TRUE(advance_until([&] { return client.closed(5); }));
}

TEST_F(DoorTest, CONSOLE_9_a_header_without_end_is_refused) {
  options.max_header_bytes = 1024;
  start();
  HttpClient client(door->port());
  client.send("GET / HTTP/1.1\r\n");
  for (int i = 0; i < 200; ++i) client.send("X-More: some text\r\n");
  const auto r = client.receive();
  ASSERT_TRUE(r);
  EXPECT_EQ(r->status, 431);
}

TEST_F(DoorTest, CONSOLE_9_a_body_past_the_limit_is_refused_before_it_is_read) {
  options.max_body_bytes = 100;
  start();
  const auto declared = ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kAnn +
                            "Content-Length: 1000000000\r\n\r\n");
  EXPECT_EQ(declared.status, 413);
  EXPECT_TRUE(declared.has("body_too_large"));
  const auto chunked = ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kAnn +
                           "Transfer-Encoding: chunked\r\n\r\nff\r\n" + std::string(255, ' '));
  EXPECT_EQ(chunked.status, 413);
}

TEST_F(DoorTest, CONSOLE_9_two_ways_to_say_the_bodys_length_are_refused) {
  start();
  for (const std::string& framing :
       {std::string("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"),
        std::string("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n"),
        std::string("Content-Length: 2\r\nContent-Length: 3\r\n"),
        std::string("Content-Length: -2\r\n"), std::string("Content-Length: 0x2\r\n")}) {
    HttpClient client(door->port());
    const auto r = client.ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kAnn + framing +
                              "\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\n\r\n");
    ASSERT_TRUE(r) << framing;
    EXPECT_EQ(r->status, 400) << framing;
    EXPECT_TRUE(r->has("bad_framing")) << r->body;
    EXPECT_EQ(r->headers.at("connection"), "close");
    EXPECT_FALSE(client.receive(20)) << "what follows a refused request is not read as another";
  }
  EXPECT_EQ(ask("nonsense\r\n\r\n").status, 400);
}

TEST_F(DoorTest, CONSOLE_9_chunked_bodies_are_read) {
  start();
  const auto r = ask("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kAnn +
                     "Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n");
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "{\"echo\":[1,2]}");
}

TEST_F(DoorTest, CONSOLE_9_a_slow_header_and_a_slow_body_are_ended) {
  options.idle_timeout = seconds(36'000);
  start();
  HttpClient header(door->port());
  header.send("POST /v1/comm");
  HttpClient body(door->port());
  body.send("POST /v1/commands/echo HTTP/1.1\r\nContent-Length: 10\r\n\r\n[1");
  HttpClient idle(door->port());
  std::optional<HttpResponse> r;
  ASSERT_TRUE(advance_until([&] { return (r = header.receive(5)).has_value(); }));
  EXPECT_EQ(r->status, 408);
  EXPECT_TRUE(r->has("header did not arrive"));
  ASSERT_TRUE(advance_until([&] { return (r = body.receive(5)).has_value(); }));
  EXPECT_EQ(r->status, 408);
  EXPECT_TRUE(r->has("body did not arrive"));
  EXPECT_TRUE(advance_until([&] { return idle.closed(5); }, seconds(600))) << "an idle one is just closed";
  EXPECT_EQ(door->stats().timeouts, 2u);
}

TEST_F(DoorTest, CONSOLE_9_a_client_that_does_not_read_its_answers_is_closed) {
  options.max_body_bytes = 8 << 20;
  const std::string big = "\"" + std::string(7 << 20, 'x') + "\"";
  rpc::CommandSpec spec;
  spec.name = "big";
  spec.app = "shop";
  spec.idempotency = rpc::KeyUse::none;
  spec.handler = [&](rpc::Invocation& i) { i.finish(rpc::Answer::of(Reply::ok(big))); };
  ASSERT_TRUE(registry.add(spec));
  start();
  HttpClient client(door->port(), 4096);
  client.send(post("big", "{}", kAnn));
  EXPECT_TRUE(advance_until([&] {
    return door->stats().requests == 1 && door->stats().connections == 0;
  }));
}

TEST_F(DoorTest, CONSOLE_9_connections_past_the_bound_are_told) {
  options.max_connections = 2;
  start();
  HttpClient a(door->port()), b(door->port());
  ASSERT_EQ(a.ask(get("/healthz"))->status, 200);
  ASSERT_EQ(b.ask(get("/healthz"))->status, 200);
  HttpClient c(door->port());
  const auto r = c.ask(get("/healthz"));
  ASSERT_TRUE(r);
  EXPECT_EQ(r->status, 503);
  EXPECT_TRUE(r->has("too_many_connections"));
  EXPECT_TRUE(r->headers.contains("retry-after"));
  EXPECT_EQ(a.ask(get("/healthz"))->status, 200) << "the others are not touched";
  EXPECT_EQ(door->stats().refused, 1u);
}

TEST_F(DoorTest, CONSOLE_9_each_connection_past_the_bound_is_told_however_many_there_are) {
  options.max_connections = 1;
  options.loops = 1;
  Metrics metrics;
  door = std::make_unique<HttpDoor>(registry, clock, options, hooks, null_logger(), &metrics);
  ASSERT_TRUE(door->start());
  HttpClient served(door->port());
  ASSERT_EQ(served.ask(get("/healthz"))->status, 200);
  std::vector<std::unique_ptr<HttpClient>> all;  // they stay, so that refusals pile up
  for (int i = 0; i < 100; ++i) {
    all.push_back(std::make_unique<HttpClient>(door->port()));
    const auto r = all.back()->receive();
    ASSERT_TRUE(r) << "closed without a word, the " << i << "th";
    EXPECT_EQ(r->status, 503);
    EXPECT_TRUE(r->has("too_many_connections")) << r->body;
    EXPECT_TRUE(r->has("http.max_connections")) << r->body;
    EXPECT_EQ(r->headers.at("retry-after"), "1");
    EXPECT_EQ(r->headers.at("connection"), "close");
  }
  EXPECT_EQ(metrics.counter("sluice_http_connections_refused_total", "", {{"bound", "server"}}).value(), 100u);
  EXPECT_EQ(metrics.counter("sluice_http_connections_refused_total", "", {{"bound", "client"}}).value(), 0u);
  EXPECT_EQ(served.ask(get("/healthz"))->status, 200);
}

TEST_F(DoorTest, CONSOLE_9_connections_of_one_client_past_its_bound_are_told) {
  options.max_connections_per_client = 2;
  start();
  {
    HttpClient a(door->port()), b(door->port());
    ASSERT_EQ(a.ask(get("/healthz"))->status, 200);
    ASSERT_EQ(b.ask(get("/healthz"))->status, 200);
    HttpClient c(door->port());
    const auto r = c.ask(get("/healthz"));
    ASSERT_TRUE(r);
    EXPECT_EQ(r->status, 503);
    EXPECT_TRUE(r->has("too_many_connections_of_client"));
    EXPECT_TRUE(r->headers.contains("retry-after"));
    EXPECT_TRUE(c.closed());
    EXPECT_EQ(a.ask(get("/healthz"))->status, 200) << "the others are not touched";
  }
  EXPECT_TRUE(wait_until([&] {
    HttpClient d(door->port());
    const auto r = d.ask(get("/healthz"));
    return r && r->status == 200;
  })) << "what is closed does not count";
}

TEST_F(DoorTest, CORE_4_a_client_that_leaves_cancels_what_it_asked_for) {
  start();
  {
    HttpClient client(door->port());
    client.send(post("hold", "{}", kAnn));
    ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  }
  std::atomic<FailureKind> reason{FailureKind::none};
  rpc::Invocation* one = held.front();
  EXPECT_TRUE(wait_until([&] {
    one->lane->post([&, one] { reason = one->scope.reason(); });
    return reason.load() != FailureKind::none;
  }));
  EXPECT_EQ(reason.load(), FailureKind::cancelled);
  release();
  EXPECT_TRUE(wait_until([&] { return door->stats().connections == 0; }));
}

TEST_F(DoorTest, CORE_4_a_request_behind_a_running_one_waits_and_cancels_nothing) {
  start();
  HttpClient client(door->port());
  client.send(post("hold", "{}", kAnn));
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  client.send(post("echo", "1", kAnn) + post("echo", "2", kAnn));
  EXPECT_FALSE(client.receive(20));
  release("{\"held\":1}");
  EXPECT_EQ(client.receive()->body, "{\"held\":1}");
  EXPECT_EQ(client.receive()->body, "{\"echo\":1}");
  EXPECT_EQ(client.receive()->body, "{\"echo\":2}");
}

TEST_F(DoorTest, CONSOLE_1_pipelined_requests_are_answered_in_order) {
  start();
  HttpClient client(door->port());
  std::string all;
  for (int i = 0; i < 50; ++i) all += post("echo", std::to_string(i), kAnn);
  client.send(all);
  for (int i = 0; i < 50; ++i) {
    const auto r = client.receive();
    ASSERT_TRUE(r);
    EXPECT_EQ(r->body, "{\"echo\":" + std::to_string(i) + "}");
  }
}

TEST_F(DoorTest, CONSOLE_1_a_request_in_single_bytes_is_one_request) {
  start();
  HttpClient client(door->port());
  for (const char c : post("echo", "[true]", kAnn)) client.send(std::string_view(&c, 1));
  EXPECT_EQ(client.receive()->body, "{\"echo\":[true]}");
}

TEST_F(DoorTest, CONSOLE_1_expect_continue_and_connection_close) {
  start();
  HttpClient client(door->port());
  client.send("POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\n" + kAnn +
              "Connection: close\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.receive()->status, 100);
  EXPECT_EQ(client.ask("[]")->status, 200);
  EXPECT_TRUE(client.closed());
}

TEST_F(DoorTest, G6_who_stopped_in_the_middle_of_a_request_does_not_keep_a_drain_waiting) {
  start();
  HttpClient header(door->port()), body(door->port()), chunk(door->port());
  header.send("POST /v1/comm");
  const std::string head = "POST /v1/commands/echo HTTP/1.1\r\nHost: t\r\n" + kAnn;
  body.send(head + "Content-Length: 9\r\n\r\n[1,");
  chunk.send(head + "Transfer-Encoding: chunked\r\n\r\n3\r\n[1,\r\n");
  ASSERT_TRUE(wait_until([&] { return door->stats().connections == 3; }));
  // What was sent has been read once something sent later on a loop of each has been answered.
  for (std::size_t i = 0; i < 2 * door->lanes(); ++i) ASSERT_EQ(HttpClient(door->port()).ask(get("/healthz"))->status, 200);
  door->drain();
  for (HttpClient* one : {&header, &body, &chunk}) {
    const auto told = one->receive();
    ASSERT_TRUE(told);
    EXPECT_EQ(told->status, 503);
    EXPECT_EQ(told->headers.at("connection"), "close");
    EXPECT_EQ(told->headers.at("retry-after"), "1");
    EXPECT_TRUE(one->closed());
  }
  EXPECT_TRUE(advance_until([&] { return door->drained(); })) << "who does not close either is given up";
}

TEST_F(DoorTest, G6_draining_finishes_what_runs_and_takes_nothing_new) {
  start();
  HttpClient busy(door->port()), idle(door->port());
  ASSERT_EQ(idle.ask(get("/healthz"))->status, 200);
  busy.send(post("hold", "{}", kAnn));
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  door->drain();
  EXPECT_TRUE(idle.closed());
  HttpClient late(door->port());
  EXPECT_TRUE(!late.connected() || !late.ask(get("/healthz")));
  EXPECT_FALSE(door->drained());
  release("{\"late\":1}");
  const auto r = busy.receive();
  ASSERT_TRUE(r);
  EXPECT_EQ(r->body, "{\"late\":1}");
  EXPECT_EQ(r->headers.at("connection"), "close");
  EXPECT_TRUE(busy.closed());
  EXPECT_TRUE(wait_until([&] { return door->drained(); }));
}

TEST_F(DoorTest, G6_after_the_grace_what_runs_is_cancelled) {
  FailureKind reason = FailureKind::none;
  add("wait", rpc::KeyUse::none, [&](rpc::Invocation& invocation) {
    const auto work = [](FailureKind* out) -> Task<rpc::Answer> {
      *out = co_await sleep_for(seconds(100'000));
      co_return rpc::Answer::of(Failure(*out, "cut_short", "the server stops"));
    };
    invocation.run_task(work(&reason));
    std::lock_guard lock(mutex);
    held.push_back(&invocation);
  });
  start();
  HttpClient client(door->port());
  client.send(post("wait", "{}", kAnn));
  ASSERT_TRUE(wait_until([&] { return held_count() == 1; }));
  door->drain();
  door->cancel();
  const auto r = client.receive();
  ASSERT_TRUE(r);
  EXPECT_EQ(r->status, 503);
  EXPECT_EQ(reason, FailureKind::shutting_down);
  door->stop();
}

TEST_F(DoorTest, CONSOLE_9_a_taken_port_is_named_with_what_to_do) {
  start();
  options.port = door->port();
  HttpDoor second(registry, clock, options, hooks);
  const auto started = second.start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().kind(), FailureKind::unavailable);
  EXPECT_NE(started.error().detail().find(std::to_string(door->port())), std::string::npos);
  EXPECT_NE(started.error().detail().find("set http.port"), std::string::npos);
  options.address = "not-an-address";
  HttpDoor third(registry, clock, options, hooks);
  EXPECT_EQ(third.start().error().code(), "bad_address");
}

TEST_F(DoorTest, CONSOLE_1_several_loops_share_the_connections) {
  options.loops = 3;
  start();
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 9; ++i) clients.push_back(std::make_unique<HttpClient>(door->port()));
  for (int round = 0; round < 3; ++round)
    for (auto& client : clients) EXPECT_EQ(client->ask(post("echo", "1", kAnn))->status, 200);
  EXPECT_EQ(door->stats().requests, 27u);
}

}  // namespace
}  // namespace sluice::transport
