// Second phase, throws, time limits, drawing: FLOW-12 … FLOW-19, FLOW-33.
#include "flow/flow_fixture.hpp"

namespace sluice::flow {
namespace {

using Calls = std::vector<std::string>;

TEST_F(FlowTest, FLOW_12_commit_runs_in_prepare_order_and_abort_in_reverse) {
  Flow good("good");
  good.group("main", {record.stage("a"), record.stage("b"), record.stage("c")});
  run(good);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "b.prepare", "c.prepare", "a.commit", "b.commit", "c.commit"}));
  record.calls.clear();
  Flow bad("bad");
  bad.group("main", {record.stage("a"), record.stage("b"),
                     func("no", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "no", "no"); })});
  run(bad);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "b.prepare", "b.abort(1)", "a.abort(1)"}));
}

TEST_F(FlowTest, FLOW_12_the_callers_cancellation_leaves_no_half_second_phase) {
  Flow flow("f");
  auto x = exchange();
  Phases first;
  first.commit = [&](Exchange&) -> Status {
    x->scope().cancel();
    return {};
  };
  flow.group("main", {phases("first", Effect::none, first), record.stage("b")});
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::committed);
  EXPECT_EQ(record.calls, (Calls{"b.prepare", "b.commit"}));
}

TEST_F(FlowTest, FLOW_13_a_stage_that_began_and_failed_is_aborted_unprepared) {
  Flow flow("f");
  flow.group("main", {record.stage("a"), record.stage("b", Effect::none, [](Exchange&) -> Result<Vote> {
                        return fail(FailureKind::unavailable, "down", "");
                      })});
  run(flow);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "b.prepare", "b.abort(0)", "a.abort(1)"}));
}

TEST_F(FlowTest, FLOW_14_a_failed_abort_is_retried_then_in_doubt_and_the_others_still_run) {
  record.failing_abort = "b";
  record.failing_times = 100;
  Flow flow("f");
  flow.group("main", {record.stage("a"), record.stage("b"),
                      func("no", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "no", "no"); })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  EXPECT_EQ(std::ranges::count(record.calls, "b.abort(1)"), 5);
  EXPECT_EQ(record.calls.back(), "a.abort(1)");
}

TEST_F(FlowTest, FLOW_15_a_failed_commit_is_retried_and_then_succeeds_or_is_in_doubt) {
  record.failing_commit = "a";
  record.failing_times = 2;
  Flow flow("f");
  flow.group("main", {record.stage("a"), record.stage("b")});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "b.prepare", "a.commit", "a.commit", "a.commit", "b.commit"}));
  record.failing_times = 100;
  record.calls.clear();
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::in_doubt);
  EXPECT_NE(outcome.cause->detail().find("stage 'a'"), std::string_view::npos);
  EXPECT_EQ(record.calls.back(), "b.commit");
}

TEST_F(FlowTest, FLOW_15_abort_inside_commit_changes_nothing) {
  Flow flow("f");
  Phases stage;
  stage.commit = [](Exchange& x) -> Status {
    x.abort("too late");
    return {};
  };
  flow.group("main", {phases("a", Effect::none, stage)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
}

TEST_F(FlowTest, FLOW_16_attempt_grows_and_the_token_stays) {
  std::vector<std::string> tokens;
  std::vector<std::uint32_t> attempts;
  Flow flow("f");
  Phases stage;
  stage.commit = [&](Exchange& x) -> Status {
    tokens.push_back(x.token());
    attempts.push_back(x.attempt());
    return x.attempt() < 3 ? fail(FailureKind::unavailable, "down", "") : Status();
  };
  flow.group("main", {record.stage("first"), phases("a", Effect::none, stage)});
  auto x = exchange();
  run(flow, x);
  EXPECT_EQ(attempts, (std::vector<std::uint32_t>{1, 2, 3}));
  EXPECT_EQ(tokens, std::vector<std::string>(3, to_string(x->id()) + ".1"));
}

class LimitedStage final : public Stage {
 public:
  std::string_view name() const noexcept override { return "limited"; }
  bool asynchronous() const noexcept override { return true; }
  Duration time_limit() const noexcept override { return milliseconds(30); }
  Task<Result<Vote>> prepare_task(Exchange&) override {
    auto nap = sleep_for(seconds(100));
    const FailureKind cut = co_await nap;
    Result<Vote> result = Vote();
    if (cut != FailureKind::none) result = fail(FailureKind::cancelled, "cut", "cut short");
    co_return result;
  }
};

TEST_F(FlowTest, FLOW_19_a_time_limit_ends_a_suspended_prepare) {
  Flow flow("f");
  flow.group("main", {std::make_shared<LimitedStage>()});
  const Instant began = clock.now();
  EXPECT_EQ(run(flow).cause->kind(), FailureKind::timeout);
  EXPECT_LE(clock.now() - began, milliseconds(40));
}

TEST_F(FlowTest, FLOW_33_the_graph_is_drawn_and_linted) {
  Flow flow("f");
  Phases reserve;
  reserve.prepare = [](Exchange&) { return Vote(); };
  reserve.routes = {"declined"};
  flow.group("main", {phases("reserve", Effect::external, reserve)});
  flow.group("declined", {record.stage("say")}).group("orphan", {record.stage("never")});
  const auto findings = flow.lint();
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_NE(findings[0].find("no_abort"), std::string::npos);
  EXPECT_NE(findings[1].find("orphan"), std::string::npos);
  EXPECT_NE(flow.to_mermaid().find("s0 -.-> declined"), std::string::npos);
  EXPECT_NE(flow.to_dot().find("reserve (external)"), std::string::npos);
}

}  // namespace
}  // namespace sluice::flow
