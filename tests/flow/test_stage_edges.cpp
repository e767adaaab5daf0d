// Stages, their combinations and their limits, where two sentences meet.
#include <stdexcept>

#include "sentences_fixture.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {
namespace {

TEST_F(Sentences, FLOW_15_in_parallel_the_others_still_commit) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f");
  flow.group("main", {parallel("both", {record.stage("a"), record.stage("b")})});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  EXPECT_GE(count("b.commit"), 1u);
}

StagePtr thrower(std::string name, bool in_commit) {
  Phases made;
  made.prepare = [](Exchange&) -> Result<Vote> { return Vote(); };
  made.commit = [in_commit](Exchange&) -> Status {
    if (in_commit) throw std::runtime_error("commit");
    return {};
  };
  made.abort = [in_commit](Exchange&, bool) -> Status {
    if (!in_commit) throw std::runtime_error("abort");
    return {};
  };
  return phases(std::move(name), Effect::none, std::move(made));
}

TEST_F(Sentences, FLOW_14_in_parallel_an_abort_that_throws_does_not_keep_the_others_from_theirs) {
  Flow flow("f");
  flow.group("main", {parallel("both", {record.stage("a"), thrower("t", false)}),
                      func("no", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "no", ""); })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  EXPECT_GE(count("a.abort(1)"), 1u) << "a's reservation leaked";
}

TEST_F(Sentences, FLOW_16_the_token_of_a_stage_stays_after_a_parallel_commit_threw) {
  std::vector<std::string> tokens;
  Phases next;
  next.prepare = [&](Exchange& x) -> Result<Vote> {
    tokens.push_back(x.token());
    return Vote();
  };
  next.commit = [&](Exchange& x) -> Status {
    tokens.push_back(x.token());
    return {};
  };
  Flow flow("f");
  flow.group("main", {parallel("both", {thrower("t", true)}), phases("next", Effect::none, next)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0], tokens[1]) << "another idempotency key downstream: done twice";
}

TEST_F(Sentences, FLOW_9_a_decline_set_inside_parallel_is_the_reply) {
  Flow flow("f");
  flow.group("main", {func("greet", [](Exchange& x) -> Result<Vote> {
                        x.respond(Reply::ok("approved"));
                        return Vote();
                      }),
                      parallel("checks", {func("limit", [](Exchange& x) -> Result<Vote> {
                                            x.respond({.kind = FailureKind::rejected, .code = "over_limit"});
                                            x.abort("over_limit");
                                            return Vote();
                                          })})});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  ASSERT_TRUE(outcome.reply);
  EXPECT_EQ(outcome.reply->code, "over_limit") << "told " << outcome.reply->body;
}

TEST_F(Sentences, FLOW_19_a_time_limit_holds_inside_parallel) {
  class Slow final : public Stage {
   public:
    std::string_view name() const noexcept override { return "slow"; }
    bool asynchronous() const noexcept override { return true; }
    Duration time_limit() const noexcept override { return milliseconds(10); }
    Task<Result<Vote>> prepare_task(Exchange&) override {
      auto nap = sleep_for(std::chrono::minutes(10));
      const FailureKind cut = co_await nap;
      Result<Vote> vote = Vote();
      if (cut != FailureKind::none) vote = fail(FailureKind::cancelled, "cut", "");
      co_return vote;
    }
  };
  Flow flow("f");
  flow.group("main", {parallel("p", {std::make_shared<Slow>()})});
  const Instant began = clock.now();
  run(flow);
  EXPECT_LT(clock.now() - began, seconds(1));
}

TEST_F(Sentences, FLOW_21_a_pause_vote_inside_parallel_is_not_taken_for_continue) {
  Flow flow("f");
  flow.group("main", {parallel("p", {func("approval", [](Exchange&) -> Result<Vote> { return Vote::pause(seconds(5)); })})});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
}

TEST_F(Sentences, FLOW_18_retry_asks_again_also_around_await_answer) {
  int asked = 0;
  Flow flow("f");
  flow.group("main", {retry(await_answer("host", Effect::none,
                                         {.ask = [&](Exchange&) -> Status {
                                            if (++asked == 1) return fail(FailureKind::unavailable, "down", "");
                                            return {};
                                          },
                                          .answer = [](Exchange&, ByteView) -> Result<Vote> { return Vote(); },
                                          .commit = {}, .abort = {}, .timeout = seconds(1)}),
                            random)});
  const auto outcome = run(flow);
  EXPECT_EQ(asked, 2);
  EXPECT_EQ(outcome.cause->code(), "no_answer");
}

TEST_F(Sentences, FLOW_15_all_stages_that_never_committed_are_named) {
  Flow flow("f");
  Phases bad;
  bad.commit = [](Exchange&) -> Status { return fail(FailureKind::unavailable, "down", ""); };
  flow.group("main", {phases("first_partner", Effect::none, bad), phases("second_partner", Effect::none, bad)});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::in_doubt);
  EXPECT_NE(outcome.cause->to_string().find("first_partner"), std::string::npos) << outcome.cause->to_string();
  EXPECT_NE(outcome.cause->to_string().find("second_partner"), std::string::npos);
}

TEST_F(Sentences, FLOW_22_observers_see_the_cause_of_an_abort) {
  auto seen = std::make_shared<MemoryObserver>();
  FlowOptions options;
  options.observers = {seen};
  Flow flow("f", std::move(options));
  flow.group("main", {func("a", [](Exchange& x) -> Result<Vote> {
                        x.abort("no_credit");
                        return Vote();
                      })});
  run(flow);
  EXPECT_EQ(seen->seen().back().cause, "no_credit");
}

TEST_F(Sentences, FLOW_11_a_stage_that_hangs_after_a_pause_ends_with_the_resumed_budget) {
  std::string token;
  Flow flow("f");
  flow.group("main", {await_answer("host", Effect::none,
                                   {.ask = [&](Exchange& x) -> Status { token = x.token(); return {}; },
                                    .answer = [](Exchange&, ByteView) -> Result<Vote> { return Vote(); },
                                    .commit = {}, .abort = {}, .timeout = seconds(30)}),
                      task_func("hangs", [](Exchange&) -> Task<Result<Vote>> {
                        auto nap = sleep_for(std::chrono::minutes(50));
                        const FailureKind cut = co_await nap;
                        Result<Vote> vote = Vote();
                        if (cut != FailureKind::none) vote = fail(FailureKind::cancelled, "cut", "");
                        co_return vote;
                      })});
  auto running = start(flow, exchange());
  settle_lane();
  ASSERT_TRUE(wake(flow, token));
  const Instant began = clock.now();
  drive([&] { return running->outcome.has_value(); });
  EXPECT_LE(clock.now() - began, seconds(31)) << "FlowOptions::resumed_budget";
}

TEST_F(Sentences, FLOW_21_a_wake_up_that_could_not_be_written_does_not_prolong_the_pause) {
  OddStore odd(*store);
  std::string token;
  Flow flow("f", {.store = &odd});
  flow.group("main", {await_answer("host", Effect::none,
                                   {.ask = [&](Exchange& x) -> Status { token = x.token(); return {}; },
                                    .answer = [](Exchange&, ByteView) -> Result<Vote> { return Vote(); },
                                    .commit = {}, .abort = {}, .timeout = seconds(30)})});
  const Instant began = clock.now();
  auto running = start(flow, exchange());
  settle_lane();
  advance(seconds(29));
  odd.at = odd.seen;  // lost
  EXPECT_FALSE(wake(flow, token));
  drive([&] { return running->outcome.has_value(); });
  EXPECT_LE(clock.now() - began, seconds(31)) << "timeout was 30 s";
}

TEST_F(Sentences, FLOW_24_the_graph_hash_covers_the_children_of_parallel) {
  const auto hash = [&](std::vector<StagePtr> children) {
    Flow flow("f");
    flow.group("main", {parallel("p", std::move(children))});
    return flow.graph_hash();
  };
  EXPECT_NE(hash({record.stage("a", Effect::external), record.stage("b", Effect::external)}),
            hash({record.stage("b", Effect::external), record.stage("a", Effect::external)}))
      << "recovery would abort b for what a reserved";
}

TEST_F(Sentences, FLOW_33_lint_sees_a_child_of_parallel_that_reserves_without_abort) {
  Flow flow("f");
  flow.group("main", {parallel("p", {record.stage("a", Effect::external),
                                     func("pay", [](Exchange&) { return Vote(); }, Effect::external)})});
  EXPECT_FALSE(flow.lint().empty());
}

TEST_F(Sentences, FLOW_33_lint_sees_as_deep_as_stages_are_nested) {
  const auto lint_of = [&](StagePtr inner) {
    Flow flow("f");
    flow.group("main", {parallel("outer", {record.stage("a", Effect::external),
                                           retry(parallel("inner", {record.stage("b", Effect::external), std::move(inner)}), random)})});
    return flow.lint();
  };
  const auto findings = lint_of(func("pay", [](Exchange&) { return Vote(); }, Effect::external));
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_NE(findings[0].find("no_abort: external stage 'pay'"), std::string::npos);
  EXPECT_TRUE(lint_of(record.stage("pay", Effect::external)).empty());
}

// combine.hpp: what a failed attempt did is taken back. Its response is told of the commit.
TEST_F(Sentences, FLOW_18_the_response_of_a_failed_attempt_is_not_the_reply_of_the_commit) {
  Flow flow("f", {.store = store.get()});
  int tries = 0;
  flow.group("main", {retry(func("pay", [&](Exchange& x) -> Result<Vote> {
                              x.draft().add(at("ann"), 10);
                              if (++tries > 1) return Vote();
                              x.respond({.kind = FailureKind::unavailable, .code = "issuer_91"});
                              return fail(FailureKind::unavailable, "issuer_91", "");
                            }),
                            random)});
  const auto outcome = run(flow, exchange());
  EXPECT_EQ(outcome.kind, OutcomeKind::committed);
  EXPECT_EQ(balance("ann"), 10);
  EXPECT_FALSE(outcome.reply && outcome.reply->kind != FailureKind::none) << "told a failure, and paid";
}

// Last: it ends the process until it is mended.
TEST_F(Sentences, FLOW_17_a_profiler_that_throws_does_not_end_the_process) {
  EXPECT_EXIT(
      {
        FlowOptions options;
        options.profiler = [](const Exchange&, const Profile&) { throw std::runtime_error("profiler"); };
        Flow flow("f", std::move(options));
        flow.group("main", {record.stage("a")});
        run(flow);
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace sluice::flow
