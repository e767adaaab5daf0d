// Sentences of the specification at their edges: what goes wrong when two of them meet.
#include <stdexcept>

#include "flow/history.hpp"
#include "flow_fixture.hpp"
#include "sluice/flow/combine.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::flow {
namespace {

store::KvKey at(std::string key) { return {"app", "accounts", std::move(key)}; }

/// Hands Commits on; the k-th may be the end (dies: never answered) or be answered unknown_outcome.
class OddStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  int at = -1;
  bool applies = false;
  bool dies = false;
  bool dead = false;
  int seen = 0;
  void submit(store::PendingCommit& pending) override {
    if (dead) return;
    if (seen++ != at) return inner_.submit(pending);
    if (applies) (void)store::commit_and_wait(inner_, pending.commit);
    if (dies) {
      dead = true;
      return;
    }
    pending.outcome = fail(FailureKind::unknown_outcome, "", "lost");
    pending.lane->post(pending);
  }
};

class Sentences : public FlowTest {
 protected:
  ~Sentences() override {
    store->close();
    settle_lane();
  }
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  std::unique_ptr<idempotency::Keys> keys = std::make_unique<idempotency::Keys>(clock, store.get());
  std::int64_t balance(const std::string& key) {
    auto rows = store::ask_now(*store, store::GetRows{{at(key)}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }
  void deposit(const std::string& key, std::int64_t amount) {
    (void)store::commit_and_wait(*store, {.then = {store::KvAdd{at(key), amount}}});
  }
  void settle_lane() {
    while (lane.run_ready() != 0) {
    }
  }
  void advance(Duration by) {
    const Instant end = clock.now() + by;
    while (clock.now() < end) {
      if (lane.run_ready() != 0) continue;
      clock.advance_to(std::min(end, lane.next_timer()));
    }
    settle_lane();
  }
  FlowOptions keyed(store::Store& on, idempotency::Keys& with) {
    FlowOptions options;
    options.store = &on;
    options.keys = &with;
    options.key = [](const Exchange&) { return std::optional<std::string>("k"); };
    options.key_policy.wait = false;
    return options;
  }
  RecoveryProgress recover(Flow& flow) {
    Flows flows;
    flows.add(flow);
    Recovery recovery(*store, flows, lane);
    std::optional<Result<RecoveryProgress>> result;
    lane.post([&] { recovery.start([&](const Result<RecoveryProgress>& r) { result = r; }); });
    drive([&] { return result.has_value(); });
    settle_lane();
    return result && *result ? **result : RecoveryProgress{};
  }
  std::size_t open() { return store::ask_now(*store, store::ListOpen{})->size(); }
  Status wake(Flow& flow, std::string token, Bytes payload = "yes") {
    struct Asking : PendingWake {
      bool over = false;
    } asking;
    asking.ns = Namespace("app");
    asking.token = std::move(token);
    asking.payload = std::move(payload);
    asking.lane = &lane;
    asking.run = [](Job* job) noexcept { static_cast<Asking*>(static_cast<PendingWake*>(job))->over = true; };
    flow.wake(asking);
    drive([&] { return asking.over; });
    return asking.answer;
  }
  std::size_t count(std::string_view call) {
    return static_cast<std::size_t>(std::ranges::count(record.calls, call));
  }
};

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

// A pause whose write was in doubt: told aborted, woken later, committed.
TEST_F(Sentences, FLOW_22_what_was_told_aborted_when_the_pause_was_in_doubt_never_commits) {
  deposit("ann", 25);
  OddStore odd(*store);
  odd.at = 0;
  odd.applies = true;
  std::vector<std::string> asked;
  Flow flow("f", {.store = &odd});
  flow.group("main", {func("debit",
                           [](Exchange& x) -> Result<Vote> {
                             x.draft().take(at("ann"), 10, "insufficient_funds");
                             return Vote();
                           }),
                      await_answer("approval", Effect::store,
                                   {.ask = [&](Exchange& x) -> Status { asked.push_back(x.token()); return {}; },
                                    .answer = [](Exchange&, ByteView) -> Result<Vote> { return Vote(); },
                                    .commit = {}, .abort = {}, .timeout = seconds(30)})});
  const auto outcome = run(flow, exchange());
  recover(flow);  // the sweep
  (void)wake(flow, asked.at(0));
  settle_lane();
  EXPECT_FALSE(outcome.kind == OutcomeKind::aborted && balance("ann") == 15)
      << "told aborted (" << outcome.cause->to_string() << "), and debited";
}

// FLOW-30, PROTOCOL Keys: a decline is stored whatever its failure kind, also by recovery.
TEST_F(Sentences, FLOW_30_a_decline_decided_before_a_crash_is_remembered_by_recovery) {
  int asked = 0;
  const auto make = [&](store::Store& on, idempotency::Keys& with) {
    auto flow = std::make_unique<Flow>("f", keyed(on, with));
    flow->group("main", {record.stage("a", Effect::external), func("issuer", [&](Exchange& x) -> Result<Vote> {
                           if (++asked > 1) return Vote();  // would be approved now
                           x.respond({.kind = FailureKind::unavailable, .code = "issuer_91"});
                           x.abort("issuer_91");
                           return Vote();
                         })});
    return flow;
  };
  OddStore dying(*store);
  dying.at = 1;  // the decision to abort, with its reply
  dying.applies = dying.dies = true;
  idempotency::Keys lost(clock, &dying);
  auto doomed = make(dying, lost);
  start(*doomed, exchange());
  settle_lane();
  auto flow = make(*store, *keys);
  EXPECT_EQ(recover(*flow).aborted, 1u);
  const auto again = run(*flow, exchange());
  EXPECT_EQ(asked, 1) << "the retransmitted decline was processed again";
  EXPECT_EQ(again.kind, OutcomeKind::aborted) << "and approved";
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

// PROTOCOL 8: the second phase sees what recovery would see.
TEST_F(Sentences, PROTOCOL_8_a_durable_value_changed_in_place_is_the_same_live_and_after_a_crash) {
  const auto kAmount = durable_text("amount");
  std::vector<std::string> captured;
  const auto make = [&](store::Store* on) {
    Phases capture;
    capture.prepare = [=](Exchange& x) -> Result<Vote> {
      x.set(kAmount, std::string("10"));
      return Vote();
    };
    capture.commit = [=, &captured](Exchange& x) -> Status {
      captured.push_back(*x.get(kAmount));
      return {};
    };
    auto flow = std::make_unique<Flow>("f", FlowOptions{.store = on});
    flow->group("main", {phases("capture", Effect::external, std::move(capture)),
                         func("surcharge", [=](Exchange& x) -> Result<Vote> {
                           *x.get(kAmount) = "12";
                           return Vote();
                         })});
    return flow;
  };
  auto live = make(store.get());
  run(*live, exchange());
  OddStore dying(*store);
  dying.at = 1;
  dying.applies = dying.dies = true;
  auto doomed = make(&dying);
  start(*doomed, exchange());
  settle_lane();
  auto next = make(store.get());
  recover(*next);
  ASSERT_EQ(captured.size(), 2u);
  EXPECT_EQ(captured[0], captured[1]) << "live captured another amount than recovery";
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

// PROTOCOL 6: settling speaks about the external stages only.
TEST_F(Sentences, PROTOCOL_6_settling_does_not_contradict_the_decided_effects) {
  deposit("ann", 25);
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f", keyed(*store, *keys));
  flow.group("main", {record.stage("a", Effect::external), func("debit", [](Exchange& x) -> Result<Vote> {
                        x.draft().take(at("ann"), 10, "insufficient_funds");
                        x.respond(Reply::ok("debited"));
                        return Vote();
                      })});
  auto x = exchange();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::in_doubt);
  settle_lane();
  ASSERT_TRUE(settle(*store, x->id(), false, "ops", "partner never did it"));
  const auto again = run(flow, exchange());
  EXPECT_EQ(balance("ann"), 15);
  ASSERT_TRUE(again.reply);
  EXPECT_EQ(again.reply->body, "debited") << "told " << again.reply->code << " though ann was debited";
}
TEST_F(Sentences, PROTOCOL_6_settling_as_committed_what_was_decided_abort_is_no_success) {
  deposit("ann", 25);
  record.failing_abort = "a";
  record.failing_times = 1000;
  Flow flow("f", keyed(*store, *keys));
  flow.group("main", {record.stage("a", Effect::external), func("debit", [](Exchange& x) -> Result<Vote> {
                        x.draft().take(at("ann"), 10, "insufficient_funds");
                        return fail(FailureKind::unavailable, "down", "");
                      })});
  auto x = exchange();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::in_doubt);
  settle_lane();
  const auto settled = settle(*store, x->id(), true, "ops", "done by hand");
  const auto again = run(flow, exchange());
  EXPECT_FALSE(settled && again.kind == OutcomeKind::committed) << "told committed, and nothing was debited";
}

// PROTOCOL's kill table: an external commit() keeps failing → in_doubt status.
TEST_F(Sentences, FLOW_30_a_durable_in_doubt_is_told_in_doubt_to_a_retry) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f", keyed(*store, *keys));
  flow.group("main", {record.stage("a", Effect::external)});
  EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::in_doubt);
  settle_lane();
  const auto again = run(flow, exchange());
  EXPECT_EQ(again.kind, OutcomeKind::in_doubt)
      << (again.cause ? again.cause->to_string() : "") << ": the door answers 409 in_progress for ever";
}

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
  for (const FailureKind kind : {FailureKind::unknown_outcome, FailureKind::timeout}) {
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
TEST_F(Sentences, IDEM_7_nor_after_a_crash_between_its_intent_and_the_decision) {
  int paid = 0;
  const auto make = [&](store::Store& on, idempotency::Keys& with) {
    auto flow = std::make_unique<Flow>("f", keyed(on, with));
    flow->group("main", {func("pay", [&](Exchange&) -> Result<Vote> { ++paid; return Vote(); }, Effect::external)});
    return flow;
  };
  OddStore dying(*store);
  dying.at = 1;
  dying.dies = true;
  idempotency::Keys lost(clock, &dying);
  auto doomed = make(dying, lost);
  start(*doomed, exchange());
  settle_lane();
  auto flow = make(*store, *keys);
  const auto progress = recover(*flow);
  EXPECT_EQ(progress.aborted, 0u) << "told aborted: nobody undid it";
  run(*flow, exchange());
  EXPECT_EQ(paid, 1) << "paid twice under one key";
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

// A store that cannot be read for a moment does not make a version unknown.
TEST_F(Sentences, FLOW_24_a_failed_read_of_the_journal_is_not_an_unknown_version) {
  class Blind final : public testing_support::ForwardingStore {
   public:
    using ForwardingStore::ForwardingStore;
    bool ask(store::PendingQuery& pending) override {
      if (std::holds_alternative<store::ReadJournal>(pending.query)) {
        pending.answer = fail(FailureKind::overloaded, "queue_full", "");
        return true;
      }
      return inner_.ask(pending);
    }
  };
  OddStore dying(*store);
  dying.at = 0;
  dying.applies = dying.dies = true;
  Flow doomed("f", {.store = &dying});
  doomed.group("main", {record.stage("a", Effect::external)});
  start(doomed, exchange());
  settle_lane();
  Blind blind(*store);
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external)});
  Flows flows;
  flows.add(flow);
  Recovery recovery(blind, flows, lane);
  bool over = false;
  lane.post([&] { recovery.start([&](const Result<RecoveryProgress>&) { over = true; }); });
  drive([&] { return over; });
  settle_lane();
  const auto rows = store::ask_now(*store, store::ListOpen{});
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_NE(rows->at(0).state, store::OpenState::in_doubt) << "an operator may now settle what is merely unread";
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

// FLOW-27: one unreadable transaction does not hide the others.
TEST_F(Sentences, FLOW_27_an_unreadable_journal_does_not_hide_the_other_transactions_in_doubt) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external)});
  EXPECT_EQ(run(flow, exchange()).kind, OutcomeKind::in_doubt);
  settle_lane();
  const auto newer = ids.exchange();
  store::OpenPut open_row;
  open_row.row = {.exchange = newer, .ns = "app", .flow = "f", .state = store::OpenState::in_doubt};
  store::Commit commit;
  commit.then.push_back(store::JournalAppend{{newer, 0, "a format of tomorrow"}});
  commit.then.push_back(std::move(open_row));
  ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
  const auto listed = list_in_doubt(*store, 10);
  ASSERT_TRUE(listed) << listed.error().to_string();
  EXPECT_EQ(listed->size(), 2u);
}

// Unproven until now; these hold, and keep holding.
TEST_F(Sentences, FLOW_23_recovery_gives_commit_the_request) {
  std::string seen;
  Phases pay;
  pay.prepare = [](Exchange&) -> Result<Vote> { return Vote(); };
  pay.commit = [&](Exchange& x) -> Status {
    seen = Bytes(x.request()) + "/" + x.principal;
    return {};
  };
  OddStore dying(*store);
  dying.at = 1;
  dying.applies = dying.dies = true;
  Flow doomed("f", {.store = &dying});
  doomed.group("main", {phases("pay", Effect::external, pay)});
  auto x = exchange("10 EUR");
  x->principal = "ann";
  start(doomed, x);
  settle_lane();
  Flow flow("f", {.store = store.get()});
  flow.group("main", {phases("pay", Effect::external, pay)});
  recover(flow);
  EXPECT_EQ(seen, "10 EUR/ann");
}
TEST_F(Sentences, FLOW_24_another_graph_under_one_version_is_in_doubt) {
  OddStore dying(*store);
  dying.at = 0;
  dying.applies = dying.dies = true;
  Flow doomed("f", {.store = &dying});
  doomed.group("main", {record.stage("a", Effect::external)});
  start(doomed, exchange());
  settle_lane();
  record.calls.clear();
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("b", Effect::external)});
  EXPECT_EQ(recover(flow).in_doubt, 1u);
  EXPECT_TRUE(record.calls.empty());
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
TEST_F(Sentences, FLOW_21_the_payload_of_a_wake_up_survives_a_crash) {
  std::string token;
  std::vector<std::string> answers;
  const auto make = [&](store::Store& on) {
    auto flow = std::make_unique<Flow>("f", FlowOptions{.store = &on});
    flow->group("main", {await_answer("host", Effect::store,
                                      {.ask = [&](Exchange& x) -> Status { token = x.token(); return {}; },
                                       .answer = [&](Exchange&, ByteView a) -> Result<Vote> { answers.emplace_back(a); return Vote(); },
                                       .commit = {}, .abort = {}})});
    return flow;
  };
  OddStore dying(*store);
  dying.at = 2;  // paused, woken, decision
  dying.dies = true;
  auto doomed = make(dying);
  start(*doomed, exchange());
  settle_lane();
  ASSERT_TRUE(wake(*doomed, token, "approved"));
  settle_lane();
  auto flow = make(*store);
  recover(*flow);
  EXPECT_EQ(answers, (std::vector<std::string>{"approved", "approved"}));
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
