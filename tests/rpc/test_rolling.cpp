// Nodes of two releases over one store: what one knows of a command, the other need not. A key that names
// no version is one request, whatever node answers it.
#include <deque>

#include "registry_fixture.hpp"
#include "sluice/idempotency/fingerprint.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::rpc {
namespace {

/// As a database that is gone.
class GoneStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  bool ask(store::PendingQuery& pending) override {
    pending.answer = fail(FailureKind::unavailable, "gone", "");
    return true;
  }
};

/// One process: its own keys and registry over the store of all.
class Node {
 public:
  Node(store::Store& store, Clock& clock, Lane& lane, std::uint16_t number)
      : keys(clock, &store), ids(clock, number), registry(store, keys, ids), lane_(lane) {}

  Node& has(std::uint32_t version, bool fail_open = false, std::function<Bytes(const Command&)> projection = {}) {
    CommandSpec spec;
    spec.projection = std::move(projection);
    spec.name = "order.place";
    spec.app = "shop";
    spec.version = version;
    spec.keys.fail_open = fail_open;
    spec.handler = [this, version](Invocation& invocation) {
      ran.push_back(version);
      if (hold) return held.push_back(&invocation);
      finish(invocation, version);
    };
    EXPECT_TRUE(registry.add(std::move(spec)));
    return *this;
  }
  static void finish(Invocation& invocation, std::uint32_t version) {
    store::Commit commit;
    commit.then.push_back(store::KvAdd{{"shop", "stock", "sold"}, 1});
    invocation.finish_with(std::move(commit), Reply::ok("{\"version\":" + std::to_string(version) + "}"));
  }
  Got& send(std::string payload = "{}", std::uint32_t version = 0) {
    auto& invocation = invocations.emplace_back();
    invocation.command.name = "order.place";
    invocation.command.version = version;
    invocation.command.ns = Namespace("shop");
    invocation.command.principal = std::make_shared<Principal>(Principal{"ann", {"shop:*"}, false});
    invocation.command.idempotency_key = "k";
    invocation.command.payload = std::move(payload);
    invocation.lane = &lane_;
    auto& got = answers.emplace_back();
    hear(invocation, got);
    registry.dispatch(invocation);
    while (lane_.run_ready() != 0) {
    }
    return got;
  }

  idempotency::Keys keys;
  IdSource ids;
  Registry registry;
  std::deque<Invocation> invocations;
  std::deque<Got> answers;
  std::vector<std::uint32_t> ran;
  std::deque<Invocation*> held;
  bool hold = false;

 private:
  Lane& lane_;
};

class RollingNodes : public ::testing::Test {
 protected:
  ~RollingNodes() override {
    while (lane.run_ready() != 0) {
    }
    store->close();
  }
  std::unique_ptr<Node> node(std::uint16_t number) { return std::make_unique<Node>(*store, clock, lane, number); }
  std::int64_t sold() {
    const auto rows = store::ask_now(*store, store::GetRows{{{"shop", "stock", "sold"}}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }
  void stored_before(std::uint32_t version, std::string_view payload, std::string_view reply) {
    store::Commit commit;
    store::KeyPut put;
    put.row.exchange = {7};
    put.row.scope = idempotency::make_scope(Namespace("shop"), "ann", "order.place", version, "k");
    put.row.fingerprint = idempotency::fingerprint("order.place", version, payload);
    put.row.state = store::KeyState::completed;
    put.row.reply = Reply::ok(std::string(reply)).encode();
    put.ttl = std::chrono::hours(24);
    commit.then.push_back(std::move(put));
    ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
};

TEST_F(RollingNodes, G1_NODE_1_a_key_without_version_runs_once_whatever_release_answers_the_retry) {
  for (const bool new_one_first : {true, false}) {
    SCOPED_TRACE(new_one_first ? "the new release first" : "the old release first");
    store = testing_support::make_any_store(clock, random);
    const auto old_one = node(1), new_one = node(2);
    old_one->has(1);
    new_one->has(1).has(2);
    Node& first = new_one_first ? *new_one : *old_one;
    Node& then = new_one_first ? *old_one : *new_one;
    const Got& ran = first.send();
    const Got& retry = then.send();
    ASSERT_EQ(ran.answer.kind, Answer::Kind::reply);
    ASSERT_EQ(retry.answer.kind, Answer::Kind::reply) << retry.code();
    EXPECT_TRUE(retry.answer.replayed);
    EXPECT_EQ(*retry.answer.reply, *ran.answer.reply);
    EXPECT_EQ(sold(), 1);
    EXPECT_EQ(first.ran, (std::vector<std::uint32_t>{new_one_first ? 2u : 1u})) << "the newest that the node has";
  }
}

TEST_F(RollingNodes, G1_NODE_1_the_last_of_the_old_version_and_the_first_without_it_share_their_keys) {
  const auto both = node(1), last = node(2);
  both->has(1).has(2);
  last->has(2);
  const Got& ran = both->send();
  EXPECT_EQ(*last->send().answer.reply, *ran.answer.reply);
  EXPECT_EQ(sold(), 1);
}

TEST_F(RollingNodes, G1_NODE_3_at_the_same_moment_at_nodes_of_two_releases_one_of_them_counts) {
  const auto old_one = node(1), new_one = node(2);
  old_one->has(1);
  new_one->has(1).has(2);
  old_one->hold = new_one->hold = true;
  Got& at_old = old_one->send();
  Got& at_new = new_one->send();
  ASSERT_EQ(old_one->held.size() + new_one->held.size(), 2u) << "neither has seen the other";
  Node::finish(*new_one->held.front(), 2);
  Node::finish(*old_one->held.front(), 1);
  while (lane.run_ready() != 0) {
  }
  ASSERT_TRUE(at_old.done && at_new.done);
  EXPECT_TRUE(at_old.answer.replayed);
  EXPECT_EQ(*at_old.answer.reply, *at_new.answer.reply);
  EXPECT_EQ(sold(), 1);
}

TEST_F(RollingNodes, IDEM_5_NODE_1_another_payload_is_refused_by_either_release) {
  const auto old_one = node(1), new_one = node(2);
  old_one->has(1);
  new_one->has(1).has(2);
  new_one->send(R"({"a":1})");
  EXPECT_EQ(old_one->send(R"({"a":2})").code(), "fingerprint_mismatch");
  EXPECT_EQ(new_one->send(R"({"a":2})").code(), "fingerprint_mismatch");
  EXPECT_EQ(old_one->send(R"({ "a" : 1 })").answer.kind, Answer::Kind::reply) << "however its JSON is written";
}

TEST_F(RollingNodes, IDEM_5_NODE_1_a_version_that_covers_more_of_the_payload_is_the_same_request_at_both) {
  const auto first_letter = [](const Command& command) { return command.payload.substr(0, 2); };
  const auto all = [](const Command& command) { return command.payload; };
  for (const bool new_one_first : {true, false}) {
    SCOPED_TRACE(new_one_first);
    store = testing_support::make_any_store(clock, random);
    const auto old_one = node(1), new_one = node(2);
    old_one->has(1, false, first_letter);
    new_one->has(1, false, first_letter).has(2, false, all);
    (new_one_first ? *new_one : *old_one).send(R"({"a":1})");
    EXPECT_TRUE((new_one_first ? *old_one : *new_one).send(R"({"a":1})").answer.replayed);
    EXPECT_EQ(sold(), 1);
  }
}

TEST_F(RollingNodes, IDEM_5_NODE_1_a_payload_that_only_the_later_version_can_read_is_fingerprinted_by_that) {
  const auto of_one = [](const Command& command) -> Bytes {
    if (command.payload.find("a") == Bytes::npos) throw std::runtime_error("no a");
    return command.payload;
  };
  const auto of_two = [](const Command& command) { return command.payload.substr(0, 5); };
  const auto first = node(1), second = node(2);
  for (const auto& one : {first.get(), second.get()}) one->has(1, false, of_one).has(2, false, of_two);
  EXPECT_EQ(first->send(R"({"b":1})").answer.kind, Answer::Kind::reply);
  EXPECT_TRUE(second->send(R"({"b":2})").answer.replayed) << "the same by the later one's projection";
  EXPECT_EQ(second->send(R"({"c":2})").code(), "fingerprint_mismatch");
  EXPECT_EQ(sold(), 1);
}

TEST_F(RollingNodes, G1_keys_that_the_release_before_filed_under_a_version_are_found_without_one) {
  for (const std::uint32_t version : {1u, 2u, 3u}) {
    SCOPED_TRACE(version);
    store = testing_support::make_any_store(clock, random);
    const auto now = node(1);
    now->has(1).has(2).has(3);
    stored_before(version, "{}", R"({"before":true})");
    const Got& retry = now->send();
    ASSERT_EQ(retry.answer.kind, Answer::Kind::reply) << retry.code();
    EXPECT_TRUE(retry.answer.replayed);
    EXPECT_EQ(retry.reply().body, R"({"before":true})");
    EXPECT_TRUE(now->send().answer.replayed) << "from memory";
    EXPECT_TRUE(now->ran.empty());
  }
}

TEST_F(RollingNodes, IDEM_5_of_those_another_payload_is_refused_too) {
  const auto now = node(1);
  now->has(1).has(2);
  stored_before(2, R"({"a":1})", "{}");
  EXPECT_EQ(now->send(R"({"a":2})").code(), "fingerprint_mismatch");
  EXPECT_EQ(now->send(R"({"a":1})").answer.kind, Answer::Kind::reply);
}

TEST_F(RollingNodes, IDEM_11_a_command_of_two_versions_that_fails_open_runs_while_the_store_is_gone) {
  for (const bool fail_open : {true, false}) {
    GoneStore gone(*store);
    Node now(gone, clock, lane, 1);
    now.has(1, fail_open).has(2, fail_open);
    const Got& got = now.send();
    EXPECT_EQ(now.ran.size(), fail_open ? 1u : 0u);
    EXPECT_EQ(got.answer.kind, fail_open ? Answer::Kind::reply : Answer::Kind::failure);
  }
}

}  // namespace
}  // namespace sluice::rpc
