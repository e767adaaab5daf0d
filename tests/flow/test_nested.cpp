// Stages within stages within stages; and what a run leaves to the next: another attempt, another run, another node.
#include "flow/sentences_fixture.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {
namespace {

Result<Vote> go_on(Exchange&) { return Vote(); }

class Nested : public Sentences {
 protected:
  struct Child final : Stage {
    Child(std::vector<std::string>& calls, std::string called, Effect does, std::function<Result<Vote>(Exchange&)> prepares)
        : calls_(calls), name_(std::move(called)), effect_(does), prepare_(std::move(prepares)) {}
    std::string_view name() const noexcept override { return name_; }
    Effect effect() const noexcept override { return effect_; }
    bool has_commit() const noexcept override { return true; }
    bool has_abort() const noexcept override { return true; }
    Result<Vote> prepare(Exchange& x) override {
      note("prepare", x);
      return prepare_(x);
    }
    Status commit(Exchange& x) override {
      note("commit", x);
      return {};
    }
    Status abort(Exchange& x, bool) override {
      note("abort", x);
      return {};
    }
    void note(const char* what, const Exchange& x) { calls_.push_back(name_ + " " + what + " " + x.token().substr(13)); }

   private:
    std::vector<std::string>& calls_;
    std::string name_;
    Effect effect_;
    std::function<Result<Vote>(Exchange&)> prepare_;
  };
  StagePtr child(std::string name, std::function<Result<Vote>(Exchange&)> prepares = go_on, Effect effect = Effect::external) {
    return std::make_shared<Child>(calls, std::move(name), effect, std::move(prepares));
  }
  std::size_t count(std::string_view call) const {
    return static_cast<std::size_t>(std::ranges::count(calls, call));
  }
  std::vector<std::string> calls;
};

TEST_F(Nested, FLOW_20_parallel_in_parallel_commits_and_aborts_each_child_under_its_own_token) {
  for (const bool commits : {true, false}) {
    calls.clear();
    Flow flow("f", {.store = store.get()});
    const auto skips = child("C", [](Exchange&) -> Result<Vote> { return Vote::skip(); });
    flow.group("main", {parallel("outer", {child("A"), parallel("inner", {child("B"), skips, child("D")})}),
                        func("last", [commits](Exchange&) -> Result<Vote> {
                          if (commits) return Vote();
                          return fail(FailureKind::rejected, "no", "");
                        })});
    EXPECT_EQ(run(flow).kind, commits ? OutcomeKind::committed : OutcomeKind::aborted);
    const std::string then = commits ? " commit " : " abort ";
    for (const char* which : {"A", "B", "D"}) {
      const std::string token = which[0] == 'A' ? ".0.1" : which[0] == 'B' ? ".0.2.1" : ".0.2.3";
      EXPECT_EQ(count(which + (" prepare " + token)), 1u) << ::testing::PrintToString(calls);
      EXPECT_EQ(count(which + then + token), 1u) << ::testing::PrintToString(calls);
    }
    EXPECT_EQ(calls.size(), 7u) << "who votes skip has no second phase: " << ::testing::PrintToString(calls);
  }
}

TEST_F(Nested, FLOW_13_what_only_an_earlier_attempt_of_parallel_began_is_aborted_all_the_same) {
  Flow flow("f", {.store = store.get()});
  int attempts = 0;
  auto check = task_func("check", [&attempts](Exchange&) -> Task<Result<Vote>> {
    Result<Vote> vote = fail(FailureKind::rejected, "sold_out", "");
    if (++attempts == 1) {
      auto waiting = sleep_for(seconds(1));
      (void)co_await waiting;
      vote = fail(FailureKind::unavailable, "later", "");
    }
    co_return vote;
  }, Effect::none);
  flow.group("main", {retry(parallel("both", {check, child("reserve")}), random)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  EXPECT_EQ(attempts, 2);
  EXPECT_EQ(count("reserve prepare .0.2"), 1u) << "the second attempt did not reach it";
  EXPECT_EQ(count("reserve abort .0.2"), 1u);
}

TEST_F(Nested, FLOW_17_a_stage_that_clears_the_draft_it_was_given_harms_nobody) {
  Flow flow("f", {.store = store.get()});
  int attempts = 0;
  const auto clears = func("clears", [&attempts](Exchange& x) -> Result<Vote> {
    x.draft().clear();
    if (++attempts == 1) return fail(FailureKind::unavailable, "", "");
    return Vote();
  });
  flow.group("main", {func("adds", [](Exchange& x) -> Result<Vote> {
                        x.draft().add(at("ann"), 1);
                        return Vote();
                      }),
                      retry(clears, random), parallel("both", {clears, func("other", go_on)})});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
}

TEST_F(Nested, FLOW_9_a_decline_of_a_run_that_is_repeated_is_asked_for_anew) {
  Flow flow("f", {.store = store.get()});
  int runs = 0;
  flow.group("main", {func("first", [&](Exchange& x) -> Result<Vote> {
                        ++runs;
                        SLUICE_TRY(x.read(at("a")));
                        return Vote();
                      }),
                      parallel("both", {task_func("reads", [&](Exchange& x) -> Task<Result<Vote>> {
                                          if (runs == 1) deposit("a", 1);
                                          auto row = x.read(at("b"));
                                          Result<Vote> vote = Vote();
                                          if (!row) vote = fail(row.error());
                                          auto waiting = sleep_for(milliseconds(5));
                                          (void)co_await waiting;
                                          co_return vote;
                                        }),
                                        func("limit", [](Exchange& x) -> Result<Vote> {
                                          x.respond({.kind = FailureKind::rejected, .code = "over_limit"});
                                          x.abort("over_limit");
                                          return Vote();
                                        })})});
  const Outcome outcome = run(flow);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  ASSERT_TRUE(outcome.reply);
  EXPECT_EQ(outcome.reply->code, "over_limit");
}

TEST_F(Nested, FLOW_9_FLOW_21_who_set_the_response_of_a_pause_is_known_after_a_restart) {
  for (const bool restart : {false, true}) {
    store = testing_support::make_any_store(clock, random);
    keys = std::make_unique<idempotency::Keys>(clock, store.get());
    std::string token;
    int runs = 0;
    const auto make = [&] {
      auto flow = std::make_unique<Flow>("f", keyed(*store, *keys));
      flow->group("main", {func("ask", [&](Exchange& x) -> Result<Vote> {
        ++runs;
        if (x.wake() != nullptr) return fail(FailureKind::unavailable, "host_down", "");
        x.respond({.kind = FailureKind::rejected, .code = "not_approved"});
        token = x.token();
        SLUICE_TRY(x.expect_wake(token));
        return Vote::pause(seconds(600));
      })});
      return flow;
    };
    auto flow = make();
    auto first = start(*flow, exchange());
    settle_lane();
    if (restart) {
      flow.reset();
      keys = std::make_unique<idempotency::Keys>(clock, store.get());
      flow = make();
      recover(*flow);
    }
    ASSERT_TRUE(wake(*flow, token));
    settle_lane();
    const Outcome again = run(*flow);
    EXPECT_TRUE(again.replayed) << restart;
    ASSERT_TRUE(again.reply) << restart;
    EXPECT_EQ(again.reply->code, "not_approved");
    EXPECT_EQ(runs, 2) << "asked, and woken";
    flow.reset();
  }
}

TEST_F(Nested, FLOW_28_IDEM_5_of_two_nodes_with_one_key_the_loser_is_told_the_winner_or_that_it_asked_otherwise) {
  for (const bool same : {true, false}) {
    store = testing_support::make_any_store(clock, random);
    keys = std::make_unique<idempotency::Keys>(clock, store.get());
    idempotency::Keys other(clock, store.get());
    const auto make = [&](idempotency::Keys& of) {
      auto flow = std::make_unique<Flow>("f", keyed(*store, of));
      flow->group("main", {task_func("slow", [](Exchange& x) -> Task<Result<Vote>> {
        auto waiting = sleep_for(seconds(1));
        (void)co_await waiting;
        x.respond(Reply::ok("paid " + x.request()));
        Result<Vote> vote = Vote();
        co_return vote;
      })});
      return flow;
    };
    auto here = make(*keys), there = make(other);
    auto first = start(*here, exchange("5"));
    settle_lane();
    auto second = start(*there, exchange(same ? "5" : "6000"));
    drive([&] { return first->outcome && second->outcome; });
    EXPECT_EQ(first->outcome->kind, OutcomeKind::committed);
    if (same) {
      EXPECT_EQ(second->outcome->kind, OutcomeKind::committed);
      EXPECT_TRUE(second->outcome->replayed);
      ASSERT_TRUE(second->outcome->reply);
      EXPECT_EQ(second->outcome->reply->body, "paid 5");
    } else {
      EXPECT_EQ(second->outcome->kind, OutcomeKind::aborted);
      EXPECT_FALSE(second->outcome->replayed);
      EXPECT_FALSE(second->outcome->reply) << second->outcome->reply->body;
      ASSERT_TRUE(second->outcome->cause);
      EXPECT_EQ(second->outcome->cause->kind(), FailureKind::fingerprint_mismatch);
    }
    settle_lane();
    here.reset();
    there.reset();
  }
}

TEST_F(Nested, IDEM_7_what_no_store_takes_is_refused_and_stays_refused) {
  for (const bool outside : {false, true}) {
    calls.clear();
    store = testing_support::make_any_store(clock, random);
    keys = std::make_unique<idempotency::Keys>(clock, store.get());
    deposit("ann", INT64_MAX - 5);
    Flow flow("f", keyed(*store, *keys));
    std::vector<StagePtr> stages;
    if (outside) stages.push_back(child("bank"));
    stages.push_back(func("add", [this](Exchange& x) -> Result<Vote> {
      calls.push_back("add");
      x.draft().add(at("ann"), 10);
      x.respond(Reply::ok("added"));
      return Vote();
    }));
    flow.group("main", std::move(stages));
    const Outcome first = run(flow);
    settle_lane();
    EXPECT_EQ(first.kind, OutcomeKind::aborted) << outside;
    ASSERT_TRUE(first.cause);
    EXPECT_EQ(first.cause->code(), "number_overflow");
    EXPECT_EQ(count("bank abort .0"), outside ? 1u : 0u);
    deposit("ann", -100);
    const Outcome again = run(flow);
    EXPECT_TRUE(again.replayed) << outside;
    EXPECT_EQ(again.kind, OutcomeKind::aborted);
    EXPECT_EQ(count("add"), 1u);
  }
}

TEST_F(Nested, FLOW_24_the_graph_hash_tells_whose_children_are_whose) {
  const auto leaf = [](const char* name) { return func(name, go_on); };
  Flow one("f"), other("f");
  one.group("m", {parallel("p", {parallel("q", {leaf("A")}), leaf("B")})});
  other.group("m", {parallel("p", {parallel("q", {leaf("A"), leaf("B")})})});
  EXPECT_NE(one.graph_hash(), other.graph_hash());
}

}  // namespace
}  // namespace sluice::flow
