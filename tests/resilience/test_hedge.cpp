// Hedged calls under the deterministic scheduler: who wins, what is cancelled, what it costs.
#include "sim/scheduler.hpp"
#include "sluice/resilience/hedge.hpp"
#include "sluice/resilience/latency_quantile.hpp"

namespace sluice::resilience {
namespace {

struct HedgeTest : testing::Test {
  sim::SimClock clock;
  sim::SimScheduler scheduler{clock, 1, nullptr, {.stall_one_in = 0}};
  Lane& lane = scheduler.add_lane("lane");
  RetryBudget budget;
  struct Script {
    Duration latency{};
    std::optional<FailureKind> fails;
    bool throws = false;
    bool refused = false;
    std::optional<milliseconds> pushback = {};
  };
  std::vector<Script> scripts;
  std::vector<Instant> started;
  int alive = 0, cancelled = 0;

  struct Alive {
    int& count;
    explicit Alive(int& c) : count(c) { ++count; }
    ~Alive() { --count; }
  };
  Task<Result<int>> attempt(AttemptNote& note) {
    const Alive witness(alive);
    started.push_back(clock.now());
    const auto number = static_cast<int>(note.number);
    const Script script = scripts[note.number - 1];
    note.refused_here = script.refused;
    if (script.latency > Duration::zero()) {
      const FailureKind cut = co_await sleep_for(script.latency);
      if (cut != FailureKind::none) {
        ++cancelled;
        co_return fail(Failure(cut));
      }
    }
    if (script.throws) throw std::runtime_error("attempt threw");
    if (script.fails && script.pushback) {
      Failure told = Failure(*script.fails).with_retry_after(*script.pushback);
      co_return fail(std::move(told));
    }
    if (script.fails) co_return fail(Failure(*script.fails));
    co_return number;
  }
  Result<int> run(std::vector<Script> of, Duration delay = milliseconds(10),
                  CancelScope* scope = nullptr) {
    scripts = std::move(of);
    started.clear();
    HedgePlan plan{.extra = static_cast<std::uint32_t>(scripts.size()) - 1, .delay = delay};
    return sim::run_task(
        scheduler, lane,
        hedged(plan, budget, true, [this](AttemptNote& note) { return attempt(note); }), scope);
  }
};

TEST_F(HedgeTest, RES_31_a_quick_answer_is_not_hedged) {
  EXPECT_EQ(run({{milliseconds(5)}, {milliseconds(5)}}), 1);
  EXPECT_EQ(started.size(), 1u);
  EXPECT_EQ(run({{}, {}}), 1) << "at once";
  EXPECT_EQ(budget.tokens(), 10);
}

TEST_F(HedgeTest, RES_31_the_first_success_wins_and_the_others_are_cancelled) {
  const Instant start = clock.now();
  EXPECT_EQ(run({{seconds(5)}, {seconds(5)}, {milliseconds(3)}}), 3);
  EXPECT_LT(clock.now() - start, milliseconds(30));
  EXPECT_EQ(cancelled, 2);
  EXPECT_EQ(alive, 0);
  EXPECT_NEAR(budget.tokens(), 8.1, 0.001);
}

TEST_F(HedgeTest, RES_31_a_failure_starts_the_next_at_once) {
  EXPECT_EQ(run({{milliseconds(2), FailureKind::unavailable}, {milliseconds(2)}}), 2);
  EXPECT_LT(started[1] - started[0], milliseconds(4));
  EXPECT_NEAR(budget.tokens(), 9.1, 0.001) << "the failure's token, and no second one";
}

TEST_F(HedgeTest, RES_30_a_callee_that_wants_no_repetition_gets_no_further_hedge) {
  const auto answer = run({{milliseconds(2), FailureKind::unavailable, false, false, milliseconds(-1)}, {}, {}});
  EXPECT_EQ(answer.error().kind(), FailureKind::unavailable);
  EXPECT_EQ(started.size(), 1u);
  EXPECT_EQ(answer.error().retry_after(), milliseconds(-1)) << "who retries is told too";
  // What runs beside it still decides; nothing is added.
  EXPECT_EQ(run({{milliseconds(50)}, {milliseconds(2), FailureKind::overloaded, false, false, milliseconds(-1)}, {}}), 1);
  EXPECT_EQ(started.size(), 2u);
}

TEST_F(HedgeTest, RES_30_the_next_hedge_waits_as_long_as_the_callee_said) {
  EXPECT_EQ(run({{milliseconds(2), FailureKind::unavailable, false, false, milliseconds(500)}, {}}), 2) << "nothing runs meanwhile";
  ASSERT_EQ(started.size(), 2u);
  EXPECT_GE(started[1] - started[0], milliseconds(502));
  EXPECT_LT(started[1] - started[0], milliseconds(506));
  // The delay of 10 ms does not come before it, nor does the failure of another.
  EXPECT_EQ(run({{milliseconds(40), FailureKind::unavailable},
                 {milliseconds(5), FailureKind::overloaded, false, false, milliseconds(100)},
                 {milliseconds(1)}}),
            3);
  ASSERT_EQ(started.size(), 3u);
  EXPECT_GE(started[2] - started[1], milliseconds(105));
  EXPECT_LT(started[2] - started[1], milliseconds(109));
  EXPECT_EQ(alive, 0);
}

TEST_F(HedgeTest, RES_30_a_wait_beyond_the_deadline_is_not_begun) {
  scripts = {{milliseconds(2), FailureKind::unavailable, false, false, milliseconds(500)}, {}};
  CancelScope scope;
  TaskContext context{&lane, &scope, clock.now() + milliseconds(100)};
  auto task = hedged(HedgePlan{.extra = 1, .delay = milliseconds(10)}, budget, true,
                     [this](AttemptNote& note) { return attempt(note); });
  bool done = false;
  const Instant start = clock.now();
  done = task.start(context, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &done);
  ASSERT_TRUE(scheduler.run_until([&] { return done; }, 10'000));
  EXPECT_EQ(task.take().error().retry_after(), milliseconds(500));
  EXPECT_EQ(started.size(), 1u);
  EXPECT_LT(clock.now() - start, milliseconds(10));
}

TEST_F(HedgeTest, RES_30_of_several_failures_the_sternest_word_is_told) {
  const auto answer = run({{milliseconds(20), FailureKind::unavailable, false, false, milliseconds(30)},
                           {milliseconds(50), FailureKind::overloaded, false, false, milliseconds(-1)}});
  EXPECT_EQ(answer.error().kind(), FailureKind::overloaded);
  EXPECT_EQ(started.size(), 2u);
}

TEST_F(HedgeTest, RES_31_a_fatal_failure_decides) {
  const auto answer = run({{milliseconds(20), FailureKind::rejected}, {seconds(5)}});
  EXPECT_EQ(answer.error().kind(), FailureKind::rejected);
  EXPECT_EQ(alive, 0);
}

TEST_F(HedgeTest, RES_31_when_all_fail_the_first_failure_is_told) {
  const auto answer = run(
      {{milliseconds(20), FailureKind::unavailable}, {milliseconds(30), FailureKind::overloaded}});
  EXPECT_EQ(answer.error().kind(), FailureKind::unavailable);
  EXPECT_EQ(started.size(), 2u);
}

TEST_F(HedgeTest, RES_31_an_empty_budget_fails_no_call) {
  for (int i = 0; i < 20; ++i) budget.on_failure();
  EXPECT_EQ(run({{milliseconds(50)}, {}}), 1);
  EXPECT_EQ(started.size(), 1u);
}

TEST_F(HedgeTest, RES_31_a_local_refusal_does_not_end_what_runs) {
  EXPECT_EQ(run({{milliseconds(50)}, {{}, FailureKind::unavailable, false, true}}), 1);
  EXPECT_EQ(started.size(), 2u);
}

TEST_F(HedgeTest, RES_31_the_callers_cancellation_ends_all) {
  CancelScope scope;
  scheduler.after(milliseconds(15), [&] { lane.post([&] { scope.cancel(); }); });
  const auto answer = run({{seconds(5)}, {seconds(5)}}, milliseconds(10), &scope);
  EXPECT_EQ(answer.error().kind(), FailureKind::cancelled);
  EXPECT_EQ(cancelled, 2);
  EXPECT_EQ(alive, 0);
}

TEST_F(HedgeTest, RES_31_an_attempt_that_throws_is_a_failure) {
  const auto answer = run({{milliseconds(1), {}, true}, {}});
  EXPECT_EQ(answer.error().kind(), FailureKind::internal);
}

TEST_F(HedgeTest, RES_42_seeded_races_end_once_and_leave_nothing) {
  sim::SimRandom random(11);
  int won = 0;
  for (int i = 0; i < 3000; ++i) {
    std::vector<Script> of(1 + random.below(4));
    for (Script& script : of) {
      script.latency = milliseconds(random.below(40));
      if (random.one_in(3)) script.fails = FailureKind::unavailable;
      if (random.one_in(9)) script.fails = FailureKind::rejected;
      script.throws = random.one_in(30);
    }
    CancelScope scope;
    if (random.one_in(4))
      scheduler.after(milliseconds(random.below(30)), [&] { lane.post([&] { scope.cancel(); }); });
    won += run(of, milliseconds(random.below(15)), &scope).has_value() ? 1 : 0;
    scheduler.run_to(clock.now() + milliseconds(50), 10'000);
    ASSERT_EQ(alive, 0) << i;
  }
  EXPECT_GT(won, 1000);
}

TEST(LatencyQuantile, RES_31_none_during_warm_up_then_near_the_true_one) {
  LatencyQuantile latencies;
  for (int i = 1; i <= 99; ++i) latencies.record(milliseconds(i));
  EXPECT_FALSE(latencies.at(0.95, 100));
  latencies.record(milliseconds(100));
  const Duration p95 = latencies.at(0.95, 100).value();
  EXPECT_GE(p95, milliseconds(95));
  EXPECT_LE(p95, milliseconds(95) * 5 / 4);
  for (int i = 0; i < 20'000; ++i) latencies.record(microseconds(100));
  EXPECT_LT(latencies.at(0.95, 100).value(), microseconds(130)) << "the old is forgotten";
  EXPECT_GE(latencies.at(1, 1).value(), microseconds(100));
  latencies.record(std::chrono::hours(10));
  EXPECT_TRUE(latencies.at(1, 1));
}

}  // namespace
}  // namespace sluice::resilience
