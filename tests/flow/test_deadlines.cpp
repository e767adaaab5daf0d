// A store that stands still, and the deadline of a flow's caller.
#include "flow_fixture.hpp"
#include "support/silent_store.hpp"

namespace sluice::flow {
namespace {

class FlowDeadlines : public FlowTest {
 protected:
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  testing_support::SilentStore silent{*store};
  /// Runs until half a second is over, and then tells nothing more to anybody.
  StagePtr outstays() {
    return task_func("outstays", [this](Exchange&) -> Task<Result<Vote>> {
      silent.silent = true;
      auto nap = sleep_for(seconds(100));
      const FailureKind cut = co_await nap;
      Result<Vote> vote = Vote();
      if (cut != FailureKind::none) vote = fail(FailureKind::cancelled, "cut", "");
      co_return vote;
    });
  }
  std::shared_ptr<Running> start_with_deadline(Flow& flow, ExchangePtr x) {
    RunOptions options;
    options.deadline = clock.now() + milliseconds(500);
    return start(flow, std::move(x), std::move(options));
  }
};

TEST_F(FlowDeadlines, FLOW_11_a_decision_to_abort_that_the_store_does_not_take_is_pending_at_the_callers_deadline) {
  Flow flow("f", {.store = &silent});
  flow.group("main", {record.stage("a", Effect::external), outstays()});
  auto x = exchange();
  const auto running = start_with_deadline(flow, x);
  advance(milliseconds(499));
  EXPECT_FALSE(running->outcome) << "prepare was cut short, and the abort is not decided";
  advance(milliseconds(2));
  ASSERT_TRUE(running->outcome);
  EXPECT_EQ(running->outcome->kind, OutcomeKind::pending);
  silent.go_on();
  advance(seconds(1));
  EXPECT_EQ(record.calls, (std::vector<std::string>{"a.prepare", "a.abort(1)"}));
  EXPECT_EQ(describe(*store, x->id())->outcome, "aborted");
}

TEST_F(FlowDeadlines, FLOW_11_a_read_that_the_store_does_not_answer_ends_with_the_deadline_and_nothing_is_left) {
  Flow flow("f", {.store = &silent});
  flow.group("main", {task_func("read", [](Exchange& x) -> Task<Result<Vote>> {
               auto reading = x.read_task({"app", "accounts", "ann"});
               const auto row = co_await reading;
               Result<Vote> vote = Vote();
               if (!row) vote = fail(row.error());
               co_return vote;
             })});
  silent.silent = true;
  auto x = exchange();
  const auto running = start_with_deadline(flow, x);
  advance(milliseconds(500));
  ASSERT_TRUE(running->outcome);
  EXPECT_EQ(running->outcome->kind, OutcomeKind::aborted);
  EXPECT_EQ(running->outcome->cause->kind(), FailureKind::timeout);
  silent.go_on();  // to nobody
  advance(seconds(1));
  EXPECT_FALSE(describe(*store, x->id()));
}

}  // namespace
}  // namespace sluice::flow
