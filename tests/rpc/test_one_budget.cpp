// Retries of several layers: a stage that is retried, calling a service whose rule retries. What one layer has given
// up on, the next does not do all over again.
#include "rpc/client_fixture.hpp"
#include "sluice/flow.hpp"
#include "sluice/rpc/flow_handler.hpp"

namespace sluice::rpc {
namespace {

using flow::Exchange;
using flow::Vote;

class OneBudget : public ClientTest {
 protected:
  // The stage asks once each time it is prepared, under the exchange's token.
  flow::StagePtr asks() {
    return flow::task_func("ask", [this](Exchange& x) { return ask(x); }, flow::Effect::external);
  }
  Task<Result<Vote>> ask(Exchange& x) {
    ++prepared;
    CallContext context = outbound_context(x);
    auto calling = client->call(*command, std::move(context), "{}");
    auto answer = co_await calling;
    if (answer) co_return Vote();
    co_return fail(answer.error());
  }
  flow::StagePtr retried(resilience::RetryBudget* budget = nullptr) {
    resilience::RetryPolicy keyed;
    keyed.has_key = true;
    return flow::retry(asks(), random, keyed, budget);
  }
  /// One exchange through `stage` alone.
  flow::Outcome run(flow::StagePtr stage) {
    flow::Flow flow("f");
    flow.group("main", {std::move(stage)});
    auto x = std::make_shared<Exchange>(ids.exchange(), Namespace("shop"), "{}");
    std::optional<flow::Outcome> outcome;
    flow::RunOptions options;
    options.lane = &lane;
    lane.post([&] {
      flow.run(x, std::move(options),
               [](void* to, flow::Outcome o) noexcept { *static_cast<std::optional<flow::Outcome>*>(to) = std::move(o); }, &outcome);
    });
    for (int i = 0; i < 200'000 && !outcome; ++i) {
      lane.run_ready();
      if (!outcome) clock.advance(milliseconds(1));
    }
    lane.run_ready();
    EXPECT_TRUE(outcome);
    return outcome.value_or(flow::Outcome{});
  }
  void outage(FailureKind kind) { channel->script.assign(1000, ScriptChannel::failure(kind, "down")); }
  void call_through(const std::string& toml, std::string name = "put") {
    rules(toml);
    chain({guard_calls(guards, random)});
    command = &client->add(writes(std::move(name)));
  }

  IdSource ids{clock, 1};
  const RemoteCommand* command = nullptr;
  int prepared = 0;
};

TEST_F(OneBudget, RES_30_three_tries_of_a_stage_and_three_of_its_call_are_three_calls) {
  for (const auto kind : {FailureKind::unavailable, FailureKind::unknown_outcome, FailureKind::overloaded}) {
    SCOPED_TRACE(traits(kind).name);
    call_through("[guard.put.retry]\nattempts = 3\nbase = \"1ms\"\nbudget_tokens = 1000\n");
    outage(kind);
    channel->seen.clear();
    EXPECT_NE(run(retried()).kind, flow::OutcomeKind::committed);
    EXPECT_EQ(channel->seen.size(), 3u);
  }
  // Also where the last attempt says nothing of an earlier one that may have taken effect.
  channel->seen.clear();
  channel->script = {ScriptChannel::failure(FailureKind::unknown_outcome, "lost"), ScriptChannel::failure(FailureKind::unavailable, "down"),
                     ScriptChannel::failure(FailureKind::unavailable, "down"), ScriptChannel::failure(FailureKind::unavailable, "down")};
  (void)run(retried());
  EXPECT_EQ(channel->seen.size(), 3u);
  channel->script.clear();
  EXPECT_EQ(run(retried()).kind, flow::OutcomeKind::committed);
}

TEST_F(OneBudget, RES_30_what_no_rule_has_retried_the_stage_retries) {
  call_through("[guard.put.timeout]\ntimeout = \"1s\"\n");
  channel->script.assign(2, ScriptChannel::failure(FailureKind::unavailable, "down"));
  EXPECT_EQ(run(retried()).kind, flow::OutcomeKind::committed);
  EXPECT_EQ(channel->seen.size(), 3u);
}

TEST_F(OneBudget, RES_30_a_hundred_exchanges_in_an_outage_are_hardly_more_than_a_hundred_calls) {
  call_through("[guard.put.timeout]\ntimeout = \"1s\"\n");
  outage(FailureKind::unavailable);
  const flow::StagePtr stage = retried();
  for (int i = 0; i < 100; ++i) (void)run(stage);
  EXPECT_GT(channel->seen.size(), 100u);
  EXPECT_LE(channel->seen.size(), 105u) << "the budget of the stage";
}

TEST_F(OneBudget, RES_30_stages_and_calls_may_share_a_budget) {
  call_through("[guard.put.retry]\nattempts = 1\n");
  outage(FailureKind::unavailable);
  resilience::RetryBudget& budget = guards.find("put", Namespace("shop")).budget();
  for (int i = 0; i < 10; ++i) (void)run(retried(&budget));
  EXPECT_LE(channel->seen.size(), 13u);
  EXPECT_FALSE(budget.may_retry());
}

TEST_F(OneBudget, RES_30_a_refusal_of_our_own_is_repeated_only_at_the_time_it_names) {
  call_through("[guard.put.breaker]\n[guard.put.retry]\nattempts = 3\n");
  (void)call(*command);  // makes the protector
  ASSERT_TRUE(guards.force("put", false, resilience::BreakerState::forced_open, "ann", "stop"));
  EXPECT_EQ(run(retried()).cause->code(), "blocked_by_breaker");
  EXPECT_EQ(prepared, 1) << "an order names no time";

  prepared = 0;
  call_through("[guard.buy.rate]\nlimit = 1\nperiod = \"200ms\"\n", "buy");
  EXPECT_EQ(run(retried()).kind, flow::OutcomeKind::committed);
  const Instant began = clock.now();
  EXPECT_EQ(run(retried()).kind, flow::OutcomeKind::committed);
  EXPECT_GE(clock.now() - began, milliseconds(150)) << "when there is a token again";
  EXPECT_LE(prepared, 3);
}

}  // namespace
}  // namespace sluice::rpc
