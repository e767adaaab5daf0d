// What may be left outside with nobody to undo it, and what surely is not.
#include "flow/flow_fixture.hpp"
#include "flow/spy_store.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {
namespace {

class Stranded : public FlowTest {
 protected:
  std::shared_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  FlowOptions options() {
    FlowOptions made;
    made.store = store.get();
    made.ids = &ids;
    made.second_phase.attempts = 2;
    return made;
  }
  /// External, answers with these failures in turn, cannot be undone.
  StagePtr answers(std::string name, std::vector<FailureKind> kinds) {
    auto left = std::make_shared<std::vector<FailureKind>>(std::move(kinds));
    Phases made;
    made.prepare = [left](Exchange&) -> Result<Vote> {
      if (left->empty()) return Vote();
      const FailureKind kind = left->front();
      left->erase(left->begin());
      return fail(kind, "probe", "as told");
    };
    return phases(std::move(name), Effect::external, std::move(made));
  }
  std::size_t in_doubt() {
    store::PendingQuery query;
    query.query = store::ListOpen{};
    query.lane = &lane;
    query.run = [](Job*) noexcept {};
    EXPECT_TRUE(store->ask(query));
    return std::get<store::ListOpen::Answer>(*query.answer).size();
  }
};

TEST_F(Stranded, FLOW_18_an_earlier_attempt_that_may_have_happened_is_not_forgotten_for_a_later_one_that_did_not) {
  resilience::RetryPolicy policy;
  policy.has_key = true;
  policy.attempts = 2;
  Flow flow("f", options());
  flow.group("main", {retry(answers("bank", {FailureKind::unknown_outcome, FailureKind::unavailable}), random, policy)});
  const Outcome outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::in_doubt) << "the first may have happened, and nobody can undo it";
  EXPECT_EQ(in_doubt(), 1u);
}

TEST_F(Stranded, FLOW_20_a_child_of_parallel_that_may_have_happened_and_cannot_be_undone_is_in_doubt) {
  Flow flow("f", options());
  flow.group("main", {parallel("both", {answers("bank", {FailureKind::unknown_outcome}), record.stage("hold", Effect::external),
                                        answers("other", {FailureKind::rejected})})});
  const Outcome outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::in_doubt);
  lane.run_ready();
  EXPECT_EQ(in_doubt(), 1u);
  // Also after a restart, and not only until a sweep has called the aborts there are.
  Flows flows;
  flows.add(flow);
  Recovery recovery(*store, flows, lane);
  for (int sweep = 0; sweep < 2; ++sweep) {
    bool done = false;
    recovery.start([&](const Result<RecoveryProgress>&) { done = true; });
    drive([&] { return done; });
    lane.run_ready();
    EXPECT_EQ(in_doubt(), 1u) << "sweep " << sweep;
  }
}

TEST_F(Stranded, NODE_6_a_sweep_that_the_store_cut_short_is_repeated_soon) {
  Flow flow("f", options());
  flow.group("main", {answers("bank", {FailureKind::unknown_outcome})});
  ASSERT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  lane.run_ready();
  SpyStore spy(*store);
  Flows flows;
  flows.add(flow);
  Recovery recovery(spy, flows, lane);
  spy.unreadable = 1;
  std::vector<std::pair<Instant, std::uint64_t>> sweeps;  // when each ended, and what it left in doubt
  lane.post([&] {
    recovery.keep_sweeping(seconds(30), [&](const Result<RecoveryProgress>& progress) {
      sweeps.emplace_back(clock.now(), progress ? progress->in_doubt : 999);
    });
  });
  drive([&] { return sweeps.size() == 1; });
  EXPECT_EQ(sweeps[0].second, 999u);
  spy.unreadable_journals = 1;
  drive([&] { return sweeps.size() == 4; });
  EXPECT_LE(sweeps[1].first - sweeps[0].first, seconds(2)) << "another node may be waiting for its end";
  EXPECT_EQ(sweeps[1].second, 0u) << "its journal was not readable";
  EXPECT_LE(sweeps[2].first - sweeps[1].first, seconds(2));
  EXPECT_EQ(sweeps[2].second, 1u);
  EXPECT_GE(sweeps[3].first - sweeps[2].first, seconds(30)) << "what waits for an operator is looked at now and then";
}

TEST_F(Stranded, NODE_6_an_end_that_the_store_did_not_take_is_written_soon) {
  // Until it is, every other node tells a settled request's key "in progress".
  SpyStore spy(*store);
  FlowOptions made = options();
  made.store = &spy;
  Flow flow("f", made);
  flow.group("main", {record.stage("bank", Effect::external)});
  ASSERT_EQ(run(flow).kind, OutcomeKind::committed);
  lane.run_ready();
  ASSERT_EQ(in_doubt(), 0u);
  const int commits = spy.submitted;
  Flows flows;
  flows.add(flow);
  Recovery recovery(spy, flows, lane);
  std::vector<Instant> sweeps;
  lane.post([&] { recovery.keep_sweeping(seconds(30), [&](const auto&) { sweeps.push_back(clock.now()); }); });
  drive([&] { return sweeps.size() == 1; });
  spy.lost = 2 * commits - 1;  // the last record, which nobody waits for
  ASSERT_EQ(run(flow).kind, OutcomeKind::committed);
  ASSERT_EQ(in_doubt(), 1u) << "the store did not take its end";
  const Instant lost = clock.now();
  drive([&] { return in_doubt() == 0; });
  EXPECT_LE(clock.now() - lost, seconds(2));
  // A store that reads and does not write is not swept without a pause.
  spy.lost = spy.submitted + 1;
  spy.lost_for_good = true;
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  const std::size_t before = sweeps.size();
  const Instant began = clock.now();
  drive([&] { return clock.now() - began >= seconds(60); });
  EXPECT_GE(sweeps.size() - before, 10u);
  EXPECT_LE(sweeps.size() - before, 20u);
  spy.lost = -1;
  drive([&] { return in_doubt() == 0; });
  EXPECT_LE(clock.now() - began, seconds(66));
}

TEST_F(Stranded, FLOW_20_children_that_surely_did_not_happen_leave_nothing_in_doubt) {
  Flow flow("f", options());
  flow.group("main", {parallel("both", {answers("bank", {FailureKind::unavailable}), record.stage("hold", Effect::external)})});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  lane.run_ready();
  EXPECT_EQ(in_doubt(), 0u);
}

TEST_F(Stranded, FLOW_13_a_stage_that_says_it_left_nothing_outside_is_not_aborted) {
  record.failing_abort = "bank";
  record.failing_times = 100;
  for (const bool says : {true, false}) {
    record.calls.clear();
    Flow flow(says ? "says" : "silent", options());
    flow.group("main", {record.stage("bank", Effect::external, [says](Exchange& x) -> Result<Vote> {
      if (says) x.left_nothing_outside();
      return fail(FailureKind::unavailable, "blocked_by_breaker", "nothing was sent");
    })});
    const Outcome outcome = run(flow);
    EXPECT_EQ(outcome.kind, says ? OutcomeKind::aborted : OutcomeKind::in_doubt);
    EXPECT_EQ(record.calls.size(), says ? 1u : 3u) << "without its word a partial reservation is undone";
  }
}

TEST_F(Stranded, FLOW_18_the_word_of_the_last_attempt_does_not_cover_the_others) {
  resilience::RetryPolicy policy;
  policy.attempts = 2;
  int attempts = 0;
  Flow flow("f", options());
  flow.group("main", {retry(record.stage("bank", Effect::external,
                                         [&](Exchange& x) -> Result<Vote> {
                                           if (++attempts == 2) x.left_nothing_outside();
                                           return fail(FailureKind::unavailable, "down", "down");
                                         }),
                            random, policy)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  EXPECT_EQ(record.calls, (std::vector<std::string>{"bank.prepare", "bank.prepare", "bank.abort(0)"}));
}

}  // namespace
}  // namespace sluice::flow
