// FLOW-18, clause by clause: what is repeated, how often, when, and what ends it.
#include "flow_fixture.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {
namespace {

class Retried : public FlowTest {
 protected:
  const Instant began = clock.now();
  std::vector<std::int64_t> at;  // milliseconds at which prepare was called

  /// Always fails so, and notes when.
  StagePtr fails(Failure failure) {
    return func("a", [this, failure](Exchange&) -> Result<Vote> {
      at.push_back((clock.now() - began) / milliseconds(1));
      return fail(failure);
    });
  }
  /// How often prepare was called for a failure of this kind.
  std::size_t tries(FailureKind kind, resilience::RetryPolicy policy = {}, std::string_view code = {}) {
    at.clear();
    Flow flow("f");
    flow.group("main", {retry(fails(Failure(kind, code, "")), random, std::move(policy))});
    const Outcome outcome = run(flow);
    EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
    EXPECT_TRUE(outcome.cause && outcome.cause->kind() == kind);
    return at.size();
  }
  static resilience::RetryPolicy steady() {
    resilience::RetryPolicy policy;
    policy.backoff.jitter = resilience::Jitter::none;
    return policy;
  }
};

TEST_F(Retried, FLOW_18_by_default_three_attempts_50_ms_apart_and_doubling) {
  EXPECT_EQ(tries(FailureKind::unavailable, steady()), 3u);
  EXPECT_EQ(at, (std::vector<std::int64_t>{0, 50, 150}));
}

TEST_F(Retried, FLOW_18_by_default_the_retryable_kinds_of_the_failure_table_and_no_others) {
  // What may have happened, or still runs, is never repeated without a key.
  const auto may_be_doubled = [](FailureKind kind) {
    return kind == FailureKind::unknown_outcome || kind == FailureKind::pending || kind == FailureKind::in_progress;
  };
  resilience::RetryPolicy keyed;
  keyed.has_key = true;
  for (const auto& row : failure_table()) {
    if (row.kind == FailureKind::none) continue;
    EXPECT_EQ(tries(row.kind), row.retryable && !may_be_doubled(row.kind) ? 3u : 1u) << row.name;
    EXPECT_EQ(tries(row.kind, keyed), row.retryable || may_be_doubled(row.kind) ? 3u : 1u) << row.name << ", with a key";
  }
}

TEST_F(Retried, FLOW_18_RES_30_the_budget_lets_one_exchange_use_all_its_attempts_and_an_outage_few) {
  resilience::RetryPolicy many = steady();
  many.attempts = 12;
  EXPECT_EQ(tries(FailureKind::unavailable, many), 12u);
  at.clear();
  Flow flow("f");
  flow.group("main", {retry(fails(Failure(FailureKind::unavailable)), random, steady())});
  for (int i = 0; i < 50; ++i) EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  EXPECT_EQ(at.size(), 53u) << "each failure takes one of the five tokens that are for retries, the last of an exchange too";
}

TEST_F(Retried, FLOW_18_a_predicate_replaces_the_table) {
  resilience::RetryPolicy policy;
  policy.retryable = [](const Failure& failure) { return failure.code() == "again"; };
  EXPECT_EQ(tries(FailureKind::rejected, policy, "again"), 3u);
  EXPECT_EQ(tries(FailureKind::unavailable, policy, "down"), 1u);
}

TEST_F(Retried, FLOW_18_the_backoff_may_be_a_function) {
  auto policy = steady();
  policy.attempts = 4;
  policy.backoff.custom = [](std::uint32_t retry) { return seconds(retry); };
  EXPECT_EQ(tries(FailureKind::unavailable, policy), 4u);
  EXPECT_EQ(at, (std::vector<std::int64_t>{0, 1000, 3000, 6000}));
}

TEST_F(Retried, FLOW_18_jitter_spreads_the_waits_within_its_range) {
  resilience::RetryPolicy policy;
  policy.attempts = 40;
  policy.backoff.growth = resilience::Growth::constant;
  policy.backoff.base = seconds(1);
  policy.backoff.jitter = resilience::Jitter::equal;
  EXPECT_EQ(tries(FailureKind::unavailable, policy), 40u);
  std::int64_t least = 1000, most = 0;
  for (std::size_t i = 1; i < at.size(); ++i) {
    least = std::min(least, at[i] - at[i - 1]);
    most = std::max(most, at[i] - at[i - 1]);
  }
  EXPECT_GE(least, 499);
  EXPECT_LE(most, 1001);
  EXPECT_GT(most - least, 200) << "all waits are alike";
}

TEST_F(Retried, FLOW_18_no_attempt_begins_past_the_overall_deadline) {
  auto policy = steady();
  policy.attempts = 100;
  policy.backoff.growth = resilience::Growth::constant;
  policy.backoff.base = seconds(1);
  policy.overall = milliseconds(3500);
  EXPECT_EQ(tries(FailureKind::unavailable, policy), 4u);
  EXPECT_EQ(at, (std::vector<std::int64_t>{0, 1000, 2000, 3000}));
  EXPECT_LE(clock.now() - began, milliseconds(3500)) << "nor is it waited for";
}

TEST_F(Retried, FLOW_18_not_after_the_exchange_was_aborted) {
  int calls = 0;
  Flow flow("f");
  flow.group("main", {retry(func("a",
                                 [&](Exchange& x) -> Result<Vote> {
                                   ++calls;
                                   x.abort("no_credit");
                                   return fail(FailureKind::unavailable, "down", "");
                                 }),
                            random)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  EXPECT_EQ(calls, 1);
}

TEST_F(Retried, FLOW_18_commit_and_abort_are_forwarded_and_repeated_by_the_flows_own_policy_alone) {
  for (const bool commits : {true, false}) {
    record.calls.clear();
    (commits ? record.failing_commit : record.failing_abort) = "a";
    record.failing_times = 1000;
    resilience::RetryPolicy many;
    many.attempts = 50;
    Flow flow("f", {.second_phase = {.attempts = 2}});
    flow.group("main", {retry(record.stage("a"), random, many)});
    if (!commits)
      flow.group("main", {func("no", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "no", ""); })});
    EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
    EXPECT_EQ(count(commits ? "a.commit" : "a.abort(1)"), 2u);
    EXPECT_EQ(count("a.prepare"), 1u);
  }
  record.failing_commit = "a";
  record.failing_times = 2;
  resilience::RetryPolicy once;
  once.attempts = 1;
  Flow flow("f");
  flow.group("main", {retry(record.stage("a"), random, once)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed) << "a policy of one attempt is prepare's alone";
}

}  // namespace
}  // namespace sluice::flow
