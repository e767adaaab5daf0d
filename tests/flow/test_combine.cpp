// Stages made of stages: FLOW-18 retry, FLOW-20 parallel.
#include "flow_fixture.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {
namespace {

using Calls = std::vector<std::string>;

class Combined : public FlowTest {
 protected:
  /// Fails `unavailable` the first `times` calls.
  StagePtr flaky(int times, FailureKind kind = FailureKind::unavailable) {
    return record.stage("a", Effect::external, [this, times, kind](Exchange& x) -> Result<Vote> {
      tokens.push_back(x.token());
      attempts.push_back(x.attempt());
      x.draft().add({"app", "c", "n"}, 1);
      if (++calls <= times) return fail(kind, "", "call " + std::to_string(calls));
      return Vote();
    });
  }
  /// Waits, then votes; notes how it ended.
  StagePtr waits(std::string name, Duration time, bool fails = false) {
    return task_func(std::move(name), [this, time, fails](Exchange& x) -> Task<Result<Vote>> {
      auto waiting = sleep_for(time);
      const FailureKind cut = co_await waiting;
      if (cut != FailureKind::none) {
        ended.push_back("cut");
        Result<Vote> failed = fail(FailureKind::cancelled, "cut", "");
        co_return failed;
      }
      ended.push_back(x.token().substr(x.token().find('.')));
      x.draft().publish(x.token(), "");
      if (fails) {
        Result<Vote> failed = fail(FailureKind::rejected, "refused", "");
        co_return failed;
      }
      co_return Vote();
    });
  }
  int calls = 0;
  Calls tokens, ended;
  std::vector<std::uint32_t> attempts;
};

TEST_F(Combined, FLOW_18_retry_repeats_prepare_alone_under_one_token_and_takes_drafts_back) {
  Flow flow("f");
  flow.group("main", {retry(flaky(2), random)});
  auto x = exchange();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::committed);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "a.prepare", "a.prepare", "a.commit"}));
  EXPECT_EQ(attempts, (std::vector<std::uint32_t>{1, 2, 3}));
  EXPECT_EQ(tokens[0], tokens[2]);
  EXPECT_EQ(x->draft().mutations.size(), 1u);
}

TEST_F(Combined, FLOW_18_retry_gives_up_after_three_attempts_by_default) {
  Flow flow("f");
  flow.group("main", {retry(flaky(99), random)});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.cause->detail(), "call 3");
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "a.prepare", "a.prepare", "a.abort(0)"}));
}

TEST_F(Combined, FLOW_18_neither_refusals_nor_unknown_outcomes_are_repeated) {
  for (const auto kind : {FailureKind::rejected, FailureKind::unknown_outcome}) {
    calls = 0;
    Flow flow("f");
    flow.group("main", {retry(flaky(99, kind), random)});
    EXPECT_EQ(run(flow).cause->kind(), kind);
    EXPECT_EQ(calls, 1);
  }
  calls = 0;
  resilience::RetryPolicy keyed;
  keyed.has_key = true;
  Flow flow("f");
  flow.group("main", {retry(flaky(1, FailureKind::unknown_outcome), random, keyed)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
}

TEST_F(Combined, FLOW_18_cancelled_while_waiting_keeps_the_stages_own_failure) {
  resilience::RetryPolicy slow;
  slow.backoff.base = seconds(10);
  slow.backoff.jitter = resilience::Jitter::none;
  Flow flow("f");
  flow.group("main", {retry(flaky(99), random, slow)});
  auto x = exchange();
  auto running = start(flow, x);
  lane.run_ready();
  ASSERT_FALSE(running->outcome);
  lane.post([x] { x->scope().cancel(); });
  drive([&] { return running->outcome.has_value(); });
  EXPECT_EQ(running->outcome->cause->kind(), FailureKind::unavailable);
  EXPECT_EQ(calls, 1);
}

TEST_F(Combined, FLOW_10_attempts_inside_one_stage_count_once) {
  FlowOptions options;
  options.max_stages = 1;
  Flow flow("f", options);
  flow.group("main", {retry(flaky(2), random)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
}

TEST_F(Combined, FLOW_20_parallel_stages_wait_together_and_merge_in_declaration_order) {
  Flow flow("f");
  flow.group("main", {parallel("both", {waits("slow", seconds(3)), waits("quick", seconds(1)),
                                        waits("middle", seconds(2))})});
  auto x = exchange();
  const Instant began = clock.now();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::committed);
  EXPECT_LT(clock.now() - began, seconds(4));
  EXPECT_EQ(ended, (Calls{".0.2", ".0.3", ".0.1"}));
  ASSERT_EQ(x->draft().events.size(), 3u);
  EXPECT_TRUE(x->draft().events[0].topic.ends_with(".1"));
  EXPECT_TRUE(x->draft().events[2].topic.ends_with(".3"));
}

TEST_F(Combined, FLOW_20_commit_runs_in_declaration_order) {
  Flow flow("f");
  flow.group("main", {parallel("both", {record.stage("a"), record.stage("b", Effect::none, [](Exchange&) {
                                          return Vote::skip();
                                        }), record.stage("c")})});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "b.prepare", "c.prepare", "a.commit", "c.commit"}));
}

TEST_F(Combined, FLOW_20_the_first_failure_cuts_the_others_short_and_all_that_began_are_aborted) {
  Flow flow("f");
  flow.group("main", {parallel("three", {record.stage("a"), waits("slow", seconds(30)),
                                         waits("bad", seconds(1), true)})});
  const Instant began = clock.now();
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.cause->code(), "refused");
  EXPECT_LT(clock.now() - began, seconds(2));
  EXPECT_EQ(ended, (Calls{".0.3", "cut"}));
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "a.abort(1)"}));
}

TEST_F(Combined, FLOW_20_a_child_that_fails_at_once_keeps_later_ones_from_beginning) {
  Flow flow("f");
  flow.group("main", {parallel("two", {record.stage("a", Effect::none,
                                                    [](Exchange&) -> Result<Vote> {
                                                      return fail(FailureKind::rejected, "no", "");
                                                    }),
                                       record.stage("b")})});
  EXPECT_EQ(run(flow).cause->code(), "no");
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "a.abort(0)"}));
}

TEST_F(Combined, FLOW_20_the_callers_cancellation_reaches_every_child) {
  Flow flow("f");
  flow.group("main", {parallel("two", {waits("a", seconds(30)), waits("b", seconds(30))})});
  auto x = exchange();
  auto running = start(flow, x);
  lane.run_ready();
  lane.post([x] { x->scope().cancel(); });
  drive([&] { return running->outcome.has_value(); });
  EXPECT_EQ(running->outcome->cause->kind(), FailureKind::cancelled);
  EXPECT_EQ(ended, (Calls{"cut", "cut"}));
}

}  // namespace
}  // namespace sluice::flow
