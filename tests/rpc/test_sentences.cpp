// Sentences of the specification at their edges, through the registry.
#include <algorithm>

#include "sentences_fixture.hpp"
#include "sluice/flow/recovery.hpp"
#include "sluice/idempotency/fingerprint.hpp"
#include "sluice/rpc/flow_handler.hpp"

namespace sluice::rpc {
namespace {

TEST_F(RegistrySentences, IDEM_7_in_doubt_pending_and_unknown_are_never_run_again_by_a_retry) {
  for (int kind = 0; kind < 3; ++kind) {
    SCOPED_TRACE(kind);
    runs = 0;
    restart();
    ASSERT_TRUE(registry->add(spec([&](Invocation& i) {
      ++runs;
      if (kind == 0) return i.finish(Answer::in_doubt(i.exchange()));
      if (kind == 1) return i.finish(Answer::pending(i.exchange()));
      i.finish(Answer::of(Failure(FailureKind::unknown_outcome, "lost", "")));
    })));
    send("k" + std::to_string(kind));
    send("k" + std::to_string(kind));
    EXPECT_EQ(runs, 1);
  }
}

TEST_F(RegistrySentences, IDEM_7_a_transaction_elsewhere_that_is_not_settled_is_told_by_its_status_not_as_a_replay) {
  constexpr ExchangeId kElsewhere{77};
  for (const auto kind : {Answer::Kind::in_doubt, Answer::Kind::pending}) {
    restart();
    ASSERT_TRUE(registry->add(spec([&](Invocation& i) {
      i.finish(kind == Answer::Kind::pending ? Answer::pending(kElsewhere) : Answer::in_doubt(kElsewhere));
    })));
    const std::string key = kind == Answer::Kind::pending ? "p" : "d";
    for (int attempt = 0; attempt < 3; ++attempt) {
      if (attempt == 2) {  // from the store
        restart();
        ASSERT_TRUE(registry->add(spec([](Invocation& i) { i.finish(Answer::of(Reply::ok("{}"))); })));
      }
      const Got& got = send(key);
      ASSERT_TRUE(got.done);
      EXPECT_EQ(got.answer.kind, kind) << attempt;
      EXPECT_EQ(got.answer.exchange, kElsewhere) << attempt;
      EXPECT_FALSE(got.answer.replayed) << attempt;
    }
  }
}

/// Loses the first Commit, written or not, and then says nothing until it is told to.
class LostDecision final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  bool written = false, back = false;
  int seen = 0;
  void submit(store::PendingCommit& pending) override {
    if (back) return inner_.submit(pending);
    if (seen++ == 0 && written) (void)store::commit_and_wait(inner_, pending.commit);
    pending.outcome = fail(FailureKind::unknown_outcome, "", "lost");
    pending.lane->post(pending);
  }
};

TEST_F(RegistrySentences, G3_FLOW_22_a_store_that_never_said_is_told_as_unknown_and_the_retry_gets_the_truth) {
  for (const bool written : {true, false}) {
    SCOPED_TRACE(written ? "it was written" : "it was lost");
    restart();
    LostDecision lost(store);
    lost.written = written;
    flow::FlowOptions options;
    options.store = &lost;
    flow::Flow flow("place", options);
    flow.group("main", {flow::func("add", [this](flow::Exchange& exchange) -> Result<flow::Vote> {
                 ++runs;
                 exchange.draft().add({"shop", "stock", "a"}, 1);
                 exchange.respond(Reply::ok("{\"placed\":true}"));
                 return flow::Vote::continue_();
               })});
    ASSERT_TRUE(registry->add(spec(flow_handler(flow))));
    runs = 0;
    const std::string key = written ? "w" : "l";
    const Got& told = send(key);
    ASSERT_EQ(told.answer.kind, Answer::Kind::failure) << "in doubt is what is listed and can be settled";
    EXPECT_EQ(told.answer.failure->kind(), FailureKind::unknown_outcome);
    EXPECT_EQ(told.code(), "decision_unknown");
    EXPECT_NE(told.answer.failure->detail().find("same idempotency key"), std::string_view::npos) << told.answer.failure->detail();
    ASSERT_TRUE(told.answer.exchange);
    EXPECT_THAT(told.answer.failure->details(), ::testing::Contains(std::pair<std::string, std::string>("transaction", to_string(told.answer.exchange))));
    EXPECT_TRUE(store::ask_now(store, store::ListOpen{})->empty());

    lost.back = true;
    const auto view = flow::describe(store, told.answer.exchange);
    EXPECT_EQ(view ? view->outcome : std::string(view.error().code()), written ? "committed" : "no_transaction");
    const Got& retry = send(key);
    ASSERT_EQ(retry.answer.kind, Answer::Kind::reply);
    EXPECT_EQ(retry.answer.replayed, written);
    EXPECT_EQ(runs, written ? 1 : 2);
    EXPECT_EQ(store::ask_now(store, store::GetRows{{{"shop", "stock", "a"}}})->at(0)->number, written ? 1 : 2);
  }
}

// Another node finishes the key, with another payload, between this one's look and its Commit.
TEST_F(RegistrySentences, IDEM_5_NODE_3_who_loses_its_key_to_another_request_is_not_given_its_reply) {
  ASSERT_TRUE(registry->add(spec([&](Invocation& invocation) {
    store::Commit commit;
    commit.then.push_back(store::KvAdd{{"shop", "stock", "a"}, 1});
    invocation.finish_with(std::move(commit), Reply::ok("{\"mine\":true}"));
  })));
  flow::FlowOptions options;
  options.store = &store;
  options.keys = keys.get();
  options.ids = &ids;
  flow::Flow flow("place", options);
  flow.group("main", {flow::func("add", [](flow::Exchange& exchange) -> Result<flow::Vote> {
               exchange.draft().add({"shop", "stock", "a"}, 1);
               exchange.respond(Reply::ok("{\"mine\":true}"));
               return flow::Vote::continue_();
             })});
  ASSERT_TRUE(registry->add(spec(flow_handler(flow), 2)));
  for (std::uint32_t version : {1u, 2u}) {
    SCOPED_TRACE(version == 1 ? "a commit of its own" : "a flow");
    store.before = [&] {
      store.before = nullptr;
      store::Commit theirs;
      store::KeyPut put;
      put.row.scope = idempotency::make_scope(Namespace("shop"), "ann", "order.place", version, "k");
      put.row.fingerprint = idempotency::fingerprint("order.place", version, R"({"other":1})");
      put.row.exchange = ids.exchange();
      put.row.state = store::KeyState::completed;
      put.row.reply = Reply::ok("{\"theirs\":true}").encode();
      put.ttl = std::chrono::hours(1);
      theirs.then.emplace_back(std::move(put));
      ASSERT_TRUE(store::commit_and_wait(*inner, std::move(theirs)));
    };
    const Got& got = send("k", false, version);
    ASSERT_TRUE(got.done);
    EXPECT_EQ(got.code(), "fingerprint_mismatch");
  }
  const auto rows = store::ask_now(*inner, store::GetRows{{{"shop", "stock", "a"}}});
  EXPECT_FALSE(rows->at(0)) << "nothing of them took effect";
}

// The caller's own branch is applied without the key: a retry after a restart applies it again.
TEST_F(RegistrySentences, IDEM_7_a_refusal_with_a_branch_is_stored_with_the_branch) {
  const Handler handler = [&](Invocation& invocation) {
    ++runs;
    store::Commit commit;
    commit.requires_.push_back({store::KvAtLeast{{"shop", "stock", "a"}, 1}, "sold_out", 0});
    commit.otherwise.push_back({store::KvAdd{{"shop", "waiting_list", "a"}, 1}});
    invocation.finish_with(std::move(commit), Reply::ok("{}"));
  };
  ASSERT_TRUE(registry->add(spec(handler)));
  send();
  restart();
  ASSERT_TRUE(registry->add(spec(handler)));
  send();
  const auto rows = store::ask_now(*inner, store::GetRows{{{"shop", "waiting_list", "a"}}});
  EXPECT_EQ(rows->at(0)->number, 1) << "the branch took effect twice under one key";
  EXPECT_EQ(runs, 1);
}

/// One permit; who comes later queues.
class Queue final : public Gatekeeper {
 public:
  void enter(Invocation& invocation) override {
    if (inside_) return queue_.push_back(&invocation);
    inside_ = true;
    invocation.entered({});
  }
  void leave(Invocation&) noexcept override { inside_ = false; }
  bool forget(Invocation& invocation) noexcept override { return std::erase(queue_, &invocation) != 0; }
  std::size_t queued() const { return queue_.size(); }
  void let_all_in() {
    for (auto* invocation : std::exchange(queue_, {})) invocation->entered({});
  }

 private:
  bool inside_ = false;
  std::deque<Invocation*> queue_;
};

TEST_F(RegistrySentences, NODE_5_a_duplicate_is_told_that_its_key_runs_while_the_store_says_nothing) {
  Invocation* running = nullptr;
  auto placed = spec([&](Invocation& i) { running = &i; });
  placed.keys.wait = false;
  ASSERT_TRUE(registry->add(std::move(placed)));
  Got& first = send("k");
  store.silent = true;
  Got& again = send("k");
  EXPECT_FALSE(again.done) << "whether the first is in doubt is asked, without holding up the lane";
  clock.advance(seconds(1));
  lane.run_ready();
  ASSERT_TRUE(again.done) << "but not for longer than a moment";
  EXPECT_EQ(again.code(), "in_progress");
  EXPECT_EQ(again.answer.failure->retry_after(), seconds(1));
  store.answer_late();
  running->finish(Answer::of(Reply::ok("{}")));
  while (lane.run_ready() != 0) {
  }
  EXPECT_TRUE(first.done);
}

TEST_F(RegistrySentences, IDEM_6_a_duplicate_of_a_running_key_is_told_so_before_it_queues) {
  Queue queue;
  registry->set_gatekeeper(&queue);
  Invocation* running = nullptr;
  auto placed = spec([&](Invocation& i) { running = &i; });
  placed.keys.wait = false;
  ASSERT_TRUE(registry->add(std::move(placed)));
  Got& first = send("k");
  Got& other = send("other");
  ASSERT_FALSE(other.done) << "there is one permit";
  Got& again = send("k");
  EXPECT_EQ(queue.queued(), 1u) << "a duplicate holds no place";
  EXPECT_TRUE(again.done);
  EXPECT_EQ(again.code(), "in_progress");
  running->finish(Answer::of(Reply::ok("{}")));
  while (lane.run_ready() != 0) {
  }
  EXPECT_TRUE(first.done);
  registry->set_gatekeeper(nullptr);
  queue.let_all_in();
  running->finish(Answer::of(Reply::ok("{}")));
  while (lane.run_ready() != 0) {
  }
  EXPECT_TRUE(other.done);
}

TEST_F(RegistrySentences, IDEM_3_who_waits_behind_an_unknown_commit_asks_the_store_before_it_runs) {
  ASSERT_TRUE(registry->add(spec([&](Invocation& i) {
    ++runs;
    i.finish(Answer::of(Reply::ok("{}")));
  })));
  store.at = 0;
  Got& first = send("k");
  Got& second = send("k");
  ASSERT_FALSE(second.done);
  store.tell();
  while (lane.run_ready() != 0) {
  }
  ASSERT_TRUE(first.done && second.done);
  EXPECT_EQ(first.answer.failure->kind(), FailureKind::unknown_outcome);
  EXPECT_TRUE(second.answer.replayed) << "the Commit had happened";
  EXPECT_EQ(runs, 1);
}

TEST_F(RegistrySentences, G1_a_retry_without_version_keeps_the_version_its_key_was_used_with) {
  const auto handler = [&](Invocation& i) {
    ++runs;
    i.finish(Answer::of(Reply::ok("{}")));
  };
  ASSERT_TRUE(registry->add(spec(handler)));
  send("k");
  restart();  // version 2 is deployed beside version 1
  ASSERT_TRUE(registry->add(spec(handler)));
  ASSERT_TRUE(registry->add(spec(handler, 2)));
  EXPECT_TRUE(send("k").answer.replayed);
  EXPECT_EQ(runs, 1) << "the retry ran again under version 2";
  EXPECT_FALSE(send("new").answer.replayed);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(invocations.back().command.version, 2u) << "new keys belong to the newest";
}

TEST_F(RegistrySentences, IDEM_4_a_retry_without_version_is_authorised_as_what_would_run_now) {
  const auto handler = [&](Invocation& i) { i.finish(Answer::of(Reply::ok("{}"))); };
  ASSERT_TRUE(registry->add(spec(handler)));
  send("k");
  for (const char* needed : {"legacy", "order.place"}) {
    restart();
    ASSERT_TRUE(registry->add(spec(handler)));
    auto next = spec(handler, 2);
    next.permission = needed;
    ASSERT_TRUE(registry->add(next));
    const Got& got = send("k");
    EXPECT_EQ(got.code(), needed == std::string_view("legacy") ? "forbidden" : "");
    EXPECT_EQ(got.answer.replayed, needed != std::string_view("legacy"));
  }
}

}  // namespace
}  // namespace sluice::rpc
