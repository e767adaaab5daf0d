// Idempotent replay by the flow's own key function: FLOW-28 … FLOW-31.
#include <algorithm>

#include "flow_fixture.hpp"

namespace sluice::flow {
namespace {

class KeyedFlow : public FlowTest {
 protected:
  KeyedFlow() {
    options.store = store.get();
    options.keys = keys.get();
    options.observers = {seen};
    options.key = [](const Exchange& x) -> std::optional<std::string> {
      if (x.reference.empty()) return std::nullopt;
      return x.reference;
    };
  }
  ~KeyedFlow() override {
    store->close();
    lane.run_ready();
  }
  ExchangePtr keyed(std::string key, Bytes request = "request") {
    auto x = exchange(std::move(request));
    x->reference = std::move(key);
    return x;
  }
  StagePtr counts(FailureKind declines = FailureKind::none) {
    return func("count", [this, declines](Exchange& x) -> Result<Vote> {
      ++runs;
      if (declines == FailureKind::none) x.respond(Reply::ok("run " + std::to_string(runs)));
      if (declines == FailureKind::rejected) {
        x.respond({.kind = FailureKind::rejected, .code = "no_credit"});
        x.abort("no_credit");
      }
      if (declines == FailureKind::unavailable) return fail(declines, "down", "");
      return Vote();
    });
  }
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  std::unique_ptr<idempotency::Keys> keys =
      std::make_unique<idempotency::Keys>(clock, store.get());
  std::shared_ptr<MemoryObserver> seen = std::make_shared<MemoryObserver>();
  FlowOptions options;
  int runs = 0;
};

TEST_F(KeyedFlow, FLOW_28_a_known_key_is_answered_with_the_stored_reply_and_no_stage_runs) {
  Flow flow("f", options);
  flow.group("main", {counts()});
  const auto first = run(flow, keyed("k"));
  const auto again = run(flow, keyed("k"));
  EXPECT_EQ(runs, 1);
  EXPECT_FALSE(first.replayed);
  EXPECT_TRUE(again.replayed);
  EXPECT_EQ(again.kind, OutcomeKind::committed);
  EXPECT_EQ(again.exchange, first.exchange);
  EXPECT_EQ(again.reply_bytes, first.reply_bytes);
  EXPECT_EQ(again.reply->body, "run 1");
  std::vector<EventKind> kinds;
  for (const auto& event : seen->seen()) kinds.push_back(event.kind);
  EXPECT_EQ(kinds, (std::vector<EventKind>{EventKind::begin, EventKind::committed, EventKind::idempotent_hit}));
}

TEST_F(KeyedFlow, G1_NODE_1_a_key_runs_once_at_nodes_whose_flows_have_two_versions) {
  options.version = 1;
  Flow before("f", options);
  before.group("main", {counts()});
  idempotency::Keys others(clock, store.get());
  FlowOptions next = options;
  next.keys = &others;
  next.version = 2;
  Flow after("f", next);
  after.group("main", {counts(), func("more", [](Exchange&) -> Result<Vote> { return Vote(); })});
  const Outcome at_new = run(after, keyed("new first"));
  const Outcome at_old = run(before, keyed("old first"));
  EXPECT_EQ(run(before, keyed("new first")).reply_bytes, at_new.reply_bytes);
  EXPECT_EQ(run(after, keyed("old first")).reply_bytes, at_old.reply_bytes);
  EXPECT_EQ(runs, 2);
}

TEST_F(KeyedFlow, G1_a_key_that_the_release_before_filed_under_the_version_of_its_flow_is_found) {
  options.version = 3;
  Flow flow("f", options);
  flow.group("main", {counts()});
  for (const std::uint32_t version : {1u, 2u, 3u}) {
    const std::string key = "k" + std::to_string(version);
    store::KeyPut put;
    put.row.exchange = {version};
    put.row.scope = idempotency::make_scope(exchange()->ns(), "", "f", version, key);
    put.row.fingerprint = sha256("request");
    put.row.state = store::KeyState::completed;
    put.row.reply = Reply::ok("before").encode();
    put.ttl = std::chrono::hours(24);
    store::Commit commit;
    commit.then.push_back(std::move(put));
    ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
    EXPECT_EQ(run(flow, keyed(key)).reply->body, "before") << version;
  }
  EXPECT_EQ(runs, 0);
}

TEST_F(KeyedFlow, FLOW_28_without_a_key_every_request_runs) {
  Flow flow("f", options);
  flow.group("main", {counts()});
  run(flow);
  run(flow);
  EXPECT_EQ(runs, 2);
}

TEST_F(KeyedFlow, FLOW_28_another_request_under_the_same_key_is_refused) {
  Flow flow("f", options);
  flow.group("main", {counts()});
  run(flow, keyed("k", "pay 5"));
  const auto other = run(flow, keyed("k", "pay 6"));
  EXPECT_EQ(other.cause->kind(), FailureKind::fingerprint_mismatch);
  EXPECT_EQ(runs, 1);
}

class Slow : public KeyedFlow {
 protected:
  StagePtr slow() {
    return task_func("slow", [this](Exchange& x) -> Task<Result<Vote>> {
      ++runs;
      auto waiting = sleep_for(seconds(1));
      const FailureKind cut = co_await waiting;
      (void)cut;
      x.respond(Reply::ok("done"));
      co_return Vote();
    });
  }
};

TEST_F(Slow, FLOW_29_concurrent_duplicates_run_once_and_all_get_its_reply) {
  Flow flow("f", options);
  flow.group("main", {slow()});
  std::vector<std::shared_ptr<Running>> all;
  for (int i = 0; i < 5; ++i) all.push_back(start(flow, keyed("k")));
  drive([&] { return std::ranges::all_of(all, [](const auto& r) { return r->outcome.has_value(); }); });
  EXPECT_EQ(runs, 1);
  int replayed = 0;
  for (const auto& running : all) {
    EXPECT_EQ(running->outcome->reply->body, "done");
    replayed += running->outcome->replayed ? 1 : 0;
  }
  EXPECT_EQ(replayed, 4);
}

TEST_F(Slow, FLOW_29_or_are_told_in_progress_by_choice) {
  options.key_policy.wait = false;
  Flow flow("f", options);
  flow.group("main", {slow()});
  auto first = start(flow, keyed("k"));
  lane.run_ready();
  const auto second = run(flow, keyed("k"));
  EXPECT_EQ(second.kind, OutcomeKind::pending);
  EXPECT_EQ(second.cause->kind(), FailureKind::in_progress);
  EXPECT_EQ(second.cause->retry_after(), seconds(1)) << "when to come back";
  drive([&] { return first->outcome.has_value(); });
}

TEST_F(Slow, FLOW_29_a_waiter_waits_no_longer_than_its_own_deadline_nor_than_the_bound) {
  options.key_policy.max_wait = milliseconds(600);
  Flow flow("f", options);
  flow.group("main", {slow()});
  const Instant began = clock.now();
  auto first = start(flow, keyed("k"));
  lane.run_ready();
  RunOptions hurried;
  hurried.deadline = began + milliseconds(200);
  auto second = start(flow, keyed("k"), std::move(hurried));
  auto third = start(flow, keyed("k"));
  std::optional<Instant> second_at, third_at;
  drive([&] {
    if (second->outcome && !second_at) second_at = clock.now();
    if (third->outcome && !third_at) third_at = clock.now();
    return first->outcome.has_value();
  });
  ASSERT_TRUE(second_at && third_at);
  EXPECT_GE(*second_at - began, milliseconds(200));
  EXPECT_LT(*second_at - began, milliseconds(220));
  EXPECT_GE(*third_at - began, milliseconds(600));
  EXPECT_LT(*third_at - began, milliseconds(620));
  for (const auto& waiter : {second, third}) {
    EXPECT_EQ(waiter->outcome->kind, OutcomeKind::pending) << "neither committed nor aborted: it runs";
    EXPECT_EQ(waiter->outcome->cause->kind(), FailureKind::in_progress);
    EXPECT_EQ(waiter->outcome->exchange, first->outcome->exchange) << "which one, to ask for";
  }
  EXPECT_EQ(first->outcome->kind, OutcomeKind::committed);
  EXPECT_TRUE(run(flow, keyed("k")).replayed);
  EXPECT_EQ(runs, 1);
}

TEST_F(Slow, FLOW_29_a_waiter_runs_when_the_first_left_nothing_to_tell) {
  Flow flow("f", options);
  flow.group("main", {slow(), func("down", [this](Exchange&) -> Result<Vote> {
                        if (runs == 1) return fail(FailureKind::unavailable, "down", "");
                        return Vote();
                      })});
  auto first = start(flow, keyed("k"));
  auto second = start(flow, keyed("k"));
  drive([&] { return first->outcome && second->outcome; });
  EXPECT_EQ(first->outcome->kind, OutcomeKind::aborted);
  EXPECT_EQ(second->outcome->kind, OutcomeKind::committed);
  EXPECT_FALSE(second->outcome->replayed);
  EXPECT_EQ(runs, 2) << "one after the other";
}

TEST_F(Slow, FLOW_29_a_waiter_whose_caller_leaves_is_answered_at_once) {
  Flow flow("f", options);
  flow.group("main", {slow()});
  auto first = start(flow, keyed("k"));
  auto x = keyed("k");
  auto second = start(flow, x);
  lane.run_ready();
  lane.post([x] { x->scope().cancel(); });
  lane.run_ready();
  ASSERT_TRUE(second->outcome);
  EXPECT_EQ(second->outcome->cause->kind(), FailureKind::cancelled);
  drive([&] { return first->outcome.has_value(); });
  EXPECT_EQ(first->outcome->kind, OutcomeKind::committed);
}

TEST_F(KeyedFlow, FLOW_30_a_decline_with_a_reply_is_remembered) {
  Flow flow("f", options);
  flow.group("main", {counts(FailureKind::rejected)});
  run(flow, keyed("k"));
  const auto again = run(flow, keyed("k"));
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(again.kind, OutcomeKind::aborted);
  EXPECT_EQ(again.reply->code, "no_credit");
}

TEST_F(KeyedFlow, FLOW_30_what_a_retry_may_cure_is_not_remembered) {
  Flow flow("f", options);
  flow.group("main", {counts(FailureKind::unavailable)});
  run(flow, keyed("k"));
  run(flow, keyed("k"));
  EXPECT_EQ(runs, 2);
}

// What the reply says of itself does not matter: a stage set it and declined.
TEST_F(KeyedFlow, FLOW_30_a_decline_is_remembered_whatever_its_kind_and_after_a_restart) {
  for (const auto& row : failure_table()) {
    SCOPED_TRACE(row.name);
    runs = 0;
    Flow flow("f", options);
    flow.group("main", {func("issuer", [&](Exchange& x) -> Result<Vote> {
                          if (++runs > 1) return Vote();  // would be approved now
                          x.respond({.kind = row.kind, .code = "declined", .body = "{}"});
                          x.abort("declined");
                          return Vote();
                        })});
    const std::string key = "k-" + std::string(row.name);
    const Outcome first = run(flow, keyed(key));
    EXPECT_EQ(first.kind, OutcomeKind::aborted);
    const Outcome again = run(flow, keyed(key));
    EXPECT_EQ(again.reply_bytes, first.reply_bytes);
    idempotency::Keys restarted(clock, store.get());
    FlowOptions later = options;
    later.keys = &restarted;
    Flow after("f", later);
    after.group("main", {counts()});
    EXPECT_EQ(run(after, keyed(key)).reply_bytes, first.reply_bytes);
    EXPECT_EQ(runs, 1) << "the retransmitted decline was processed again";
  }
}

TEST_F(KeyedFlow, FLOW_30_in_doubt_is_told_as_such_to_duplicates) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  for (const bool durable : {true, false}) {
    SCOPED_TRACE(durable ? "durable" : "in memory");
    idempotency::Keys memory(clock, nullptr);
    options.store = durable ? store.get() : nullptr;
    options.keys = durable ? keys.get() : &memory;
    record.calls.clear();
    options.key_policy.wait = false;
    Flow flow("f", options);
    flow.group("main", {record.stage("a", Effect::external)});
    const Outcome first = run(flow, keyed("k"));
    EXPECT_EQ(first.kind, OutcomeKind::in_doubt);
    settle_lane();
    for (int retry = 0; retry < 3; ++retry) {
      const Outcome again = run(flow, keyed("k"));
      EXPECT_EQ(again.kind, OutcomeKind::in_doubt);
      if (durable) EXPECT_EQ(again.exchange, first.exchange) << "which one, for the operator";
    }
    EXPECT_EQ(count("a.prepare"), 1u);
  }
}

TEST_F(KeyedFlow, FLOW_31_reply_and_effects_are_one_commit_and_outlive_the_process) {
  Flow flow("f", options);
  flow.group("main", {counts()});
  const auto first = run(flow, keyed("k"));
  EXPECT_EQ(store->stats().commits, 1u);
  idempotency::Keys restarted(clock, store.get());
  options.keys = &restarted;
  Flow after("f", options);
  after.group("main", {counts()});
  const auto again = run(after, keyed("k"));
  EXPECT_TRUE(again.replayed);
  EXPECT_EQ(again.reply_bytes, first.reply_bytes);
  EXPECT_EQ(runs, 1);
}

TEST_F(Slow, FLOW_31_of_two_nodes_the_loser_replays_the_winner) {
  idempotency::Keys other(clock, store.get());
  Flow here("f", options);
  here.group("main", {slow()});
  FlowOptions elsewhere = options;
  elsewhere.keys = &other;
  Flow there("f", elsewhere);
  there.group("main", {slow()});
  auto one = start(here, keyed("k"));
  auto two = start(there, keyed("k"));
  drive([&] { return one->outcome && two->outcome; });
  EXPECT_EQ(runs, 2) << "both prepare, one commits";
  EXPECT_NE(one->outcome->replayed, two->outcome->replayed);
  EXPECT_EQ(one->outcome->exchange, two->outcome->exchange);
  EXPECT_EQ(one->outcome->reply_bytes, two->outcome->reply_bytes);
  lane.run_ready();
}

}  // namespace
}  // namespace sluice::flow
