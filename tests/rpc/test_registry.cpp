// The registry's checks, in their order, on a lane that the test drives by hand.
#include "rpc/registry_fixture.hpp"
#include "sluice/idempotency/fingerprint.hpp"

namespace sluice::rpc {
namespace {

TEST_F(RegistryTest, CONSOLE_2_unknown_name_and_version_are_told_apart) {
  ASSERT_TRUE(registry.add(spec()));
  EXPECT_EQ(send(make("order.nothing", "k")).code(), "unknown_command");
  auto& other = make("order.place", "k");
  other.command.version = 7;
  auto& got = send(other);
  EXPECT_EQ(got.code(), "unsupported_version");
  EXPECT_EQ(got.answer.failure->kind(), FailureKind::invalid_argument);
  EXPECT_EQ(runs, 0);
}

TEST_F(RegistryTest, CONSOLE_2_registration_refuses_what_cannot_be_served) {
  ASSERT_TRUE(registry.add(spec()));
  EXPECT_EQ(registry.add(spec()).error().kind(), FailureKind::already_exists);
  EXPECT_EQ(registry.add(spec("Bad Name")).error().code(), "bad_command_name");
  auto none = spec("order.none");
  none.handler = nullptr;
  EXPECT_EQ(registry.add(none).error().code(), "no_handler");
  EXPECT_NE(registry.describe().find("\"name\":\"order.place\""), std::string::npos);
}

TEST_F(RegistryTest, CONSOLE_5_default_deny_and_denials_are_audited) {
  ASSERT_TRUE(registry.add(spec("stock.count")));
  EXPECT_EQ(send(make("stock.count", "k")).code(), "forbidden");
  auto& anonymous = make("stock.count", "k");
  anonymous.command.principal = nullptr;
  EXPECT_EQ(send(anonymous).code(), "unauthenticated");
  principal->permissions = {"bank:*", "shop", ":", "*"};
  EXPECT_EQ(send(make("stock.count", "k")).code(), "forbidden") << "another app's credentials";
  EXPECT_EQ(runs, 0);
  const auto rows = audit();
  ASSERT_EQ(rows.size(), 3u);
  for (const auto& row : rows) EXPECT_EQ(row.outcome, store::AuditOutcome::denied);
  principal->permissions = {"sh*:*.count"};
  EXPECT_EQ(send(make("stock.count", "k")).answer.kind, Answer::Kind::reply);
}

TEST_F(RegistryTest, CONSOLE_5_shadow_traffic_needs_a_permission) {
  ASSERT_TRUE(registry.add(spec()));
  auto& shadow = make("order.place", "k");
  shadow.command.ns = Namespace("shop", true);
  EXPECT_EQ(send(shadow).code(), "shadow_forbidden");
  principal->may_shadow = true;
  auto& again = make("order.place", "k");
  again.command.ns = Namespace("shop", true);
  EXPECT_EQ(send(again).answer.kind, Answer::Kind::reply);
}

TEST_F(RegistryTest, IDEM_6_a_missing_or_malformed_key_is_refused) {
  ASSERT_TRUE(registry.add(spec()));
  EXPECT_EQ(send(make("order.place", std::nullopt)).code(), "idempotency_key_required");
  EXPECT_EQ(send(make("order.place", "")).code(), "bad_idempotency_key");
  EXPECT_EQ(send(make("order.place", std::string(256, 'k'))).code(), "bad_idempotency_key");
  EXPECT_EQ(send(make("order.place", "a\nb")).code(), "bad_idempotency_key");
  EXPECT_EQ(runs, 0);
}

// One row, in the Commit that decides: neither lost with a crash nor doubled by the batch.
TEST_F(RegistryTest, CONSOLE_6_what_is_finished_with_a_commit_is_audited_in_it) {
  auto s = spec();
  bool refused = false;
  s.idempotency = KeyUse::optional;
  s.handler = [&](Invocation& invocation) {
    store::Commit commit;
    if (refused) commit.requires_.push_back({store::KvAtLeast{{"shop", "stock", "a"}, 1}, "sold_out", -1});
    invocation.finish_with(std::move(commit), Reply::ok("{}"));
  };
  ASSERT_TRUE(registry.add(s));
  for (int round = 0; round < 2; ++round) {
    refused = round == 1;
    const auto commits = store->stats().commits;
    send(make("order.place", "k" + std::to_string(round)));
    EXPECT_EQ(store->stats().commits, commits + 1) << "one Commit, and no other for the row";
    const auto rows = audit();
    ASSERT_EQ(rows.size(), static_cast<std::size_t>(round) + 1);
    EXPECT_EQ(rows[0].outcome, refused ? store::AuditOutcome::error : store::AuditOutcome::ok);
    EXPECT_EQ(rows[0].detail, refused ? "sold_out" : "");
    EXPECT_EQ(rows[0].principal, "ann");
  }
  // Without a key nothing is stored of a refusal but its row, which used to be forgotten.
  send(make("order.place", std::nullopt));
  ASSERT_EQ(audit().size(), 3u);
  EXPECT_EQ(audit()[0].outcome, store::AuditOutcome::error);
  EXPECT_EQ(audit()[0].detail, "sold_out");
}

TEST_F(RegistryTest, CONSOLE_6_a_refusal_with_a_branch_of_its_own_is_audited_once) {
  auto s = spec();
  s.idempotency = KeyUse::optional;
  s.handler = [&](Invocation& invocation) {
    store::Commit commit;
    commit.otherwise.push_back({store::KvAdd{{"shop", "refused", "a"}, 1}});
    commit.requires_.push_back({store::KvAtLeast{{"shop", "stock", "a"}, 1}, "sold_out", 0});
    invocation.finish_with(std::move(commit), Reply::ok("{}"));
  };
  ASSERT_TRUE(registry.add(s));
  send(make("order.place", "k"));
  ASSERT_EQ(audit().size(), 1u);
  EXPECT_EQ(audit()[0].detail, "sold_out");
  send(make("order.place", std::nullopt));
  ASSERT_EQ(audit().size(), 2u);
  EXPECT_EQ(audit()[0].detail, "sold_out");
}

TEST_F(RegistryTest, CONSOLE_9_a_payload_past_the_commands_bound_is_refused) {
  auto s = spec();
  s.max_payload = 8;
  ASSERT_TRUE(registry.add(s));
  EXPECT_EQ(send(make("order.place", "k", "\"123456789\"")).code(), "payload_too_large");
}

TEST_F(RegistryTest, IDEM_4_a_duplicate_gets_the_same_bytes_and_is_audited_as_a_replay) {
  ASSERT_TRUE(registry.add(spec()));
  auto& first = send(make("order.place", "k"));
  auto& second = send(make("order.place", "k"));
  ASSERT_EQ(second.answer.kind, Answer::Kind::reply);
  EXPECT_FALSE(first.answer.replayed);
  EXPECT_TRUE(second.answer.replayed);
  EXPECT_EQ(*first.answer.reply, *second.answer.reply);
  EXPECT_EQ(first.answer.exchange, second.answer.exchange);
  EXPECT_EQ(runs, 1);
  const auto rows = audit();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].outcome, store::AuditOutcome::replayed);
  EXPECT_EQ(rows[1].outcome, store::AuditOutcome::ok);
}

TEST_F(RegistryTest, IDEM_4_a_replay_is_authorised_first) {
  ASSERT_TRUE(registry.add(spec()));
  send(make("order.place", "k"));
  principal->permissions.clear();
  EXPECT_EQ(send(make("order.place", "k")).code(), "forbidden");
}

TEST_F(RegistryTest, IDEM_5_the_same_key_with_another_payload_runs_nothing) {
  ASSERT_TRUE(registry.add(spec()));
  send(make("order.place", "k", "{\"n\":1}"));
  auto& got = send(make("order.place", "k", "{\"n\":2}"));
  EXPECT_EQ(got.code(), "fingerprint_mismatch");
  EXPECT_EQ(got.answer.failure->traits().http_status, 422);
  EXPECT_EQ(runs, 1);
}

TEST_F(RegistryTest, IDEM_5_the_same_payload_written_otherwise_is_the_same_request) {
  ASSERT_TRUE(registry.add(spec()));
  send(make("order.place", "k", R"({"a":1,"b":"A"})"));
  EXPECT_TRUE(send(make("order.place", "k", " { \"b\" : \"\\u0041\",\n\"a\":1}")).answer.replayed);
  EXPECT_EQ(send(make("order.place", "k", R"({"a":1.0,"b":"A"})")).code(), "fingerprint_mismatch");
  EXPECT_EQ(runs, 1);
}

// What was stored under the bytes as they were sent is found by whoever sends those bytes again.
TEST_F(RegistryTest, IDEM_5_a_key_stored_by_an_earlier_version_is_found_by_the_same_bytes) {
  ASSERT_TRUE(registry.add(spec()));
  const std::string sent = R"({"b": 2, "a": 1})";
  store::Commit commit;
  store::KeyPut put;
  put.row.scope = idempotency::make_scope(Namespace("shop"), "ann", "order.place", 1, "k");
  put.row.fingerprint = idempotency::fingerprint("order.place", 1, sent);
  put.row.exchange = ids.exchange();
  put.row.state = store::KeyState::completed;
  put.row.reply = Reply::ok("{\"from\":\"before\"}").encode();
  put.ttl = std::chrono::hours(1);
  commit.then.emplace_back(std::move(put));
  ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
  for (const char* where : {"from the store", "from memory"}) {
    auto& got = send(make("order.place", "k", sent));
    lane.run_ready();
    ASSERT_TRUE(got.done) << where;
    EXPECT_TRUE(got.answer.replayed) << where << ": " << got.code();
    EXPECT_EQ(send(make("order.place", "k", R"({"b": 3, "a": 1})")).code(), "fingerprint_mismatch") << where;
  }
  EXPECT_EQ(runs, 0);
}

TEST_F(RegistryTest, IDEM_5_the_declared_projection_is_what_counts) {
  auto s = spec();
  s.projection = [](const Command& c) { return c.payload.substr(0, 3); };
  ASSERT_TRUE(registry.add(s));
  send(make("order.place", "k", "[1,2]"));
  EXPECT_TRUE(send(make("order.place", "k", "[1,3]")).answer.replayed);
}

TEST_F(RegistryTest, IDEM_3_a_concurrent_duplicate_waits_and_gets_the_first_ones_reply) {
  ASSERT_TRUE(registry.add(spec()));
  hold = true;
  auto& first = send(make("order.place", "k"));
  auto& second = send(make("order.place", "k"));
  EXPECT_FALSE(first.done);
  EXPECT_FALSE(second.done);
  answer_next("{\"id\":9}");
  lane.run_ready();
  lane.run_ready();
  ASSERT_TRUE(first.done && second.done);
  EXPECT_TRUE(second.answer.replayed);
  EXPECT_EQ(*first.answer.reply, *second.answer.reply);
  EXPECT_EQ(runs, 1);
}

TEST_F(RegistryTest, IDEM_6_a_command_may_answer_duplicates_at_once) {
  auto s = spec();
  s.keys.wait = false;
  ASSERT_TRUE(registry.add(s));
  hold = true;
  send(make("order.place", "k"));
  auto& second = send(make("order.place", "k"));
  EXPECT_EQ(second.code(), "in_progress");
  EXPECT_EQ(second.answer.failure->retry_after(), seconds(1)) << "when to come back";
  answer_next("{}");
}

TEST_F(RegistryTest, CONSOLE_3_a_throw_is_an_answer) {
  auto s = spec();
  s.handler = [&](Invocation&) {
    ++runs;
    throw std::runtime_error("boom");
  };
  ASSERT_TRUE(registry.add(s));
  auto& got = send(make("order.place", "k"));
  ASSERT_TRUE(got.done);
  EXPECT_EQ(runs, 1);
}

TEST_F(RegistryTest, FLOW_29_cancelling_a_waiting_duplicate_leaves_the_first_alone) {
  ASSERT_TRUE(registry.add(spec()));
  hold = true;
  auto& first = send(make("order.place", "k"));
  auto& waiting = make("order.place", "k");
  auto& second = send(waiting);
  waiting.scope.cancel(FailureKind::cancelled);
  EXPECT_EQ(second.code(), "cancelled");
  answer_next("{}");
  lane.run_ready();
  EXPECT_EQ(first.answer.kind, Answer::Kind::reply);
}

TEST_F(RegistryTest, CONSOLE_1_a_task_may_be_the_handler) {
  auto s = spec();
  const auto work = [this](Task<int>* child) -> Task<Answer> {
    co_await sleep_for(milliseconds(5));
    ++runs;
    (void)child;
    co_return Answer::of(Reply::ok("{\"slept\":5}"));
  };
  s.handler = [&](Invocation& invocation) { invocation.run_task(work(nullptr)); };
  ASSERT_TRUE(registry.add(s));
  auto& got = send(make("order.place", "k"));
  EXPECT_FALSE(got.done);
  clock.advance(milliseconds(10));
  lane.run_ready();
  lane.run_ready();
  ASSERT_TRUE(got.done);
  EXPECT_EQ(got.reply().body, "{\"slept\":5}");
}

// A gate with one permit, to see who holds it when.
class OnePermit final : public Gatekeeper {
 public:
  void enter(Invocation& invocation) override {
    if (refuse) return invocation.entered(fail(FailureKind::overloaded, "full", "no permits"));
    ++inside;
    invocation.entered({});
  }
  void leave(Invocation&) noexcept override { --inside; }
  bool forget(Invocation&) noexcept override { return false; }
  int inside = 0;
  bool refuse = false;
};

TEST_F(RegistryTest, IDEM_3_waiting_duplicates_hold_no_permit) {
  ASSERT_TRUE(registry.add(spec()));
  OnePermit gate;
  registry.set_gatekeeper(&gate);
  hold = true;
  send(make("order.place", "k"));
  EXPECT_EQ(gate.inside, 1);
  auto& second = send(make("order.place", "k"));
  EXPECT_EQ(gate.inside, 1) << "the duplicate gave its permit back";
  held.front()->finish(Answer::of(Failure(FailureKind::unavailable, "later", "")));
  held.pop_front();
  lane.run_ready();
  lane.run_ready();
  EXPECT_EQ(runs, 2) << "the released key runs the waiter as new";
  EXPECT_EQ(gate.inside, 1);
  answer_next("{}");
  lane.run_ready();
  EXPECT_EQ(second.answer.kind, Answer::Kind::reply);
  EXPECT_EQ(gate.inside, 0);
  gate.refuse = true;
  EXPECT_EQ(send(make("order.place", "other")).code(), "full");
}

}  // namespace
}  // namespace sluice::rpc
