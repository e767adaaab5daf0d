// What is told, stored and replayed, where two sentences meet.
#include "sentences_fixture.hpp"

namespace sluice::flow {
namespace {

// The response of a stage that continued is not a decline: "moved" must not be told of an abort.
TEST_F(Sentences, FLOW_9_a_success_set_before_another_stage_failed_is_not_the_reply_of_the_abort) {
  deposit("ann", 25);
  Flow flow("f", keyed(*store, *keys));
  flow.group("main", {func("transfer",
                           [](Exchange& x) -> Result<Vote> {
                             x.draft().take(at("ann"), 10, "insufficient_funds");
                             x.respond(Reply::ok("moved"));
                             return Vote();
                           }),
                      func("limits", [](Exchange&) -> Result<Vote> {
                        return fail(FailureKind::unavailable, "down", "");
                      })});
  const auto outcome = run(flow, exchange());
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(balance("ann"), 25);
  EXPECT_FALSE(outcome.reply && outcome.reply->kind == FailureKind::none)
      << "told success: " << outcome.reply->body;
  const auto again = run(flow, exchange());
  EXPECT_NE(again.kind, OutcomeKind::committed) << "a duplicate is told committed, nothing moved";
}

// IDEM-7: unavailable before effect is released.
TEST_F(Sentences, IDEM_7_a_timeout_after_a_response_was_set_releases_the_key) {
  int runs = 0;
  Flow flow("f", keyed(*store, *keys));
  flow.group("main", {func("one",
                           [&](Exchange& x) -> Result<Vote> {
                             ++runs;
                             x.respond(Reply::ok("approved"));
                             return Vote();
                           }),
                      func("two", [&](Exchange&) -> Result<Vote> {
                        if (runs == 1) return fail(FailureKind::timeout, "slow", "");
                        return Vote();
                      })});
  run(flow, exchange());
  run(flow, exchange());
  EXPECT_EQ(runs, 2);
}

TEST_F(Sentences, PROTOCOL_3_two_takes_of_one_row_do_not_overdraw_it) {
  deposit("ann", 15);
  Flow flow("f", {.store = store.get()});
  const auto take = [](Exchange& x) -> Result<Vote> {
    x.draft().take(at("ann"), 10, "insufficient_funds");
    return Vote();
  };
  flow.group("main", {func("price", take), func("fee", take)});
  const auto outcome = run(flow, exchange());
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_GE(balance("ann"), 0) << "refused when fewer are there";
}

// PROTOCOL, Keys: a claim that names an exchange with a pause is taken over only by its recovery.
TEST_F(Sentences, PROTOCOL_9_a_paused_exchange_keeps_its_claim_longer_than_the_ttl) {
  deposit("ann", 100);
  std::vector<std::string> asked;
  const auto make = [&] {
    auto options = keyed(*store, *keys);
    options.key_policy.ttl = std::chrono::hours(1);
    auto flow = std::make_unique<Flow>("f", std::move(options));
    flow->group("main", {func("debit",
                             [](Exchange& x) -> Result<Vote> {
                               x.draft().take(at("ann"), 10, "insufficient_funds");
                               return Vote();
                             }),
                        await_answer("approval", Effect::store,
                                     {.ask = [&](Exchange& x) -> Status { asked.push_back(x.token()); return {}; },
                                      .answer = [](Exchange&, ByteView) -> Result<Vote> { return Vote(); },
                                      .commit = {}, .abort = {}, .timeout = std::chrono::hours(48)})});
    return flow;
  };
  auto first = make();
  RunOptions patience;
  patience.deadline = clock.now() + seconds(1);
  EXPECT_EQ(run(*first, exchange(), std::move(patience)).kind, OutcomeKind::pending);
  first.reset();  // a restart
  keys = std::make_unique<idempotency::Keys>(clock, store.get());
  auto flow = make();
  recover(*flow);
  advance(std::chrono::hours(2));
  auto retry = start(*flow, exchange());
  settle_lane();
  EXPECT_EQ(asked.size(), 1u) << "a retry with the key ran the transaction again";
  for (const auto& token : asked) (void)wake(*flow, token);
  settle_lane();
  EXPECT_EQ(balance("ann"), 90) << "debited twice under one key";
}

// The same for one in doubt.
TEST_F(Sentences, IDEM_7_in_doubt_is_never_run_again_also_after_the_ttl) {
  deposit("ann", 100);
  record.failing_commit = "a";
  record.failing_times = 1000;
  auto options = keyed(*store, *keys);
  options.key_policy.ttl = std::chrono::hours(1);
  Flow flow("f", std::move(options));
  flow.group("main", {record.stage("a", Effect::external), func("debit", [](Exchange& x) -> Result<Vote> {
                        x.draft().take(at("ann"), 10, "insufficient_funds");
                        return Vote();
                      })});
  EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::in_doubt);
  settle_lane();
  clock.advance(std::chrono::hours(2));
  run(flow, exchange());
  EXPECT_EQ(count("a.prepare"), 1u);
  EXPECT_EQ(balance("ann"), 90) << "debited twice under one key";
}

// FLOW-30: the replay of a decline has the outcome of the first.
TEST_F(Sentences, FLOW_30_a_replayed_decline_is_not_told_committed) {
  Flow flow("f", keyed(*store, *keys));
  flow.group("main", {func("issuer", [](Exchange& x) -> Result<Vote> {
                        x.respond(Reply::ok("{\"response_code\":\"51\"}"));  // a decline in its own words
                        x.abort("no_credit");
                        return Vote();
                      })});
  EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::aborted);
  EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::aborted);
}

// PROTOCOL 2 and 5: the reply is fixed by the deciding Commit.
TEST_F(Sentences, PROTOCOL_5_a_commit_that_responds_does_not_change_the_decided_reply) {
  Phases made;
  made.prepare = [](Exchange& x) -> Result<Vote> {
    x.respond(Reply::ok("decided"));
    return Vote();
  };
  made.commit = [](Exchange& x) -> Status {
    x.respond(Reply::ok("changed in commit"));
    return {};
  };
  for (const Effect effect : {Effect::store, Effect::external}) {
    SCOPED_TRACE(effect == Effect::external ? "external" : "store");
    FlowOptions options{.store = store.get()};
    Flow flow("f", std::move(options));
    flow.group("main", {phases("a", effect, made)});
    auto x = exchange();
    const auto outcome = run(flow, x);
    settle_lane();
    const auto view = describe(*store, x->id());
    ASSERT_TRUE(view && view->reply);
    EXPECT_EQ(outcome.reply->body, view->reply->body) << "told another reply than was decided";
  }
}

// Two guards of one name with different refusals: what is told is what is stored.
TEST_F(Sentences, PROTOCOL_5_the_refusal_told_is_the_refusal_stored) {
  deposit("ann", 25);
  Flow flow("f", keyed(*store, *keys));
  flow.group("main", {func("a", [](Exchange& x) -> Result<Vote> {
                        x.draft().take(at("ann"), 10, "insufficient", Reply{.kind = FailureKind::rejected, .code = "ann_is_short"});
                        x.draft().take(at("fees"), 1, "insufficient", Reply{.kind = FailureKind::rejected, .code = "fees_are_short"});
                        return Vote();
                      })});
  const auto first = run(flow, exchange());
  idempotency::Keys later(clock, store.get());
  Flow restarted("f", keyed(*store, later));
  restarted.group("main", {func("a", [](Exchange&) { return Vote(); })});
  const auto again = run(restarted, exchange());
  ASSERT_TRUE(first.reply && again.reply);
  EXPECT_EQ(first.reply->code, again.reply->code);
  EXPECT_EQ(first.reply->code, "fees_are_short");
}

TEST_F(Sentences, PROTOCOL_4_a_rerun_keeps_what_the_caller_put_into_the_bag) {
  static constexpr BagKey<int> kTerminal{"terminal"};
  deposit("ann", 25);
  Flow flow("f", {.store = store.get()});
  int runs = 0;
  std::vector<bool> had;
  flow.group("main", {func("a", [&](Exchange& x) -> Result<Vote> {
                        had.push_back(x.get(kTerminal) != nullptr);
                        (void)x.read(at("ann"), Read::verified);
                        if (++runs == 1) deposit("ann", 1);
                        return Vote();
                      })});
  auto x = exchange();
  x->set(kTerminal, 7);
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::committed);
  EXPECT_EQ(had, (std::vector<bool>{true, true}));
}

// A precondition of the application that is called as the runtime's own.
TEST_F(Sentences, PROTOCOL_3_a_precondition_named_journal_is_refused_by_name) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("a", [](Exchange& x) -> Result<Vote> {
                        x.draft().take(at("ann"), 1, "journal");
                        return Vote();
                      })});
  EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::aborted);
}

// IDEM-7: what is unknown is never run again by a retry. The stage cannot be undone.
TEST_F(Sentences, IDEM_7_an_external_stage_without_abort_whose_outcome_is_unknown_is_not_run_again) {
  // in_doubt, pending, in_progress: what was asked has decided, or still runs.
  for (const FailureKind kind : {FailureKind::unknown_outcome, FailureKind::timeout, FailureKind::cancelled, FailureKind::internal,
                                 FailureKind::in_doubt, FailureKind::pending, FailureKind::in_progress}) {
    SCOPED_TRACE(traits(kind).name);
    store = testing_support::make_any_store(clock, random);
    keys = std::make_unique<idempotency::Keys>(clock, store.get());
    int paid = 0;
    Flow flow("f", keyed(*store, *keys));
    flow.group("main", {func("pay", [&](Exchange&) -> Result<Vote> {
                          ++paid;  // the partner did it; its answer was lost
                          return fail(kind, "no_answer", "");
                        }, Effect::external)});
    run(flow, exchange());
    settle_lane();
    run(flow, exchange());
    EXPECT_EQ(paid, 1) << "paid twice under one key";
  }
}
// A stage that changes nothing outside: the failure table decides alone.
TEST_F(Sentences, IDEM_7_of_a_failure_without_a_reply_the_table_decides) {
  for (const auto& row : failure_table()) {
    if (row.kind == FailureKind::none) continue;
    SCOPED_TRACE(row.name);
    int runs = 0;
    auto options = keyed(*store, *keys);
    options.key = [&row](const Exchange&) { return std::optional<std::string>(row.name); };
    Flow flow("f", std::move(options));
    flow.group("main", {func("a", [&](Exchange&) -> Result<Vote> {
                          ++runs;
                          return fail(row.kind, "said_so", "");
                        })});
    const Outcome first = run(flow, exchange());
    EXPECT_EQ(first.kind, OutcomeKind::aborted);
    EXPECT_EQ(first.cause->kind(), row.kind);
    const Outcome again = run(flow, exchange());
    const bool stored = row.remember == Remember::store;
    EXPECT_EQ(again.replayed, stored);
    EXPECT_EQ(runs, stored ? 1 : 2);
    EXPECT_EQ(again.cause->kind(), row.kind);
    EXPECT_EQ(again.cause->code(), "said_so");
  }
}
TEST_F(Sentences, IDEM_7_an_external_abort_that_may_be_cured_frees_the_key_in_this_process_too) {
  for (const bool durable : {true, false}) {
    SCOPED_TRACE(durable);
    idempotency::Keys memory(clock, nullptr);
    auto options = keyed(*store, durable ? *keys : memory);
    if (!durable) options.store = nullptr;
    int runs = 0;
    Flow flow("f", std::move(options));
    flow.group("main", {record.stage("a", Effect::external), func("b", [&](Exchange&) -> Result<Vote> {
                          if (++runs == 1) return fail(FailureKind::unavailable, "down", "");
                          return Vote();
                        })});
    EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::aborted);
    settle_lane();
    EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::committed);
    EXPECT_EQ(runs, 2);
  }
}
TEST_F(Sentences, PROTOCOL_4_reruns_are_bounded_and_not_stored) {
  Flow flow("f", {.max_reruns = 3, .store = store.get()});
  int runs = 0;
  flow.group("main", {func("a", [&](Exchange& x) -> Result<Vote> {
                        ++runs;
                        (void)x.read(at("ann"), Read::verified);
                        deposit("ann", 1);
                        return Vote();
                      })});
  const auto outcome = run(flow, exchange());
  EXPECT_EQ(outcome.cause->code(), "too_many_reruns");
  EXPECT_EQ(runs, 4);
}
TEST_F(Sentences, PROTOCOL_5_reply_when_decided_answers_before_the_commits) {
  Flow flow("f", {.store = store.get(), .reply_when = ReplyWhen::decided});
  record.failing_commit = "a";
  record.failing_times = 3;
  flow.group("main", {record.stage("a", Effect::external)});
  const Instant began = clock.now();
  EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::committed);
  EXPECT_EQ(clock.now(), began) << "before any backoff";
  drive([&] { return open() == 0; });
}

}  // namespace
}  // namespace sluice::flow
