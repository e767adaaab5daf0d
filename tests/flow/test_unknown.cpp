// The store could not say whether the decision is durable; sweeps beside running exchanges; figures.
#include <climits>
#include <stdexcept>

#include "flow_fixture.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::flow {
namespace {

store::KvKey at(std::string key) { return {"app", "accounts", std::move(key)}; }

/// Answers unknown_outcome to the k-th Commit, applied or not; from then on as `then` says.
class DoubtfulStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  int doubtful = 0;
  bool applies = false;
  bool closed_then = false;
  int dies_at = INT_MAX;  ///< from this one on nothing arrives, and nobody is there to be told
  int seen = 0;
  void submit(store::PendingCommit& pending) override {
    const int n = seen++;
    if (n >= dies_at) return;
    if (n < doubtful || (n > doubtful && !closed_then)) return inner_.submit(pending);
    if (n == doubtful && applies) (void)store::commit_and_wait(inner_, pending.commit);
    pending.outcome = n == doubtful ? Result<store::CommitOutcome>(fail(FailureKind::unknown_outcome, "", "lost"))
                                    : Result<store::CommitOutcome>(fail(FailureKind::unavailable, "", "closed"));
    pending.lane->post(pending);
  }
};

class Unknown : public FlowTest {
 protected:
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  std::int64_t number(const std::string& key) {
    auto rows = store::ask_now(*store, store::GetRows{{at(key)}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }
  static StagePtr adds(bool refused = false) {
    return func("add", [refused](Exchange& x) -> Result<Vote> {
      if (refused) x.draft().take(at("empty"), 1, "sold_out");
      x.draft().add(at("n"), 1);
      x.respond(Reply::ok("added"));
      return Vote();
    });
  }
  std::size_t open() { return store::ask_now(*store, store::ListOpen{})->size(); }
};

TEST_F(Unknown, FLOW_22_an_unknown_decision_that_was_applied_is_found_and_told_committed) {
  DoubtfulStore doubtful(*store);
  doubtful.applies = true;
  Flow flow("f", {.store = &doubtful});
  flow.group("main", {adds()});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::committed);
  EXPECT_EQ(outcome.reply->body, "added");
  EXPECT_EQ(number("n"), 1);
}

TEST_F(Unknown, FLOW_22_one_that_was_lost_is_fenced_and_told_aborted) {
  DoubtfulStore doubtful(*store);
  Flow flow("f", {.store = &doubtful});
  flow.group("main", {adds()});
  auto x = exchange();
  const auto outcome = run(flow, x);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.cause->code(), "not_committed");
  EXPECT_FALSE(outcome.reply);
  EXPECT_EQ(number("n"), 0);
  EXPECT_EQ(describe(*store, x->id())->outcome, "aborted");
}

TEST_F(Unknown, FLOW_22_a_refusal_that_was_applied_is_told_as_the_refusal) {
  DoubtfulStore doubtful(*store);
  doubtful.applies = true;
  Flow flow("f", {.store = &doubtful});
  flow.group("main", {adds(true)});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.reply->code, "sold_out");
  EXPECT_EQ(number("n"), 0);
}

TEST_F(Unknown, FLOW_22_when_the_store_never_says_the_outcome_is_unknown_and_none_of_the_others) {
  for (const bool applies : {false, true}) {
    DoubtfulStore doubtful(*store);
    doubtful.applies = applies;
    doubtful.closed_then = true;
    auto seen = std::make_shared<MemoryObserver>();
    Flow flow("f", {.store = &doubtful, .observers = {seen}});
    flow.group("main", {adds()});
    auto x = exchange();
    const Outcome outcome = run(flow, x);
    EXPECT_EQ(outcome.kind, OutcomeKind::unknown);
    EXPECT_EQ(outcome.cause->kind(), FailureKind::unknown_outcome);
    EXPECT_EQ(seen->seen().back().kind, EventKind::unknown);
    EXPECT_EQ(open(), 0u) << "nothing that an operator could settle";
    const auto view = describe(*store, x->id());
    EXPECT_EQ(view ? view->outcome : std::string(view.error().code()), applies ? "committed" : "no_transaction");
  }
}

TEST_F(Unknown, FLOW_22_with_a_stage_outside_it_is_in_doubt_and_recovery_finds_out) {
  DoubtfulStore doubtful(*store);
  doubtful.doubtful = 1;  // after the intent
  doubtful.closed_then = true;
  Flow flow("f", {.store = &doubtful});
  flow.group("main", {record.stage("a", Effect::external), adds()});
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  EXPECT_EQ(open(), 1u);
}

TEST_F(Unknown, FLOW_22_after_an_intent_the_second_phase_follows_what_was_decided) {
  for (const bool applies : {false, true}) {
    DoubtfulStore doubtful(*store);
    doubtful.doubtful = 1;
    doubtful.applies = applies;
    Flow flow("f", {.store = &doubtful});
    flow.group("main", {record.stage("a", Effect::external)});
    record.calls.clear();
    EXPECT_EQ(run(flow).kind, applies ? OutcomeKind::committed : OutcomeKind::aborted);
    EXPECT_EQ(record.calls.back(), applies ? "a.commit" : "a.abort(1)");
    EXPECT_EQ(open(), 0u);
  }
}

// A decline after an intent, whose decision is lost and whose end is lost too: what was told must be what
// recovery finds.
TEST_F(Unknown, FLOW_22_FLOW_30_a_decline_that_is_decided_again_keeps_its_reply_on_record) {
  for (const bool refused : {false, true}) {
    SCOPED_TRACE(refused ? "refused by a precondition" : "declined by a stage");
    store = testing_support::make_any_store(clock, random);
    DoubtfulStore doubtful(*store);
    doubtful.doubtful = refused ? 2 : 1;  // the intent, what is refused, and then the decision to abort
    doubtful.dies_at = doubtful.doubtful + 2;     // decided again, and then the record of its end
    int runs = 0;
    idempotency::Keys before(clock, &doubtful), after(clock, store.get());
    const auto make = [&](store::Store& on, idempotency::Keys& keys) {
      FlowOptions options;
      options.store = &on;
      options.keys = &keys;
      options.key = [](const Exchange&) { return std::optional<std::string>("k"); };
      auto flow = std::make_unique<Flow>("f", std::move(options));
      flow->group("main", {record.stage("a", Effect::external), func("limit", [&](Exchange& x) -> Result<Vote> {
                             if (++runs > 1) return Vote();  // would be approved now
                             if (refused) {
                               x.draft().take(at("empty"), 1, "sold_out");
                             } else {
                               x.respond({.kind = FailureKind::rejected, .code = "sold_out"});
                               x.abort("sold_out");
                             }
                             return Vote();
                           })});
      return flow;
    };
    auto flow = make(doubtful, before);
    const Outcome told = run(*flow, exchange());
    EXPECT_EQ(told.kind, OutcomeKind::aborted);
    ASSERT_TRUE(told.reply);
    EXPECT_EQ(told.reply->code, "sold_out");
    ASSERT_EQ(doubtful.seen, doubtful.dies_at + 1) << "the record of its end was lost";
    auto next = make(*store, after);
    recover(*next);
    const Outcome again = run(*next, exchange());
    EXPECT_EQ(again.kind, OutcomeKind::aborted) << "declined, and then approved under one key";
    EXPECT_EQ(again.reply_bytes, told.reply_bytes);
    EXPECT_EQ(runs, 1);
  }
}

class Sweeps : public Unknown {};

TEST_F(Sweeps, FLOW_24_a_sweep_leaves_exchanges_alone_that_still_run_here) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external),
                      task_func("slow", [](Exchange&) -> Task<Result<Vote>> {
                        auto waiting = sleep_for(seconds(60));
                        const FailureKind cut = co_await waiting;
                        (void)cut;
                        co_return Vote();
                      })});
  auto x = exchange();
  auto running = start(flow, x);
  settle_lane();
  ASSERT_EQ(open(), 1u);
  EXPECT_TRUE(flow.running(x->id()));
  EXPECT_EQ(recover(flow).found, 0u);
  drive([&] { return running->outcome.has_value(); });
  EXPECT_EQ(running->outcome->kind, OutcomeKind::committed);
  lane.run_ready();
  EXPECT_FALSE(flow.running(x->id()));
  EXPECT_EQ(record.calls.back(), "a.commit");
}

/// Counts what is asked of the store.
class CountingStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  std::size_t commits = 0, listings = 0, journals = 0, longest = 0, others = 0;
  void submit(store::PendingCommit& pending) override {
    ++commits;
    inner_.submit(pending);
  }
  bool ask(store::PendingQuery& pending) override {
    const bool listing = std::holds_alternative<store::ListOpen>(pending.query);
    if (listing) {
      ++listings;
      longest = std::max(longest, std::get<store::ListOpen>(pending.query).limit);
    } else {
      ++(std::holds_alternative<store::ReadJournal>(pending.query) ? journals : others);
    }
    return inner_.ask(pending);
  }
};

// How long it takes is measured by the crash campaign; what it costs is counted here.
TEST_F(Sweeps, FLOW_24_ten_thousand_open_exchanges_are_finished_in_bounded_batches_by_two_commits_each) {
  constexpr std::size_t kOpen = 10'000;
  const auto shape = [](Flow& flow) {
    Phases only;
    only.abort = [](Exchange&, bool) -> Status { return {}; };
    flow.group("main", {phases("a", Effect::external, std::move(only)),
                        task_func("never", [](Exchange&) -> Task<Result<Vote>> {
                          auto waiting = sleep_for(std::chrono::hours(100));
                          const FailureKind cut = co_await waiting;
                          (void)cut;
                          co_return Vote();
                        })});
  };
  std::vector<ExchangePtr> doomed_ones;
  Flow doomed("f", {.store = store.get()});
  shape(doomed);
  for (std::size_t i = 0; i < kOpen; ++i) {
    doomed_ones.push_back(exchange());
    RunOptions options;
    options.lane = &lane;
    doomed.run(doomed_ones.back(), std::move(options), nullptr, nullptr);
  }
  settle_lane();
  ASSERT_EQ(open(), 1000u) << "the default limit of a listing";
  CountingStore counting(*store);
  Flow again("f", {.store = &counting});
  shape(again);
  EXPECT_EQ(recover(again).aborted, kOpen);
  EXPECT_EQ(open(), 0u);
  EXPECT_EQ(counting.commits, 2 * kOpen) << "the decision to abort, and its end";
  EXPECT_EQ(counting.journals, kOpen) << "each is read once";
  EXPECT_EQ(counting.listings, kOpen / 1000 + 1);
  EXPECT_EQ(counting.longest, 1000u);
  EXPECT_EQ(counting.others, 0u);
  // The first process is gone: nothing of it may act any more.
  for (auto& x : doomed_ones) x->scope().cancel();
  settle_lane();
  EXPECT_EQ(open(), 0u);
}

TEST_F(Unknown, FLOW_33_figures_per_stage_phase_and_outcome_and_a_span_per_phase) {
  Metrics metrics;
  std::vector<std::string> spans;
  FlowOptions options;
  options.metrics = &metrics;
  options.tracer = [&](const StageSpan& span) {
    spans.push_back(std::string(span.stage) + "/" + std::string(span.phase) + (span.ok ? "" : "!"));
    throw std::runtime_error("a tracer that fails changes nothing");
  };
  Flow flow("pay", options);
  flow.group("main", {record.stage("a"), record.stage("b", Effect::none, [](Exchange&) -> Result<Vote> {
                        return fail(FailureKind::rejected, "no", "");
                      })});
  run(flow);
  EXPECT_EQ(spans, (std::vector<std::string>{"a/prepare", "b/prepare!", "b/abort", "a/abort"}));
  const std::string text = metrics.prometheus_text();
  EXPECT_NE(text.find("sluice_flow_seconds_count{flow=\"pay\",outcome=\"aborted\",traffic=\"live\"} 1"), std::string::npos) << text;
  EXPECT_NE(text.find("stage=\"b\""), std::string::npos);
}

TEST_F(Unknown, FLOW_33_shadow_traffic_has_figures_of_its_own) {
  Metrics metrics;
  FlowOptions options;
  options.metrics = &metrics;
  Flow flow("pay", options);
  flow.group("main", {record.stage("a")});
  run(flow);
  const auto has = [&](const std::string& line) { return metrics.prometheus_text().find("\n" + line + "\n") != std::string::npos; };
  EXPECT_FALSE(has(R"(sluice_flow_seconds_count{flow="pay",outcome="committed",traffic="shadow"} 0)")) << "no series without any";
  for (int i = 0; i < 2; ++i) run(flow, std::make_shared<Exchange>(ids.exchange(), Namespace("app", true), Bytes("request")));
  EXPECT_TRUE(has(R"(sluice_flow_seconds_count{flow="pay",outcome="committed",traffic="live"} 1)")) << metrics.prometheus_text();
  EXPECT_TRUE(has(R"(sluice_flow_seconds_count{flow="pay",outcome="committed",traffic="shadow"} 2)"));
  EXPECT_TRUE(has(R"(sluice_flow_stage_seconds_count{flow="pay",stage="a",phase="prepare",outcome="ok",traffic="live"} 1)"));
  EXPECT_TRUE(has(R"(sluice_flow_stage_seconds_count{flow="pay",stage="a",phase="prepare",outcome="ok",traffic="shadow"} 2)"));
}

TEST_F(Unknown, FLOW_12_a_hanging_commit_ends_with_its_own_budget) {
  struct Hangs final : Stage {
    std::string_view name() const noexcept override { return "hangs"; }
    bool asynchronous() const noexcept override { return true; }
    bool has_commit() const noexcept override { return true; }
    Task<Status> commit_task(Exchange&) override {
      auto waiting = sleep_for(std::chrono::hours(100));
      const FailureKind cut = co_await waiting;
      Status status;
      if (cut != FailureKind::none) status = fail(cut, "", "cut");
      co_return status;
    }
  };
  FlowOptions options;
  options.second_phase.budget = seconds(2);
  Flow flow("f", options);
  flow.group("main", {std::make_shared<Hangs>(), record.stage("after")});
  const Instant began = clock.now();
  EXPECT_EQ(run(flow).kind, OutcomeKind::in_doubt);
  EXPECT_LT(clock.now() - began, seconds(5));
  EXPECT_EQ(record.calls.back(), "after.commit") << "the others still commit";
}

}  // namespace
}  // namespace sluice::flow
