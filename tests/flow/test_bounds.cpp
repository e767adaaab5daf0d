// What is bounded in time and number: the margin before the deadline, second-phase budgets and
// backoff, retries inside a stage, and how much recovery does at once.
#include "flow/flow_fixture.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {
namespace {

using std::chrono::duration_cast;

class Bounds : public FlowTest {
 protected:
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  const Instant began = clock.now();
  std::int64_t passed_ms() { return duration_cast<milliseconds>(clock.now() - began).count(); }
  static Task<Result<Vote>> hang(Exchange&) {
    auto nap = sleep_for(seconds(100));
    const FailureKind cut = co_await nap;
    Result<Vote> vote = Vote();
    if (cut != FailureKind::none) vote = fail(FailureKind::cancelled, "cut", "");
    co_return vote;
  }
  /// Fails each commit, and notes when it was called.
  StagePtr failing(std::vector<std::int64_t>& at) {
    Phases made;
    made.commit = [this, &at](Exchange&) -> Status {
      at.push_back(passed_ms());
      return fail(FailureKind::unavailable, "down", "down");
    };
    return phases("failing", Effect::none, std::move(made));
  }
};

TEST_F(Bounds, PROTOCOL_7_a_hanging_prepare_ends_the_margin_before_the_callers_deadline) {
  Flow flow("f", {.commit_margin = milliseconds(20)});
  Instant seen = kNever;
  flow.group("main", {func("looks", [&](Exchange& x) -> Result<Vote> {
                        seen = x.deadline();
                        return Vote();
                      }),
                      task_func("hangs", &Bounds::hang)});
  RunOptions options;
  options.deadline = began + milliseconds(100);
  const Outcome outcome = run(flow, exchange(), std::move(options));
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.cause->kind(), FailureKind::timeout);
  EXPECT_EQ(seen, began + milliseconds(80));
  EXPECT_GE(passed_ms(), 80);
  EXPECT_LT(passed_ms(), 95);
}

TEST_F(Bounds, FLOW_15_delays_between_commits_double_up_to_their_bound) {
  std::vector<std::int64_t> at;
  Flow flow("f", {.second_phase = {.attempts = 6, .first_delay = milliseconds(100), .max_delay = milliseconds(350)}});
  flow.group("main", {failing(at)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  ASSERT_EQ(at.size(), 6u);
  const std::vector<std::int64_t> expected{0, 100, 300, 650, 1000, 1350};
  for (std::size_t i = 0; i < at.size(); ++i) EXPECT_NEAR(static_cast<double>(at[i]), static_cast<double>(expected[i]), 10) << i;
}

TEST_F(Bounds, FLOW_12_the_budget_also_ends_synchronous_commits_that_keep_failing) {
  std::vector<std::int64_t> at;
  Flow flow("f", {.second_phase = {.attempts = 100'000,
                                   .first_delay = milliseconds(100),
                                   .max_delay = milliseconds(100),
                                   .budget = seconds(1)}});
  flow.group("main", {failing(at)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  EXPECT_LE(passed_ms(), 1000);
  EXPECT_GE(at.size(), 8u);
  EXPECT_LE(at.size(), 10u);
}

TEST_F(Bounds, FLOW_24_a_decided_exchange_that_is_not_over_is_listed_as_deciding) {
  Flow flow("f", {.store = store.get()});
  bool committing = false;
  Phases made;
  made.commit = [&](Exchange& x) -> Status {
    committing = true;
    return x.attempt() < 2 ? fail(FailureKind::unavailable, "down", "down") : Status();
  };
  flow.group("main", {phases("a", Effect::external, std::move(made))});
  auto running = start(flow, exchange());
  drive([&] { return committing; });
  const auto open = store::ask_now(*store, store::ListOpen{});
  ASSERT_EQ(open->size(), 1u);
  EXPECT_EQ(open->front().state, store::OpenState::deciding);
  drive([&] { return running->outcome.has_value(); });
  EXPECT_EQ(running->outcome->kind, OutcomeKind::committed);
  lane.run_ready();
}

TEST_F(Bounds, FLOW_18_a_retry_that_cannot_begin_before_the_deadline_is_not_waited_for) {
  Flow flow("f", {.commit_margin = milliseconds(0)});
  resilience::RetryPolicy policy;
  policy.backoff.base = milliseconds(200);
  policy.backoff.jitter = resilience::Jitter::none;
  int asked = 0;
  flow.group("main", {retry(func("a",
                                 [&](Exchange&) -> Result<Vote> {
                                   ++asked;
                                   return fail(FailureKind::unavailable, "down", "down");
                                 }),
                            random, policy)});
  RunOptions options;
  options.deadline = began + milliseconds(100);
  const Outcome outcome = run(flow, exchange(), std::move(options));
  EXPECT_EQ(outcome.cause->code(), "down");
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(passed_ms(), 0) << "answered at once, not at the deadline";
}

TEST_F(Bounds, FLOW_24_recovery_works_on_no_more_exchanges_at_once_than_it_may) {
  std::size_t now = 0, most = 0, ended = 0;
  class Slow final : public Stage {
   public:
    Slow(std::size_t& now, std::size_t& most, std::size_t& ended) : now_(now), most_(most), ended_(ended) {}
    std::string_view name() const noexcept override { return "slow"; }
    bool asynchronous() const noexcept override { return true; }
    Effect effect() const noexcept override { return Effect::external; }
    bool has_abort() const noexcept override { return true; }
    Task<Result<Vote>> prepare_task(Exchange& x) override { return hang(x); }
    Task<Status> abort_task(Exchange&, bool) override {
      most_ = std::max(most_, ++now_);
      auto nap = sleep_for(milliseconds(50));
      const FailureKind cut = co_await nap;
      (void)cut;
      --now_;
      ++ended_;
      co_return Status();
    }

   private:
    std::size_t &now_, &most_, &ended_;
  };
  const auto shape = [&](Flow& flow) { flow.group("main", {std::make_shared<Slow>(now, most, ended)}); };
  Flow doomed("f", {.store = store.get()});
  shape(doomed);
  std::vector<std::shared_ptr<Running>> left;
  std::vector<ExchangePtr> exchanges;
  for (int i = 0; i < 20; ++i) {
    exchanges.push_back(exchange());
    left.push_back(start(doomed, exchanges.back()));
  }
  settle_lane();
  Flow again("f", {.store = store.get()});
  shape(again);
  EXPECT_EQ(recover(again, nullptr, {.parallel = 3, .batch = 10}).aborted, 20u);
  EXPECT_EQ(ended, 20u);
  EXPECT_EQ(most, 3u);
  // The first process is gone: nothing of it may act any more.
  for (auto& x : exchanges) x->scope().cancel();
  drive([&] { return std::ranges::all_of(left, [](const auto& r) { return r->outcome.has_value(); }); });
  lane.run_ready();
  EXPECT_TRUE(store::ask_now(*store, store::ListOpen{})->empty());
}

}  // namespace
}  // namespace sluice::flow
