// A database that stands still costs each caller its deadline and no more; what was asked of it is settled when
// it goes on.
#include <algorithm>

#include "registry_fixture.hpp"
#include "sluice/flow/recovery.hpp"
#include "sluice/rpc/flow_handler.hpp"
#include "support/silent_store.hpp"

namespace sluice::rpc {
namespace {

constexpr Duration kPatience = milliseconds(500);

class Deadlines : public ::testing::Test {
 protected:
  Deadlines() {
    CommandSpec sell;
    sell.name = "order.sell";
    sell.app = "shop";
    sell.handler = [this](Invocation& invocation) {
      ++runs;
      silent.silent = stands_still;
      store::Commit commit;
      commit.requires_.push_back({store::KvAtLeast{{"shop", "stock", "a"}, 0}, "closed"});
      if (refused) commit.requires_.back().what = store::KvAtLeast{{"shop", "stock", "a"}, 100};
      commit.then.push_back(store::KvAdd{{"shop", "stock", "a"}, 1});
      invocation.finish_with(std::move(commit), Reply::ok("{\"run\":" + std::to_string(runs) + "}"));
    };
    EXPECT_TRUE(registry.add(std::move(sell)));
    CommandSpec look;
    look.name = "order.look";
    look.app = "shop";
    look.idempotency = KeyUse::none;
    look.handler = [this](Invocation& invocation) { invocation.run_task(read(silent)); };
    EXPECT_TRUE(registry.add(std::move(look)));
    CommandSpec place;
    place.name = "order.place";
    place.app = "shop";
    place.idempotency = KeyUse::optional;
    flow.group("main", {flow::task_func("read", &place_stage), flow::func("add", [this](flow::Exchange& x) -> Result<flow::Vote> {
                          ++runs;
                          silent.silent = stands_still;
                          x.draft().add({"shop", "stock", "a"}, 1);
                          return flow::Vote();
                        })});
    place.handler = flow_handler(flow);
    EXPECT_TRUE(registry.add(std::move(place)));
  }
  ~Deadlines() override {
    turn();
    store->close();
  }
  static Task<Answer> read(store::Store& from) {
    store::GetRows query;
    query.keys.push_back({"shop", "stock", "a"});
    auto asking = store::ask(from, std::move(query));
    const auto rows = co_await asking;
    if (!rows) co_return Answer::of(rows.error());
    const Reply reply = Reply::ok("{}");
    co_return Answer::of(reply);
  }
  void turn() {
    while (lane.run_ready() != 0) {
    }
  }
  void pass(Duration time) {
    clock.advance(time);
    turn();
  }
  Got& send(std::string name, std::optional<std::string> key = "k") {
    auto& invocation = invocations.emplace_back();
    invocation.command.name = std::move(name);
    invocation.command.version = 0;
    invocation.command.ns = Namespace("shop");
    invocation.command.principal = std::make_shared<Principal>(Principal{"ann", {"shop:*"}, false});
    invocation.command.idempotency_key = std::move(key);
    invocation.command.payload = "{}";
    invocation.command.deadline = clock.now() + kPatience;
    invocation.lane = &lane;
    auto& got = answers.emplace_back();
    invocation.owner = &got;
    invocation.done = [](Invocation& i, Answer answer) noexcept {
      auto* g = static_cast<Got*>(i.owner);
      EXPECT_FALSE(g->done) << "answered twice";
      g->done = true;
      g->answer = std::move(answer);
      i.reset();  // as a connection does for its next request
    };
    registry.dispatch(invocation);
    turn();
    return got;
  }
  std::int64_t stock() {
    const auto rows = store::ask_now(*store, store::GetRows{{{"shop", "stock", "a"}}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }

  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  testing_support::SilentStore silent{*store};
  idempotency::Keys keys{clock, &silent};
  IdSource ids{clock, 1};
  Registry registry{silent, keys, ids};
  flow::Flow flow{"place", {.store = &silent}};
  std::deque<Invocation> invocations;
  std::deque<Got> answers;
  int runs = 0;
  bool refused = false;
  bool stands_still = false;  ///< once a handler or stage runs

 private:
  static Task<Result<flow::Vote>> place_stage(flow::Exchange& x) {
    auto reading = x.read_task({"shop", "stock", "a"});
    const auto row = co_await reading;
    if (!row) {
      Result<flow::Vote> failed = fail(row.error());
      co_return failed;
    }
    Result<flow::Vote> on = flow::Vote();
    co_return on;
  }
};

TEST_F(Deadlines, NODE_6_a_commit_that_is_not_answered_is_pending_at_the_deadline_and_its_key_is_settled_later) {
  stands_still = true;
  Got& told = send("order.sell");
  pass(kPatience - milliseconds(1));
  EXPECT_FALSE(told.done);
  pass(milliseconds(1));
  ASSERT_TRUE(told.done);
  EXPECT_EQ(told.answer.kind, Answer::Kind::pending);
  ASSERT_TRUE(told.answer.exchange);
  // The claim stays: nobody runs it a second time meanwhile.
  Got& retry = send("order.sell");
  pass(kPatience);
  ASSERT_TRUE(retry.done);
  EXPECT_EQ(retry.code(), "in_progress");
  Got& waits = send("order.sell");
  EXPECT_FALSE(waits.done);
  silent.go_on();
  turn();
  ASSERT_TRUE(waits.done) << "settled as soon as it is known";
  EXPECT_TRUE(waits.answer.replayed);
  EXPECT_EQ(waits.answer.exchange, told.answer.exchange);
  EXPECT_EQ(flow::describe(*store, told.answer.exchange)->outcome, "committed") << "what the pending caller can look up";
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(stock(), 1);
}

TEST_F(Deadlines, NODE_6_one_that_failed_after_all_frees_its_key_and_leaves_its_row) {
  stands_still = true;
  Got& told = send("order.sell");
  pass(kPatience);
  ASSERT_EQ(told.answer.kind, Answer::Kind::pending);
  silent.fails = true;
  silent.go_on();
  turn();
  stands_still = false;
  Got& retry = send("order.sell");
  ASSERT_EQ(retry.answer.kind, Answer::Kind::reply);
  EXPECT_FALSE(retry.answer.replayed);
  EXPECT_EQ(stock(), 1);
  registry.audit({});  // whatever waits is written with it
  turn();
  const auto rows = store::ask_now(*store, store::ListAudit{});
  EXPECT_TRUE(std::ranges::any_of(*rows, [&](const auto& row) { return row.exchange == told.answer.exchange && row.detail == "store_locked"; }));
}

TEST_F(Deadlines, IDEM_7_a_refusal_that_comes_after_the_deadline_is_the_stored_reply) {
  stands_still = refused = true;
  Got& told = send("order.sell");
  pass(kPatience);
  ASSERT_EQ(told.answer.kind, Answer::Kind::pending);
  silent.go_on();
  turn();
  Got& retry = send("order.sell");
  ASSERT_TRUE(retry.answer.replayed);
  EXPECT_EQ(retry.reply().code, "closed");
  EXPECT_EQ(runs, 1);
}

TEST_F(Deadlines, G1_NODE_3_a_key_that_another_node_won_meanwhile_is_replayed_after_the_deadline) {
  stands_still = true;
  Got& told = send("order.sell");
  pass(kPatience);
  ASSERT_EQ(told.answer.kind, Answer::Kind::pending);
  idempotency::Keys others(clock, store.get());
  Registry other(*store, others, ids);
  CommandSpec sell;
  sell.name = "order.sell";
  sell.app = "shop";
  sell.handler = [](Invocation& invocation) { invocation.finish(Answer::of(Reply::ok("{\"other\":true}"))); };
  ASSERT_TRUE(other.add(std::move(sell)));
  Invocation there;
  there.command.name = "order.sell";
  there.command.version = 0;
  there.command.ns = Namespace("shop");
  there.command.principal = std::make_shared<Principal>(Principal{"ann", {"shop:*"}, false});
  there.command.idempotency_key = "k";
  there.command.payload = "{}";
  there.lane = &lane;
  there.done = [](Invocation&, Answer) noexcept {};
  other.dispatch(there);
  turn();
  silent.go_on();
  turn();
  Got& retry = send("order.sell");
  ASSERT_TRUE(retry.answer.replayed);
  EXPECT_EQ(retry.reply().body, "{\"other\":true}");
  EXPECT_EQ(stock(), 0) << "ours was refused whole";
}

TEST_F(Deadlines, NODE_6_a_key_that_cannot_be_looked_up_and_a_read_that_is_not_answered_time_out_at_the_deadline) {
  silent.silent = true;
  for (const char* name : {"order.sell", "order.look", "order.place"}) {
    SCOPED_TRACE(name);
    Got& told = name == std::string_view("order.sell") ? send(name) : send(name, std::nullopt);
    pass(kPatience - milliseconds(10));
    EXPECT_FALSE(told.done);
    pass(milliseconds(10));
    ASSERT_TRUE(told.done);
    ASSERT_EQ(told.answer.kind, Answer::Kind::failure);
    EXPECT_EQ(told.answer.failure->kind(), FailureKind::timeout) << "nothing took effect";
  }
  EXPECT_EQ(runs, 0);
  EXPECT_GE(silent.waiting(), 3u);
  silent.go_on();  // answered to nobody
  turn();
  EXPECT_EQ(send("order.look", std::nullopt).answer.kind, Answer::Kind::reply);
  EXPECT_EQ(send("order.sell").answer.kind, Answer::Kind::reply);
}

TEST_F(Deadlines, FLOW_11_a_decision_that_the_store_does_not_take_is_pending_by_the_deadline) {
  stands_still = true;
  Got& told = send("order.place");
  pass(kPatience);
  ASSERT_TRUE(told.done);
  EXPECT_EQ(told.answer.kind, Answer::Kind::pending);
  silent.go_on();
  turn();
  EXPECT_TRUE(send("order.place").answer.replayed);
  EXPECT_EQ(stock(), 1);
}

}  // namespace
}  // namespace sluice::rpc
