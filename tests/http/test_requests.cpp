// What a client is told, over real sockets.
#include "http/door_fixture.hpp"

namespace sluice::transport {
namespace {

TEST_F(DoorTest, CONSOLE_1_a_command_is_answered_with_its_reply) {
  start();
  const auto r = ask(post("echo", "{\"a\":[1]}", kAnn + "X-Correlation-Id: abc-1\r\n"));
  EXPECT_EQ(r.status, 200);
  EXPECT_EQ(r.body, "{\"echo\":{\"a\":[1]}}");
  EXPECT_EQ(r.headers.at("x-correlation-id"), "abc-1");
  EXPECT_EQ(r.headers.at("connection"), "keep-alive");
  EXPECT_FALSE(r.headers.contains("idempotency-replayed"));
}

TEST_F(DoorTest, IDEM_4_a_duplicate_is_byte_identical_and_marked) {
  start();
  const auto first = ask(post("place", "{}", kAnn + "Idempotency-Key: \"k-1\"\r\n"));
  const auto second = ask(post("place", "{}", kAnn + "Idempotency-Key: k-1\r\n"));
  EXPECT_EQ(first.body, "{\"run\":1}");
  EXPECT_EQ(second.body, first.body);
  EXPECT_EQ(second.headers.at("idempotency-replayed"), "true");
  const auto parameter = ask(post("place", "{}", kAnn + "Idempotency-Key: \"k-1\";v=1\r\n"));
  EXPECT_EQ(parameter.body, first.body) << "parameters are no part of the key";
  const auto other = ask(post("place", "[]", kAnn + "Idempotency-Key: k-1\r\n"));
  EXPECT_EQ(other.status, 422);
  EXPECT_TRUE(other.has("\"kind\":\"fingerprint_mismatch\""));
  EXPECT_EQ(runs, 1);
}

TEST_F(DoorTest, IDEM_5_a_body_written_otherwise_is_the_same_request) {
  start();
  const std::string key = kAnn + "Idempotency-Key: k-1\r\n";
  const auto first = ask(post("place", R"({"item":"chair","count":2})", key));
  ASSERT_EQ(first.status, 200) << first.body;
  for (const char* same : {R"({ "item": "chair", "count": 2 })", R"({"count":2,"item":"ch\u0061ir"})"}) {
    const auto again = ask(post("place", same, key));
    EXPECT_EQ(again.status, 200) << same << ": " << again.body;
    EXPECT_EQ(again.body, first.body);
  }
  EXPECT_EQ(ask(post("place", R"({"item":"chair","count":3})", key)).status, 422);
  EXPECT_EQ(ask(post("place", R"({"item":"chair ","count":2})", key)).status, 422) << "a blank in a text is part of it";
  EXPECT_EQ(runs, 1);
}

TEST_F(DoorTest, IDEM_5_a_name_that_stands_twice_is_refused_by_name) {
  start();
  const auto r = ask(post("echo", R"({"to":"ann","to":"eve"})", kAnn));
  EXPECT_EQ(r.status, 400);
  EXPECT_TRUE(r.has("\"code\":\"repeated_member\"")) << r.body;
  EXPECT_TRUE(r.has("line 1, column 13: the name \\\"to\\\" stands twice")) << r.body;
}

TEST_F(DoorTest, IDEM_6_missing_and_malformed_keys_are_400) {
  start();
  EXPECT_TRUE(ask(post("place", "{}", kAnn)).has("idempotency_key_required"));
  for (const std::string& key : {std::string("\"open"), std::string("\"a\"b"),
                                 std::string("\"\\x\""), std::string(), std::string(256, 'k')}) {
    const auto r = ask(post("place", "{}", kAnn + "Idempotency-Key: " + key + "\r\n"));
    EXPECT_EQ(r.status, 400) << key;
    EXPECT_TRUE(r.has("bad_idempotency_key")) << r.body;
  }
  const auto twice =
      ask(post("place", "{}", kAnn + "Idempotency-Key: a\r\nIdempotency-Key: b\r\n"));
  EXPECT_EQ(twice.status, 400);
  EXPECT_EQ(runs, 0);
}

TEST_F(DoorTest, CONSOLE_9_a_body_that_is_no_json_is_told_where) {
  start();
  const auto r = ask(post("echo", "{\"a\":1,}", kAnn));
  EXPECT_EQ(r.status, 400);
  EXPECT_EQ(r.headers.at("content-type"), "application/problem+json");
  EXPECT_TRUE(r.has("\"code\":\"bad_json\"")) << r.body;
  EXPECT_TRUE(r.has("line 1, column 8")) << r.body;
  EXPECT_TRUE(r.has("\"correlation_id\":\""));
  EXPECT_TRUE(
      ask(post("echo", std::string(65, '[') + std::string(65, ']'), kAnn)).has("json_too_deep"));
}

TEST_F(DoorTest, CONSOLE_3_a_body_of_another_type_is_415_once_it_is_known_who_asks) {
  start();
  // What curl -d sends of itself.
  const std::string form = "Content-Type: application/x-www-form-urlencoded\r\n";
  const auto r = ask(post("echo", "{}", kAnn + form));
  EXPECT_EQ(r.status, 415);
  EXPECT_TRUE(r.has("unsupported_media_type") && r.has("-H 'Content-Type: application/json'")) << r.body;
  EXPECT_EQ(ask(post("echo", "{}", kAnn + "Content-Type: application/json; charset=utf-8\r\n")).status, 200);
  EXPECT_EQ(ask(post("echo", "{}", kAnn)).status, 200) << "none is JSON";
  EXPECT_EQ(ask(post("echo", "{}", form)).status, 401);
  EXPECT_EQ(ask(post("echo", "{}", "Authorization: Bearer wrong\r\n" + form)).status, 401);
  EXPECT_EQ(ask(post("nothing", "{", "Authorization: Bearer wrong\r\n")).status, 401);
  EXPECT_EQ(ask(post("nothing", "{", "")).status, 401) << "a stranger is not told which commands there are";
}

TEST_F(DoorTest, CONSOLE_2_a_compressed_body_is_named_as_such_and_a_whole_uri_is_taken) {
  start();
  const auto r = ask(post("echo", "\x1F\x8B\x08", kAnn + "Content-Encoding: gzip\r\n"));
  EXPECT_EQ(r.status, 415);
  EXPECT_TRUE(r.has("Content-Encoding") && r.has("gzip")) << r.body;
  EXPECT_EQ(ask(post("echo", "{}", kAnn + "Content-Encoding: identity\r\n")).status, 200);
  for (const std::string target : {"http://t/healthz", "HTTP://other:80/healthz", "https://t/healthz?a=b"})
    EXPECT_EQ(ask("GET " + target + " HTTP/1.1\r\nHost: t\r\n\r\n").status, 200) << target;
  EXPECT_EQ(ask("GET http://t HTTP/1.1\r\nHost: t\r\n\r\n").status, ask(get("/")).status);
  EXPECT_EQ(ask("GET http:/healthz HTTP/1.1\r\nHost: t\r\n\r\n").status, 404);
}

TEST_F(DoorTest, CONSOLE_2_unknown_names_versions_routes_and_methods) {
  start();
  EXPECT_EQ(ask(post("nothing", "{}", kAnn)).status, 404);
  const auto version = ask(post("echo", "{}", kAnn + "X-Sluice-Version: 9\r\n"));
  EXPECT_EQ(version.status, 400);
  EXPECT_TRUE(version.has("unsupported_version"));
  EXPECT_EQ(ask(get("/v1/commands/echo", kAnn)).status, 405);
  EXPECT_EQ(ask(get("/nowhere", kAnn)).status, 404);
  const auto list = ask(get("/v1/commands", kAnn));
  EXPECT_EQ(list.status, 200);
  EXPECT_TRUE(list.has("\"name\":\"place\""));
}

TEST_F(DoorTest, CONSOLE_2_a_method_that_is_not_allowed_is_told_which_is) {
  start();
  const auto command = ask(get("/v1/commands/echo", kAnn));
  EXPECT_EQ(command.status, 405);
  EXPECT_EQ(command.headers.at("allow"), "POST");
  EXPECT_EQ(ask("PUT /v1/commands/echo HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n").headers.at("allow"), "POST");
  const auto read = ask("POST /healthz HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(read.status, 405);
  EXPECT_EQ(read.headers.at("allow"), "GET, HEAD");
}

TEST_F(DoorTest, CONSOLE_9_one_host_is_named_in_http_1_1) {
  start();
  EXPECT_TRUE(ask("GET /healthz HTTP/1.1\r\n\r\n").has("bad_host"));
  EXPECT_EQ(ask("GET /healthz HTTP/1.1\r\n\r\n").status, 400);
  EXPECT_EQ(ask("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").status, 400);
  EXPECT_EQ(ask("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n").status, 200) << "empty is one";
  EXPECT_EQ(ask("GET /healthz HTTP/1.0\r\n\r\n").status, 200);
}

// The body is what is replayed byte for byte; what belongs to one answer stands in its header.
TEST_F(DoorTest, G1_a_decline_is_replayed_byte_for_byte_and_told_apart_by_its_header) {
  add("decline", rpc::KeyUse::required, [](rpc::Invocation& invocation) {
    invocation.finish(rpc::Answer::of(Failure(FailureKind::invalid_argument, "too_many", "at most 5")));
  });
  start();
  const auto first = ask(post("decline", "{}", kAnn + "Idempotency-Key: k\r\nX-Correlation-Id: one\r\n"));
  const auto again = ask(post("decline", "{}", kAnn + "Idempotency-Key: k\r\nX-Correlation-Id: two\r\n"));
  EXPECT_EQ(first.status, 400);
  EXPECT_EQ(again.status, 400);
  EXPECT_EQ(again.headers.at("idempotency-replayed"), "true");
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(first.headers.at("x-correlation-id"), "one");
  EXPECT_EQ(again.headers.at("x-correlation-id"), "two");
}

TEST_F(DoorTest, CONSOLE_3_details_of_a_stored_decline_write_no_headers_of_their_own) {
  add("decline", rpc::KeyUse::required, [](rpc::Invocation& invocation) {
    invocation.finish(rpc::Answer::of(Failure(FailureKind::rejected, "no", "no")
                                          .with("good", "kept")
                                          .with("value", "x\r\nSet-Cookie: a=1")
                                          .with("key\r\nx-forged", "1")
                                          .with("two words", "1")));
  });
  start();
  for (int i = 0; i < 2; ++i) {
    const auto r = ask(post("decline", "{}", kAnn + "Idempotency-Key: a\r\n"));
    EXPECT_EQ(r.headers.at("x-detail-good"), "kept");
    for (const char* forged : {"set-cookie", "x-forged", "x-detail-value", "x-detail-key", "x-detail-two words"})
      EXPECT_FALSE(r.headers.contains(forged)) << forged;
  }
}

TEST_F(DoorTest, CONSOLE_4_5_no_wrong_and_another_apps_token) {
  start();
  for (const std::string& request :
       {post("echo", "{}"), get("/v1/commands"), get("/v1/transactions")}) {
    const auto r = ask(request);
    EXPECT_EQ(r.status, 401) << request;
    EXPECT_TRUE(r.headers.contains("www-authenticate"));
  }
  EXPECT_EQ(ask(post("echo", "{}", "Authorization: Bearer wrong\r\n")).status, 401);
  EXPECT_EQ(ask(post("echo", "{}", "Authorization: Basic YTpi\r\n")).status, 401);
  EXPECT_EQ(ask(post("echo", "{}", kBob)).status, 403);
  EXPECT_EQ(ask(get("/v1/transactions", kBob)).status, 403);
  EXPECT_EQ(ask(post("echo", "{}", kBob + "X-Sluice-App: bank\r\n")).status, 200);
  EXPECT_EQ(
      ask(post("echo", "{}", kBob + "X-Sluice-App: bank\r\nX-Sluice-Shadow: true\r\n")).status,
      403);
  EXPECT_EQ(ask(post("echo", "{}", kAnn + "X-Sluice-App: a~shadow\r\n")).status, 400);
}

TEST_F(DoorTest, CONSOLE_3_failures_keep_their_kind) {
  start();
  const auto limited = ask(post("fail", "{}", kAnn));
  EXPECT_EQ(limited.status, 429);
  EXPECT_EQ(limited.headers.at("retry-after"), "2");
  EXPECT_TRUE(limited.has("\"kind\":\"rate_limited\"") && limited.has("\"retryable\":true"));
  EXPECT_TRUE(limited.has("too \\\"many\\\"\\n")) << limited.body;
  const auto pending = ask(post("unsettled", "{}", kAnn));
  EXPECT_EQ(pending.status, 504);
  EXPECT_EQ(pending.headers.at("location"), "/v1/transactions/" + id_to_text(7));
  EXPECT_TRUE(pending.has("\"outcome\":\"pending\""));
  const auto doubt = ask(post("unsettled", "true", kAnn));
  EXPECT_EQ(doubt.status, 202);
  EXPECT_TRUE(doubt.has("\"outcome\":\"in_doubt\""));
}

TEST_F(DoorTest, CONSOLE_1_transactions_are_read_through_the_provider) {
  hooks.transactions = [](TransactionQuery query, RespondJson respond) {
    EXPECT_EQ(query.principal->id, "ann");
    query.lane->post([query, r = std::move(respond)]() mutable {
      if (query.exchange) return r("{\"id\":\"" + to_string(query.exchange) + "\"}");
      r("{\"limit\":" + std::to_string(query.limit) + ",\"state\":\"" + query.state + "\"}");
    });
  };
  start();
  EXPECT_TRUE(ask(get("/v1/transactions/" + id_to_text(77), kAnn)).has(id_to_text(77)));
  EXPECT_EQ(ask(get("/v1/transactions?limit=5&state=in_doubt", kAnn)).body,
            "{\"limit\":5,\"state\":\"in_doubt\"}");
  EXPECT_EQ(ask(get("/v1/transactions/%00", kAnn)).status, 404);
  EXPECT_EQ(ask(get("/v1/transactions?limit=0", kAnn)).status, 400);
}

TEST_F(DoorTest, CONSOLE_10_health_readiness_and_metrics) {
  bool ready = false;
  hooks.ready = [&]() -> Status {
    if (ready) return {};
    return sluice::fail(FailureKind::unavailable, "recovering", "still recovering");
  };
  hooks.metrics = [] { return std::string("up 1\n"); };
  hooks.home = "<p>sluice</p>";
  start();
  EXPECT_EQ(ask(get("/healthz")).status, 200);
  EXPECT_EQ(ask(get("/readyz")).status, 503);
  ready = true;
  EXPECT_EQ(ask(get("/readyz")).status, 200);
  EXPECT_EQ(ask(get("/metrics")).body, "up 1\n");
  EXPECT_EQ(ask(get("/")).body, "<p>sluice</p>");
  HttpClient head(door->port());
  head.send("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_FALSE(head.receive(50)) << "a HEAD has no body";
}

TEST_F(DoorTest, the_deadline_is_the_callers_within_the_bound) {
  Instant deadline{};
  add("when", rpc::KeyUse::none, [&](rpc::Invocation& invocation) {
    deadline = invocation.command.deadline;
    invocation.finish(rpc::Answer::of(Reply::ok("{}")));
  });
  start();
  ask(post("when", "{}", kAnn + "X-Sluice-Deadline-Ms: 250\r\n"));
  EXPECT_EQ(deadline, clock.now() + milliseconds(250));
  ask(post("when", "{}", kAnn + "X-Sluice-Deadline-Ms: 99999999999999999\r\n"));
  EXPECT_EQ(deadline, clock.now() + options.max_deadline);
  deadline = {};
  ask(post("when", "{}", kAnn + "X-Sluice-Deadline-Ms: 18446744073709551616\r\n"));
  EXPECT_EQ(deadline, clock.now() + options.max_deadline) << "2^64";
  EXPECT_EQ(ask(post("when", "{}", kAnn + "X-Sluice-Deadline-Ms: 18446744073709551616s\r\n")).status, 400);
  EXPECT_EQ(ask(post("when", "{}", kAnn + "X-Sluice-Deadline-Ms: -1\r\n")).status, 400);
}

}  // namespace
}  // namespace sluice::transport
