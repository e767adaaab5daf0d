// Whose a key is (IDEM-1), and what stays under it (IDEM-7).
#include "rpc/registry_fixture.hpp"

namespace sluice::rpc {
namespace {

TEST_F(RegistryTest, IDEM_1_a_key_without_a_principal_is_refused_and_nothing_runs) {
  auto s = spec();
  s.anonymous = true;
  s.idempotency = KeyUse::optional;
  ASSERT_TRUE(registry.add(s));
  for (const bool nameless : {false, true}) {
    auto& invocation = make("order.place", "k");
    invocation.command.principal = nameless ? std::make_shared<Principal>() : nullptr;
    EXPECT_EQ(send(invocation).code(), "key_needs_principal");
  }
  EXPECT_EQ(runs, 0);
  auto& keyless = make("order.place", std::nullopt);
  keyless.command.principal = nullptr;
  EXPECT_EQ(send(keyless).answer.kind, Answer::Kind::reply);
}

TEST_F(RegistryTest, IDEM_1_anonymous_callers_share_nothing_but_by_an_explicit_client_id) {
  auto s = spec();
  s.anonymous = true;
  s.client_id = [](const Command& command) { return std::string(command.payload); };
  ASSERT_TRUE(registry.add(s));
  const auto ask = [&](std::string client, bool as_ann = false) -> Got& {
    auto& invocation = make("order.place", "k", std::move(client));
    if (!as_ann) invocation.command.principal = nullptr;
    return send(invocation);
  };
  EXPECT_FALSE(ask("\"phone-1\"").answer.replayed);
  EXPECT_FALSE(ask("\"phone-2\"").answer.replayed) << "another client's";
  EXPECT_TRUE(ask("\"phone-1\"").answer.replayed);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(ask("").code(), "key_needs_client_id");
  EXPECT_EQ(ask(std::string(256, 'c')).code(), "key_needs_client_id");
  EXPECT_FALSE(ask("ann").answer.replayed);
  EXPECT_FALSE(ask("ann", true).answer.replayed) << "a client that calls itself ann is not her";
  EXPECT_EQ(runs, 4);
}

// Who asks about a request is the application; its throw is this request's failure.
TEST_F(RegistryTest, G6_functions_of_a_command_that_throw_fail_their_request_alone) {
  const auto thrower = [](const Command&) -> std::string { throw std::runtime_error("no such member"); };
  for (const int which : {0, 1, 2}) {
    auto s = spec("order.f" + std::to_string(which));
    s.anonymous = true;
    if (which == 0) s.projection = thrower;
    if (which == 1) s.ordering_key = thrower;
    if (which == 2) s.client_id = thrower;
    ASSERT_TRUE(registry.add(s));
    auto& invocation = make(s.name, "k");
    if (which == 2) invocation.command.principal = nullptr;
    EXPECT_EQ(send(invocation).code(), "exception") << which;
  }
  EXPECT_EQ(runs, 0);
  ASSERT_TRUE(registry.add(spec()));
  EXPECT_EQ(send(make("order.place", "k")).answer.kind, Answer::Kind::reply);
}

/// Who asks for what: each combination has entries of its own.
struct Asking {
  const char* what;
  std::string principal = "ann";
  std::string command = "order.place";
  Namespace ns = Namespace("shop");
  std::uint32_t version = 1;
  std::string key = "k";
};

TEST_F(RegistryTest, IDEM_1_one_key_of_two_principals_commands_apps_or_versions_is_two_keys) {
  for (const char* name : {"order.place", "order.cancel"})
    for (const std::uint32_t version : {1u, 2u}) {
      auto s = spec(name);
      s.version = version;
      s.handler = [this](Invocation& invocation) {
        ++runs;
        invocation.finish(Answer::of(Reply::ok("{\"run\":" + std::to_string(runs) + "}")));
      };
      ASSERT_TRUE(registry.add(s));
    }
  const std::vector<Asking> all{{"the first"},
                                {.what = "another principal", .principal = "bob"},
                                {.what = "a principal whose name runs into the command's", .principal = "annorder"},
                                {.what = "another command", .command = "order.cancel"},
                                {.what = "another app", .ns = Namespace("shop2")},
                                {.what = "shadow traffic", .ns = Namespace("shop", true)},
                                {.what = "another version", .version = 2},
                                {.what = "another key", .key = "k2"}};
  const auto ask = [&](const Asking& one) -> Got& {
    auto& invocation = make(one.command, one.key);
    invocation.command.principal = std::make_shared<Principal>(Principal{one.principal, {"*:*"}, true});
    invocation.command.ns = one.ns;
    invocation.command.version = one.version;
    return send(invocation);
  };
  std::vector<Bytes> replies;
  for (const auto& one : all) {
    auto& got = ask(one);
    ASSERT_EQ(got.answer.kind, Answer::Kind::reply) << one.what << ": " << got.code();
    EXPECT_FALSE(got.answer.replayed) << one.what << " was told somebody else's reply";
    replies.push_back(*got.answer.reply);
  }
  EXPECT_EQ(runs, static_cast<int>(all.size()));
  for (std::size_t i = 0; i < all.size(); ++i) {
    auto& again = ask(all[i]);
    EXPECT_TRUE(again.answer.replayed) << all[i].what;
    EXPECT_EQ(*again.answer.reply, replies[i]) << all[i].what;
  }
}

// What may have happened or is decided is told as it is; what nothing came of is free again.
TEST_F(RegistryTest, IDEM_7_of_a_failure_the_table_decides_and_what_may_have_happened_is_never_run_again) {
  for (const auto& row : failure_table()) {
    if (row.kind == FailureKind::none) continue;
    SCOPED_TRACE(row.name);
    auto s = spec("order." + std::string(row.name));
    s.handler = [&](Invocation& invocation) {
      ++runs;
      invocation.finish(Answer::of(Failure(row.kind, "said_so", "detail")));
    };
    ASSERT_TRUE(registry.add(s));
    runs = 0;
    auto& first = send(make(s.name, "k"));
    auto& again = send(make(s.name, "k"));
    const bool unsettled = row.kind == FailureKind::unknown_outcome || row.kind == FailureKind::in_doubt || row.kind == FailureKind::pending;
    const bool stays = row.remember == Remember::store || unsettled;
    EXPECT_EQ(runs, stays ? 1 : 2);
    EXPECT_EQ(again.answer.replayed, stays);
    if (!stays) {
      EXPECT_EQ(again.code(), "said_so");
      continue;
    }
    ASSERT_EQ(first.answer.kind, Answer::Kind::reply);
    EXPECT_EQ(*again.answer.reply, *first.answer.reply);
    EXPECT_EQ(again.reply().kind, row.kind);
    EXPECT_EQ(again.reply().code, "said_so");
  }
}

TEST_F(RegistryTest, IDEM_7_a_refused_precondition_is_the_stored_reply) {
  auto s = spec();
  s.handler = [&](Invocation& invocation) {
    ++runs;
    store::Commit commit;
    commit.requires_.push_back({store::KvAtLeast{{"shop", "stock", "a"}, 1}, "sold_out", -1});
    commit.then.emplace_back(store::KvAdd{{"shop", "stock", "a"}, -1});
    invocation.finish_with(std::move(commit), Reply::ok("{}"));
  };
  ASSERT_TRUE(registry.add(s));
  auto& got = send(make("order.place", "k"));
  ASSERT_EQ(got.answer.kind, Answer::Kind::reply);
  EXPECT_EQ(got.reply().kind, FailureKind::precondition_failed);
  EXPECT_EQ(got.reply().code, "sold_out");
  auto& again = send(make("order.place", "k"));
  EXPECT_TRUE(again.answer.replayed);
  EXPECT_EQ(*again.answer.reply, *got.answer.reply);
  EXPECT_EQ(runs, 1);
  const auto key = store::ask_now(*store, store::FindKey{idempotency::make_scope(
                                              Namespace("shop"), "ann", "order.place", 1, "k")});
  ASSERT_TRUE(key && *key);
  EXPECT_EQ((*key)->reply, *got.answer.reply);
}

TEST_F(RegistryTest, CONSOLE_6_the_row_of_a_replay_names_the_transaction_that_earned_the_reply) {
  ASSERT_TRUE(registry.add(spec()));
  send(make("order.place", "k"));
  send(make("order.place", "k"));
  // As after a restart: the reply is the store's alone.
  idempotency::Keys forgetful(clock, store.get());
  Registry again(*store, forgetful, ids);
  ASSERT_TRUE(again.add(spec()));
  EXPECT_TRUE(send(make("order.place", "k"), again).answer.replayed);
  const auto rows = audit();
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_TRUE(rows[2].exchange);
  for (const auto& row : {rows[0], rows[1]}) {
    EXPECT_EQ(row.outcome, store::AuditOutcome::replayed);
    EXPECT_EQ(row.exchange, rows[2].exchange);
  }
}

}  // namespace
}  // namespace sluice::rpc
