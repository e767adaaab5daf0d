// Shape and votes: FLOW-1 … FLOW-11, in memory.
#include <atomic>
#include <thread>

#include "flow/flow_fixture.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::flow {
namespace {

using Calls = std::vector<std::string>;

TEST_F(FlowTest, FLOW_1_groups_append_and_the_first_is_the_entry) {
  Flow flow("f");
  flow.group("main", {record.stage("a")}).group("other", {record.stage("x")}).group("main", {record.stage("b")});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "b.prepare", "a.commit", "b.commit"}));
}

TEST_F(FlowTest, FLOW_1_entry_may_be_named) {
  Flow flow("f", {.entry = "other"});
  flow.group("main", {record.stage("a")}).group("other", {record.stage("x")});
  run(flow);
  EXPECT_EQ(record.calls, (Calls{"x.prepare", "x.commit"}));
}

TEST_F(FlowTest, FLOW_1_no_group_and_unknown_entry_are_failures_and_journal_nothing) {
  auto store = testing_support::make_any_store(clock, random);
  Flow none("none", {.store = store.get()});
  EXPECT_EQ(run(none).cause->code(), "no_entry");
  Flow unknown("unknown", {.entry = "x", .store = store.get()});
  unknown.group("main", {record.stage("a")});
  EXPECT_EQ(run(unknown).cause->code(), "unknown_group");
  EXPECT_EQ(store->stats().commits, 0u);
}

TEST_F(FlowTest, FLOW_2_an_empty_group_commits) {
  Flow flow("f");
  flow.group("main", {});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
}

TEST_F(FlowTest, FLOW_3_func_makes_a_prepare_only_stage_and_a_stage_may_be_a_task) {
  Flow flow("f");
  flow.group("main", {func("sync", [](Exchange& x) -> Result<Vote> { x.reference = "seen"; return Vote(); }),
                      task_func("task", [](Exchange& x) -> Task<Result<Vote>> {
                        auto nap = sleep_for(milliseconds(5));
                        co_await nap;
                        x.respond(Reply::ok("done"));
                        co_return Vote();
                      })});
  auto x = exchange();
  const auto outcome = run(flow, x);
  EXPECT_EQ(outcome.kind, OutcomeKind::committed);
  EXPECT_EQ(x->reference, "seen");
  EXPECT_EQ(outcome.reply->body, "done");
}

TEST_F(FlowTest, FLOW_4_many_exchanges_run_at_once_and_groups_are_sealed) {
  Flow flow("f");
  flow.group("main", {task_func("nap", [](Exchange&) -> Task<Result<Vote>> {
               auto nap = sleep_for(milliseconds(10));
               co_await nap;
               co_return Vote();
             })});
  std::vector<std::shared_ptr<Running>> all;
  for (int i = 0; i < 100; ++i) all.push_back(start(flow, exchange()));
  drive([&] { return std::ranges::all_of(all, [](const auto& r) { return r->outcome.has_value(); }); });
  for (const auto& one : all) EXPECT_EQ(one->outcome->kind, OutcomeKind::committed);
  EXPECT_DEATH(flow.group("late", {}), "cannot change");
}

// One flow, many lanes, each on a thread of its own; exchanges begin before and after it is sealed.
TEST(FlowThreads, FLOW_4_one_flow_serves_the_lanes_of_many_threads) {
  constexpr int kThreads = 4, kEach = 500;
  RealClock clock;
  sim::SimRandom random{1};
  auto store = testing_support::make_any_store(clock, random);
  IdSource ids(clock, 1);
  std::atomic<int> prepared{0}, committed{0}, done{0}, elsewhere{0};
  Flow flow("f", {.store = store.get()});
  Phases made;
  made.prepare = [&](Exchange& x) -> Result<Vote> {
    ++prepared;
    x.draft().add({"app", "n", "runs"}, 1);
    return Vote();
  };
  made.commit = [&](Exchange&) -> Status {
    ++committed;
    return {};
  };
  flow.group("main", {phases("a", Effect::external, std::move(made)),
                      task_func("nap", [](Exchange&) -> Task<Result<Vote>> {
                        auto nap = sleep_for(milliseconds(1));
                        const FailureKind cut = co_await nap;
                        (void)cut;
                        co_return Vote();
                      })});
  struct Owner {
    std::atomic<int>* done;
    std::atomic<int>* elsewhere;
    std::thread::id thread;
  };
  {
    std::vector<std::unique_ptr<LaneThread>> threads;
    for (int i = 0; i < kThreads; ++i) threads.push_back(std::make_unique<LaneThread>(clock));
    std::vector<Owner> owners(kThreads);
    Parker finished;
    for (int i = 0; i < kThreads; ++i) {
      Lane& lane = threads[static_cast<std::size_t>(i)]->lane();
      Owner& owner = owners[static_cast<std::size_t>(i)];
      owner = {&done, &elsewhere, {}};
      lane.post([&flow, &ids, &lane, &owner] {
        owner.thread = std::this_thread::get_id();
        for (int n = 0; n < kEach; ++n) {
          RunOptions options;
          options.lane = &lane;
          flow.run(std::make_shared<Exchange>(ids.exchange(), Namespace("app"), Bytes()), std::move(options),
                   [](void* self, Outcome outcome) noexcept {
                     auto* o = static_cast<Owner*>(self);
                     if (std::this_thread::get_id() != o->thread) ++*o->elsewhere;
                     if (outcome.kind == OutcomeKind::committed) ++*o->done;
                   },
                   &owner);
        }
      });
    }
    for (auto& thread : threads) thread->start();
    for (int waited = 0; done != kThreads * kEach && waited < 20'000; ++waited) finished.park(milliseconds(1));
  }
  EXPECT_EQ(done, kThreads * kEach);
  EXPECT_EQ(prepared, kThreads * kEach) << "each exchange once";
  EXPECT_EQ(committed, kThreads * kEach);
  EXPECT_EQ(elsewhere, 0) << "each is answered on its own lane";
  const auto rows = store::ask_now(*store, store::GetRows{{{"app", "n", "runs"}}});
  EXPECT_EQ(rows->at(0)->number, kThreads * kEach);
}

TEST_F(FlowTest, FLOW_5_the_bag_carries_typed_values_and_transient_ones_end_with_the_decision) {
  static constexpr BagKey<int> kCount{"count"};
  static const BagKey<std::string> kHold = durable_text("hold");
  bool transient_seen = true;
  std::string hold;
  auto store = testing_support::make_any_store(clock, random);
  Flow flow("f", {.store = store.get()});
  Phases last;
  last.prepare = [&](Exchange& x) -> Result<Vote> {
    EXPECT_EQ(*x.get(kCount), 7);
    return Vote();
  };
  last.commit = [&](Exchange& x) -> Status {
    transient_seen = x.get(kCount) != nullptr;
    hold = *x.get(kHold);
    return {};
  };
  flow.group("main", {func("first", [](Exchange& x) -> Result<Vote> {
                        x.set(kCount, 7);
                        x.set(kHold, std::string("h1"));
                        return Vote();
                      }),
                      phases("last", Effect::none, last)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_FALSE(transient_seen);
  EXPECT_EQ(hold, "h1");
}

struct VoteCase {
  const char* name;
  Vote vote;
  bool aborting;
  Calls calls;
  OutcomeKind outcome;
};

TEST_F(FlowTest, FLOW_6_and_8_votes_and_abort) {
  const Calls both{"a.prepare", "b.prepare", "a.commit", "b.commit"};
  const std::vector<VoteCase> cases{
      {"continue", Vote::continue_(), false, both, OutcomeKind::committed},
      {"default", Vote(), false, both, OutcomeKind::committed},
      {"skip", Vote::skip(), false, {"a.prepare", "b.prepare", "b.commit"}, OutcomeKind::committed},
      {"done", Vote::done(), false, {"a.prepare"}, OutcomeKind::committed},
      {"abort, continue", Vote::continue_(), true, {"a.prepare", "a.abort(1)"}, OutcomeKind::aborted},
      {"abort, route", Vote::route({"x"}), true, {"a.prepare", "a.abort(1)"}, OutcomeKind::aborted},
      {"abort, skip", Vote::skip(), true, {"a.prepare"}, OutcomeKind::aborted},
      {"abort, done", Vote::done(), true, {"a.prepare"}, OutcomeKind::aborted},
  };
  for (const auto& one : cases) {
    record.calls.clear();
    Flow flow("f");
    flow.group("main", {record.stage("a", Effect::none,
                                     [&](Exchange& x) -> Result<Vote> {
                                       if (one.aborting) x.abort("why");
                                       return one.vote;
                                     }),
                        record.stage("b")});
    flow.group("x", {record.stage("x")});
    const auto outcome = run(flow);
    EXPECT_EQ(outcome.kind, one.outcome) << one.name;
    EXPECT_EQ(record.calls, one.calls) << one.name;
    if (one.aborting) EXPECT_EQ(outcome.cause->detail(), "why") << one.name;
  }
}

TEST_F(FlowTest, FLOW_6_route_runs_groups_after_the_rest_of_the_current_one) {
  Flow flow("f");
  flow.group("main", {record.stage("a", Effect::none, [](Exchange&) { return Vote::route({"x", "y"}); }), record.stage("b")});
  flow.group("x", {record.stage("x")}).group("y", {record.stage("y")});
  run(flow);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "b.prepare", "x.prepare", "y.prepare", "a.commit", "b.commit", "x.commit", "y.commit"}));
}

TEST_F(FlowTest, FLOW_6_done_in_a_routed_group_stops_the_others_too) {
  Flow flow("f");
  flow.group("main", {record.stage("a", Effect::none, [](Exchange&) { return Vote::route({"x", "y"}); })});
  flow.group("x", {record.stage("x", Effect::none, [](Exchange&) { return Vote::done(); })}).group("y", {record.stage("y")});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "x.prepare", "a.commit"}));
}

TEST_F(FlowTest, FLOW_7_no_group_is_continue_and_twice_runs_twice) {
  Flow flow("f");
  flow.group("main", {record.stage("a", Effect::none, [](Exchange&) { return Vote::route({}); }),
                      record.stage("b", Effect::none, [](Exchange&) { return Vote::route({"x", "x"}); })});
  flow.group("x", {record.stage("x")});
  run(flow);
  EXPECT_EQ(std::ranges::count(record.calls, "x.prepare"), 2);
  EXPECT_EQ(std::ranges::count(record.calls, "x.commit"), 2);
}

TEST_F(FlowTest, FLOW_7_an_unknown_group_aborts_and_the_router_has_joined) {
  Flow flow("f");
  flow.group("main", {record.stage("a", Effect::none, [](Exchange&) { return Vote::route({"nowhere"}); })});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.cause->code(), "unknown_group");
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "a.abort(1)"}));
}

TEST_F(FlowTest, FLOW_8_an_empty_cause_reads_aborted_and_a_failure_overrides_it) {
  Flow empty("f");
  empty.group("main", {func("a", [](Exchange& x) -> Result<Vote> { x.abort(); return Vote(); })});
  EXPECT_EQ(run(empty).cause->detail(), "aborted");
  Flow failing("g");
  failing.group("main", {func("a", [](Exchange& x) -> Result<Vote> {
                  x.abort("earlier");
                  return fail(FailureKind::not_found, "no_card", "no such card");
                })});
  EXPECT_EQ(run(failing).cause->code(), "no_card");
}

TEST_F(FlowTest, FLOW_8_an_exchange_aborted_before_the_run_runs_no_stage) {
  Flow flow("f");
  flow.group("main", {record.stage("a")});
  auto x = exchange();
  x->abort("early");
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::aborted);
  EXPECT_TRUE(record.calls.empty());
}

TEST_F(FlowTest, FLOW_9_a_decline_is_returned_with_the_abort) {
  Flow flow("f");
  flow.group("main", {func("a", [](Exchange& x) -> Result<Vote> {
               x.respond({.kind = FailureKind::rejected, .code = "insufficient_funds", .body = "{}"});
               x.abort("declined");
               return Vote();
             })});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.reply->code, "insufficient_funds");
}

TEST_F(FlowTest, FLOW_10_too_many_stages_abort_and_zero_is_refused) {
  Flow flow("f", {.max_stages = 10});
  flow.group("main", {record.stage("loop", Effect::none, [](Exchange&) { return Vote::route({"main"}); })});
  const auto outcome = run(flow);
  EXPECT_EQ(outcome.cause->code(), "too_many_stages");
  EXPECT_EQ(std::ranges::count(record.calls, "loop.prepare"), 10);
  EXPECT_EQ(std::ranges::count(record.calls, "loop.abort(1)"), 10);
  EXPECT_DEATH(Flow("g", {.max_stages = 0}), "max_stages");
}

TEST_F(FlowTest, FLOW_11_a_deadline_wakes_a_suspended_stage_and_stops_the_next) {
  Flow flow("f");
  flow.group("main", {task_func("slow", [](Exchange&) -> Task<Result<Vote>> {
                        auto nap = sleep_for(seconds(60));
                        const FailureKind cut = co_await nap;
                        if (cut != FailureKind::none) {
                          Result<Vote> failed = fail(FailureKind::cancelled, "cut", "cut short");
                          co_return failed;
                        }
                        co_return Vote();
                      }),
                      record.stage("never")});
  RunOptions options;
  options.deadline = clock.now() + milliseconds(100);
  const Instant began = clock.now();
  const auto outcome = run(flow, exchange(), std::move(options));
  EXPECT_EQ(outcome.cause->kind(), FailureKind::timeout);
  EXPECT_LE(clock.now() - began, milliseconds(100));
  EXPECT_TRUE(record.calls.empty());
}

TEST_F(FlowTest, FLOW_11_cancellation_stops_before_the_next_prepare) {
  Flow flow("f");
  auto x = exchange();
  flow.group("main", {record.stage("a", Effect::none, [&](Exchange&) { x->scope().cancel(); return Vote(); }), record.stage("b")});
  const auto outcome = run(flow, x);
  EXPECT_EQ(outcome.cause->kind(), FailureKind::cancelled);
  EXPECT_EQ(record.calls, (Calls{"a.prepare", "a.abort(1)"}));
}

}  // namespace
}  // namespace sluice::flow
