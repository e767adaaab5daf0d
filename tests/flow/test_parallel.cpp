// FLOW-20: children of parallel() that have something to undo, on a store, and through a crash.
#include <stdexcept>

#include "sentences_fixture.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {
namespace {

using Calls = std::vector<std::string>;

/// Waits, then votes as told; writes down what was called.
class Waits final : public Stage {
 public:
  using Ends = std::function<Result<Vote>(Exchange&)>;
  Waits(Recorder& record, std::string name, Duration time, Ends ends)
      : record_(record), name_(std::move(name)), time_(time), ends_(std::move(ends)) {}
  std::string_view name() const noexcept override { return name_; }
  Effect effect() const noexcept override { return Effect::external; }
  bool asynchronous() const noexcept override { return true; }
  bool has_commit() const noexcept override { return true; }
  bool has_abort() const noexcept override { return true; }
  Task<Result<Vote>> prepare_task(Exchange& x) override {
    record_.calls.push_back(name_ + ".prepare");
    auto waiting = sleep_for(time_);
    const FailureKind cut = co_await waiting;
    Result<Vote> vote = Vote();
    if (cut != FailureKind::none) {
      record_.calls.push_back(name_ + " cut");
      vote = fail(FailureKind::cancelled, "cut", "");
    } else {
      vote = ends_(x);
    }
    co_return vote;
  }
  Status commit(Exchange&) override {
    record_.calls.push_back(name_ + ".commit");
    return {};
  }
  Status abort(Exchange&, bool prepared) override {
    record_.calls.push_back(name_ + (prepared ? ".abort(1)" : ".abort(0)"));
    return {};
  }

 private:
  Recorder& record_;
  std::string name_;
  Duration time_;
  Ends ends_;
};

class Parallel : public Sentences {
 protected:
  StagePtr waits(std::string name, Duration time, Waits::Ends ends = [](Exchange&) -> Result<Vote> { return Vote(); }) {
    return std::make_shared<Waits>(record, std::move(name), time, std::move(ends));
  }
  /// Calls of the second phase alone.
  Calls undone() const {
    Calls calls;
    for (const auto& call : record.calls)
      if (call.find(".abort") != std::string::npos || call.find(".commit") != std::string::npos) calls.push_back(call);
    return calls;
  }
};

TEST_F(Parallel, FLOW_20_however_a_child_fails_the_rest_are_cancelled_and_all_that_began_are_aborted) {
  const std::vector<std::pair<std::string, Waits::Ends>> ways{
      {"refused", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "refused", ""); }},
      {"aborted",
       [](Exchange& x) -> Result<Vote> {
         x.abort("over_limit");
         return Vote();
       }},
      {"exception", [](Exchange&) -> Result<Vote> { throw std::runtime_error("boom"); }},
  };
  for (const auto& [code, ends] : ways) {
    SCOPED_TRACE(code);
    record.calls.clear();
    Flow flow("f", {.store = store.get()});
    flow.group("main", {parallel("four", {waits("quick", milliseconds(10)), waits("slow", seconds(30)),
                                          waits("bad", seconds(1), ends), waits("later", seconds(40))}),
                        record.stage("after")});
    const Instant began = clock.now();
    auto x = exchange();
    const Outcome outcome = run(flow, x);
    EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
    EXPECT_EQ(outcome.cause->code(), code);
    EXPECT_LT(clock.now() - began, seconds(2)) << "nobody waits for who was cancelled";
    EXPECT_EQ(count("slow cut"), 1u);
    EXPECT_EQ(count("later cut"), 1u);
    const std::string bad = code == "aborted" ? "bad.abort(1)" : "bad.abort(0)";
    EXPECT_EQ(undone(), (Calls{"later.abort(0)", bad, "slow.abort(0)", "quick.abort(1)"})) << "in reverse";
    EXPECT_EQ(count("after.prepare"), 0u);
    settle_lane();
    EXPECT_EQ(describe(*store, x->id())->outcome, "aborted");
  }
}

// Those who are cut short for it neither hide its words nor free its key.
TEST_F(Parallel, FLOW_9_FLOW_30_the_decline_of_a_child_is_told_and_remembered_whoever_waited_beside_it) {
  for (const Vote& vote : {Vote::continue_(), Vote::skip()}) {
    store = testing_support::make_any_store(clock, random);
    keys = std::make_unique<idempotency::Keys>(clock, store.get());
    record.calls.clear();
    auto seen = std::make_shared<MemoryObserver>();
    auto options = keyed(*store, *keys);
    options.observers = {seen};
    Flow flow("f", std::move(options));
    flow.group("main", {parallel("both", {waits("host", seconds(30)), waits("limit", seconds(1), [&vote](Exchange& x) -> Result<Vote> {
                                            x.respond({.kind = FailureKind::rejected, .code = "over_limit"});
                                            x.abort("over_limit");
                                            return vote;
                                          })})});
    const Outcome outcome = run(flow);
    EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
    ASSERT_TRUE(outcome.reply);
    EXPECT_EQ(outcome.reply->code, "over_limit");
    EXPECT_EQ(seen->seen().back().cause, "over_limit");
    EXPECT_EQ(count("host.abort(0)"), 1u) << "it began";
    settle_lane();
    const Outcome again = run(flow);
    EXPECT_TRUE(again.replayed);
    EXPECT_EQ(count("host.prepare"), 1u) << "a retransmitted decline was processed again";
  }
}

TEST_F(Parallel, FLOW_20_one_cut_short_by_a_decline_that_cannot_be_undone_is_in_doubt) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {parallel("both", {task_func("pays",
                                                  [](Exchange&) -> Task<Result<Vote>> {
                                                    auto waiting = sleep_for(seconds(30));
                                                    const FailureKind cut = co_await waiting;
                                                    Result<Vote> vote = fail(cut, "cut", "");
                                                    co_return vote;
                                                  },
                                                  Effect::external),
                                        waits("limit", seconds(1), [](Exchange& x) -> Result<Vote> {
                                          x.abort("over_limit");
                                          return Vote();
                                        })})});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt) << "it may have paid, and nobody can take it back";
  settle_lane();
  EXPECT_EQ(list_in_doubt(*store, 10)->size(), 1u);
  EXPECT_EQ(recover(flow).in_doubt, 1u) << "nor does a sweep guess";
}

TEST_F(Parallel, FLOW_20_they_join_in_declaration_order_whichever_is_ready_first) {
  for (const bool refused : {false, true}) {
    record.calls.clear();
    Flow flow("f", {.store = store.get()});
    flow.group("main", {parallel("three", {waits("slow", seconds(3)), waits("quick", seconds(1)), waits("middle", seconds(2))})});
    if (refused)
      flow.group("main", {func("no", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "no", ""); })});
    EXPECT_EQ(run(flow).kind, refused ? OutcomeKind::aborted : OutcomeKind::committed);
    EXPECT_EQ(undone(), refused ? (Calls{"middle.abort(1)", "quick.abort(1)", "slow.abort(1)"})
                                : (Calls{"slow.commit", "quick.commit", "middle.commit"}));
  }
}

// The machine dies while they wait: any of them may have asked outside.
TEST_F(Parallel, FLOW_20_cut_off_by_a_crash_every_child_is_aborted_unprepared) {
  OddStore dying(*store);
  const auto shape = [&](Flow& flow) {
    flow.group("main", {parallel("both", {waits("one", seconds(5)), waits("two", seconds(9))})});
  };
  Flow doomed("f", {.store = &dying});
  shape(doomed);
  auto x = exchange();
  auto lost = start(doomed, x);
  advance(seconds(6));  // one has answered, two has not
  dying.dead = true;
  record.calls.clear();
  Flow next("f", {.store = store.get()});
  shape(next);
  EXPECT_EQ(recover(next).aborted, 1u);
  EXPECT_EQ(record.calls, (Calls{"two.abort(0)", "one.abort(0)"}));
  EXPECT_EQ(open(), 0u);
  x->scope().cancel();
  settle_lane();
}

TEST_F(Parallel, FLOW_20_after_a_crash_those_that_joined_commit_and_who_skipped_does_not) {
  OddStore dying(*store);
  dying.at = 1;  // the decision
  dying.applies = dying.dies = true;
  const auto shape = [&](Flow& flow) {
    flow.group("main", {parallel("three", {waits("one", seconds(2)),
                                           waits("out", seconds(1), [](Exchange&) -> Result<Vote> { return Vote::skip(); }),
                                           waits("two", seconds(1))})});
  };
  Flow doomed("f", {.store = &dying});
  shape(doomed);
  start(doomed, exchange());
  advance(seconds(3));
  ASSERT_TRUE(dying.dead);
  record.calls.clear();
  Flow next("f", {.store = store.get()});
  shape(next);
  EXPECT_EQ(recover(next).committed, 1u);
  EXPECT_EQ(record.calls, (Calls{"one.commit", "two.commit"}));
}

}  // namespace
}  // namespace sluice::flow
