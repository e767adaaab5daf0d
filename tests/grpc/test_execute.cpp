// What a client of sluice.v1.Commands is told, over real channels.
#include "grpc/grpc_fixture.hpp"

namespace sluice::transport {
namespace {

TEST_F(GrpcTest, CONSOLE_1_a_command_is_answered_with_its_reply) {
  start();
  const auto r = execute("echo", "{\"a\":[1]}", CallOptions().with("x-correlation-id", "abc-1"));
  ASSERT_TRUE(r.status.ok()) << r.status.error_message();
  EXPECT_EQ(r.body, "{\"echo\":{\"a\":[1]}}");
  EXPECT_EQ(r.trailing.at("x-correlation-id"), "abc-1");
  EXPECT_TRUE(r.trailing.contains("x-sluice-transaction"));
  EXPECT_FALSE(r.trailing.contains("idempotency-replayed"));
  EXPECT_EQ(execute("echo", "").body, "{\"echo\":{}}");
}

TEST_F(GrpcTest, IDEM_4_a_duplicate_is_byte_identical_through_both_doors) {
  start();
  start_http();
  const auto first = execute("place", "{}", CallOptions().with("idempotency-key", "k-1"));
  ASSERT_TRUE(first.status.ok()) << first.status.error_message();
  const auto second = execute("place", "{}", CallOptions().with("idempotency-key", "\"k-1\""));
  EXPECT_EQ(first.body, "{\"run\":1}");
  EXPECT_EQ(second.wire, first.wire);
  EXPECT_FALSE(first.trailing.contains("idempotency-replayed"));
  EXPECT_EQ(second.trailing.at("idempotency-replayed"), "true");
  test::HttpClient client(http->port());
  const auto over_http = client.ask(test::post(
      "place", "{}", "Authorization: Bearer ann-token\r\nIdempotency-Key: k-1\r\n"));
  ASSERT_TRUE(over_http);
  EXPECT_EQ(over_http->body, first.body) << "one key, one reply, whatever the door";
  EXPECT_EQ(over_http->headers.at("idempotency-replayed"), "true");
  EXPECT_EQ(runs, 1);

  const auto other = execute("place", "[]", CallOptions().with("idempotency-key", "k-1"));
  EXPECT_EQ(other.status.error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_EQ(other.failure().kind(), FailureKind::fingerprint_mismatch);
  EXPECT_EQ(runs, 1);
}

TEST_F(GrpcTest, IDEM_4_a_stored_refusal_is_told_again_with_its_data) {
  start();
  const auto first = execute("decline", "{}", CallOptions().with("idempotency-key", "d"));
  const auto second = execute("decline", "{}", CallOptions().with("idempotency-key", "d"));
  EXPECT_EQ(second.status.error_details(), first.status.error_details()) << "byte for byte";
  EXPECT_EQ(first.failure().kind(), FailureKind::rejected);
  EXPECT_EQ(first.failure().code(), "no_funds");
  EXPECT_EQ(first.status.error_message(), "the account is empty");
  EXPECT_EQ(second.status.error_code(), first.status.error_code());
  EXPECT_EQ(second.status.error_message(), first.status.error_message());
  EXPECT_EQ(second.trailing.at("idempotency-replayed"), "true");
  std::string data;
  const Failure told = second.failure();
  for (const auto& [key, value] : told.details())
    if (key == "data") data = value;
  EXPECT_EQ(data, "{\"balance\":0}");
  EXPECT_EQ(runs, 1);
}

TEST_F(GrpcTest, IDEM_6_missing_and_malformed_keys_are_invalid) {
  start();
  EXPECT_EQ(execute("place", "{}").failure().code(), "idempotency_key_required");
  for (const std::string& key : {std::string("\"open"), std::string("\"a\"b"), std::string(),
                                 std::string(256, 'k')}) {
    const auto r = execute("place", "{}", CallOptions().with("idempotency-key", key));
    EXPECT_EQ(r.status.error_code(), grpc::INVALID_ARGUMENT) << key;
    EXPECT_EQ(r.failure().code(), "bad_idempotency_key");
  }
  CallOptions twice = CallOptions().with("idempotency-key", "a");
  twice.seen = [](grpc::ClientContext& context) { context.AddMetadata("idempotency-key", "b"); };
  EXPECT_EQ(execute("place", "{}", twice).failure().code(), "repeated_header");
  EXPECT_EQ(runs, 0);
}

TEST_F(GrpcTest, CONSOLE_9_what_is_no_json_no_message_or_too_long_is_told) {
  options.max_message_bytes = 4096;
  start();
  const auto r = execute("echo", "{\"a\":1,}");
  EXPECT_EQ(r.status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(r.failure().code(), "bad_json");
  EXPECT_NE(r.status.error_message().find("line 1, column 8"), std::string::npos);
  EXPECT_EQ(execute("echo", std::string(65, '[') + std::string(65, ']')).failure().code(),
            "json_too_deep");
  const auto large = execute("echo", "\"" + std::string(5000, 'x') + "\"");
  EXPECT_EQ(large.status.error_code(), grpc::RESOURCE_EXHAUSTED);

  const grpc::Slice garbage("\xFF\xFF\xFF garbage");
  grpc::ByteBuffer request(&garbage, 1), reply;
  const auto broken = ask("/sluice.v1.Commands/Execute", request, reply);
  EXPECT_EQ(broken.status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(broken.failure().code(), "bad_message");
  EXPECT_TRUE(execute("echo", "{}").status.ok()) << "the connection goes on";
}

TEST_F(GrpcTest, CONSOLE_2_unknown_names_versions_and_methods) {
  start();
  EXPECT_EQ(execute("nothing", "{}").failure().code(), "unknown_command");
  EXPECT_EQ(execute("nothing", "{}").status.error_code(), grpc::NOT_FOUND);
  CallOptions nine;
  nine.version = 9;
  EXPECT_EQ(execute("echo", "{}", nine).failure().code(), "unsupported_version");
  v1::ExecuteRequest request;
  v1::ExecuteReply reply;
  EXPECT_EQ(ask("/sluice.v1.Commands/Nothing", request, reply).status.error_code(),
            grpc::UNIMPLEMENTED);
}

TEST_F(GrpcTest, CONSOLE_2_CONSOLE_6_a_stranger_is_told_nothing_and_leaves_a_row) {
  hooks.name_of = [](std::string_view token) { return std::string(token == "old-token" ? "till" : ""); };
  start();
  CallOptions none, old;
  none.metadata.clear();
  old.metadata["authorization"] = "Bearer old-token";
  EXPECT_EQ(execute("nothing", "{", none).failure().code(), "unauthenticated");
  EXPECT_EQ(execute("nothing", "{", old).failure().code(), "unknown_token");
  EXPECT_EQ(execute("nothing", "{}").failure().code(), "unknown_command");
  const auto has = [&](const std::string& principal, store::AuditOutcome outcome, const std::string& code) {
    for (const auto& row : *store::ask_now(*store, store::ListAudit{}))
      if (row.principal == principal && row.command == "nothing" && row.outcome == outcome && row.detail.starts_with(code)) return true;
    return false;
  };
  EXPECT_TRUE(has("", store::AuditOutcome::denied, "unauthenticated from ipv4:127.0.0.1:"));
  EXPECT_TRUE(has("till", store::AuditOutcome::denied, "unknown_token from "));
  EXPECT_TRUE(has("ann", store::AuditOutcome::error, "unknown_command"));
}

TEST_F(GrpcTest, IDEM_5_a_payload_is_one_request_on_every_door_however_it_is_written) {
  start();
  const auto key = [] { return CallOptions().with("idempotency-key", "k"); };
  ASSERT_TRUE(execute("place", R"({"b":1,"a":"x"})", key()).status.ok());
  EXPECT_TRUE(execute("place", R"({"a": "\u0078", "b": 1})", key()).status.ok());
  EXPECT_EQ(execute("place", R"({"a": "x", "b": 2})", key()).failure().code(), "fingerprint_mismatch");
  EXPECT_EQ(execute("place", R"({"a": "x", "a": 2})", key()).failure().code(), "repeated_member");
  start_http();
  test::HttpClient client(http->port());
  const auto over_http = client.ask(
      test::post("place", R"( {"b":1, "a":"x"} )", "Authorization: Bearer ann-token\r\nIdempotency-Key: k\r\n"));
  ASSERT_TRUE(over_http);
  EXPECT_EQ(over_http->status, 200) << over_http->body;
  EXPECT_EQ(runs, 1);
}

TEST_F(GrpcTest, CONSOLE_4_5_no_wrong_and_another_apps_token) {
  start();
  const auto as = [](const std::string& header) {
    CallOptions with;
    with.metadata["authorization"] = header;
    return with;
  };
  CallOptions none;
  none.metadata.clear();
  EXPECT_EQ(execute("echo", "{}", none).status.error_code(), grpc::UNAUTHENTICATED);
  EXPECT_EQ(execute("echo", "{}", as("Bearer wrong")).failure().code(), "unknown_token");
  EXPECT_EQ(execute("echo", "{}", as("Basic YTpi")).failure().code(), "bad_authorization");
  EXPECT_EQ(execute("echo", "{}", as("Bearer bob-token")).status.error_code(),
            grpc::PERMISSION_DENIED);
  const auto bank = as("Bearer bob-token").with("x-sluice-app", "bank");
  EXPECT_TRUE(execute("echo", "{}", bank).status.ok());
  auto shadow = bank;
  shadow.metadata["x-sluice-shadow"] = "true";
  EXPECT_EQ(execute("echo", "{}", shadow).status.error_code(), grpc::PERMISSION_DENIED);
  EXPECT_EQ(execute("echo", "{}", CallOptions().with("x-sluice-shadow", "maybe")).failure().code(),
            "bad_shadow");
}

TEST_F(GrpcTest, CONSOLE_3_failures_keep_kind_code_details_and_retry_time) {
  start();
  const auto limited = execute("fail", "{}");
  EXPECT_EQ(limited.status.error_code(), grpc::RESOURCE_EXHAUSTED);
  const Failure failure = limited.failure();
  EXPECT_EQ(failure.kind(), FailureKind::rate_limited);
  EXPECT_EQ(failure.code(), "slow_down");
  EXPECT_EQ(failure.detail(), "too \"many\"\n");
  EXPECT_EQ(failure.retry_after(), milliseconds(1500));
  bool limit = false;
  for (const auto& [key, value] : failure.details()) limit |= key == "limit" && value == "7";
  EXPECT_TRUE(limit);
}

TEST_F(GrpcTest, pending_and_in_doubt_name_the_transaction) {
  start();
  const auto pending = execute("unsettled", "{}");
  EXPECT_EQ(pending.status.error_code(), grpc::DEADLINE_EXCEEDED);
  EXPECT_EQ(pending.failure().kind(), FailureKind::pending);
  EXPECT_EQ(pending.trailing.at("x-sluice-transaction"), id_to_text(7));
  const auto doubt = execute("unsettled", "true");
  EXPECT_EQ(doubt.status.error_code(), grpc::UNKNOWN);
  EXPECT_EQ(doubt.failure().kind(), FailureKind::in_doubt);
  EXPECT_EQ(doubt.trailing.at("x-sluice-transaction"), id_to_text(7));
}

TEST_F(GrpcTest, CONSOLE_1_metadata_reaches_the_command) {
  start();
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  auto with = CallOptions().with("traceparent", trace).with("x-sluice-shadow", "1");
  with.within = seconds(7);
  ASSERT_TRUE(execute("context", "{}", with).status.ok());
  EXPECT_EQ(seen.trace, trace);
  EXPECT_TRUE(seen.ns.shadow());
  EXPECT_EQ(seen.ns.app(), "shop");
  EXPECT_EQ(seen.principal->id, "ann");
  EXPECT_LE(left, milliseconds(7500)) << "the wire rounds up";
  EXPECT_GT(left, seconds(1));
  with.within = seconds(100'000);
  ASSERT_TRUE(execute("context", "{}", with).status.ok());
  EXPECT_LE(left, options.max_deadline);
}

}  // namespace
}  // namespace sluice::transport
