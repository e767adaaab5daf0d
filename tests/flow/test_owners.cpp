// Two owners of one exchange: whoever goes on in its journal names the position it believes in, and
// the second of two loses. And what else rides in the deciding Commit.
#include "flow/flow_fixture.hpp"
#include "flow/records.hpp"
#include "flow/spy_store.hpp"

namespace sluice::flow {
namespace {

store::KvKey row(std::string key) { return {"app", "accounts", std::move(key)}; }

std::string name_of(const Record& record) {
  static constexpr const char* kNames[] = {"begun", "intent", "decided", "finished",
                                           "ended", "settled", "paused", "woken"};
  return kNames[record.index()];
}

class Owners : public FlowTest {
 protected:
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  SpyStore spy{*store};
  std::vector<std::string> appended;  // "decided" with its position required, "decided!" without

  /// Notes each journal row that is appended, and whether the Commit requires its position.
  void note_appends() {
    spy.before = [this](int, const store::Commit& commit) {
      for (const auto& mutation : commit.then) {
        const auto* append = std::get_if<store::JournalAppend>(&mutation);
        if (append == nullptr) continue;
        const bool guarded = std::ranges::any_of(commit.requires_, [&](const store::Requirement& r) {
          const auto* at = std::get_if<store::JournalAt>(&r.what);
          return at != nullptr && at->exchange == append->row.exchange && at->n == append->row.n;
        });
        appended.push_back(name_of(decode_row(append->row.record)->back()) + (guarded ? "" : "!"));
      }
    };
  }
  /// What another owner of the exchange would have written: a record where this Commit wants its own.
  void intrude(const store::Commit& commit) {
    for (const auto& mutation : commit.then)
      if (const auto* append = std::get_if<store::JournalAppend>(&mutation)) {
        const store::JournalRow theirs{append->row.exchange, append->row.n, encode_row(Finished{0})};
        EXPECT_TRUE(store::commit_and_wait(*store, {.then = {store::JournalAppend{theirs}}}));
        return;
      }
  }
  static StagePtr adds() {
    return func("add", [](Exchange& x) -> Result<Vote> {
      x.draft().add(row("n"), 1);
      return Vote();
    });
  }
  static StagePtr asks() {
    Awaited awaited;
    awaited.timeout = seconds(60);
    awaited.ask = [](Exchange&) -> Status { return {}; };
    awaited.answer = [](Exchange&, ByteView) -> Result<Vote> { return Vote(); };
    return await_answer("host", Effect::store, std::move(awaited));
  }
  std::int64_t number() {
    auto rows = store::ask_now(*store, store::GetRows{{row("n")}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }
};

using Names = std::vector<std::string>;

TEST_F(Owners, FLOW_26_each_record_of_an_exchange_requires_its_place_in_the_journal) {
  note_appends();
  Flow flow("f", {.store = &spy});
  flow.group("main", {record.stage("a", Effect::external), adds(), record.stage("b", Effect::external)});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(appended, (Names{"intent", "intent", "decided", "finished", "ended"}));

  appended.clear();
  Flow sleeping("s", {.store = &spy});
  sleeping.group("main", {asks(), adds()});
  auto x = exchange();
  auto running = start(sleeping, x);
  settle_lane();
  EXPECT_TRUE(wake(sleeping, to_string(x->id()) + ".0"));
  drive([&] { return running->outcome.has_value(); });
  settle_lane();
  EXPECT_EQ(appended, (Names{"paused", "woken", "decided", "ended"}));
}

TEST_F(Owners, FLOW_22_the_opposite_decision_is_fenced_by_the_place_of_the_lost_one) {
  note_appends();
  spy.lost = 0;
  Flow flow("f", {.store = &spy});
  flow.group("main", {adds()});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  EXPECT_EQ(appended, Names{"decided"}) << "the fence alone reached the store, and names its place";
}

TEST_F(Owners, FLOW_26_an_exchange_taken_over_while_it_prepares_decides_nothing) {
  Flow flow("f", {.store = &spy});
  flow.group("main", {record.stage("a", Effect::external), adds()});
  spy.before = [this](int n, const store::Commit& commit) {
    if (n == 1) intrude(commit);
  };
  const Outcome outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::pending);
  EXPECT_EQ(number(), 0);
  EXPECT_EQ(record.calls, Names{"a.prepare"}) << "neither committed nor aborted by the one that lost";
}

TEST_F(Owners, FLOW_26_an_exchange_taken_over_before_its_second_intent_asks_nothing_outside_any_more) {
  Flow flow("f", {.store = &spy});
  flow.group("main", {record.stage("a", Effect::external), record.stage("b", Effect::external)});
  spy.before = [this](int n, const store::Commit& commit) {
    if (n == 1) intrude(commit);
  };
  EXPECT_EQ(run(flow).kind, OutcomeKind::pending);
  EXPECT_EQ(record.calls, Names{"a.prepare"});
}

TEST_F(Owners, FLOW_26_waking_what_another_owner_went_on_with_is_told_so) {
  Flow flow("f", {.store = &spy});
  flow.group("main", {asks(), adds()});
  auto x = exchange();
  auto running = start(flow, x);
  settle_lane();
  spy.before = [this](int, const store::Commit& commit) { intrude(commit); };
  const Status woken = wake(flow, to_string(x->id()) + ".0");
  ASSERT_FALSE(woken);
  EXPECT_EQ(woken.error().code(), "taken_over");
  ASSERT_TRUE(running->outcome);
  EXPECT_EQ(running->outcome->kind, OutcomeKind::pending);
  EXPECT_EQ(number(), 0);
}

TEST_F(Owners, FLOW_27_settling_what_changed_meanwhile_is_refused_and_leaves_no_trace) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external)});
  auto x = exchange();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::in_doubt);
  spy.before = [this](int, const store::Commit& commit) { intrude(commit); };
  const Status settled = flow::settle(spy, x->id(), true, "ops", "by phone");
  ASSERT_FALSE(settled);
  EXPECT_EQ(settled.error().code(), "settled_meanwhile");
  EXPECT_TRUE(store::ask_now(*store, store::ListAudit{})->empty());
  EXPECT_EQ(store::ask_now(*store, store::ListOpen{})->size(), 1u);
}

// --- The audit row rides in the deciding Commit --------------------------------------------------

class Audited : public Owners {
 protected:
  ExchangePtr audited() {
    auto x = exchange();
    x->audited = true;
    x->principal = "ann";
    x->command = "order.place";
    x->correlation = "c-1";
    return x;
  }
  std::vector<store::AuditRow> rows() {
    settle_lane();
    return *store::ask_now(*store, store::ListAudit{});
  }
  void expect_row(const store::AuditRow& row, store::AuditOutcome outcome, ExchangeId id) {
    EXPECT_EQ(row.outcome, outcome);
    EXPECT_EQ(row.exchange, id);
    EXPECT_EQ(row.principal, "ann");
    EXPECT_EQ(row.command, "order.place");
    EXPECT_EQ(row.correlation, "c-1");
    EXPECT_EQ(row.ns, "app");
  }
};

TEST_F(Audited, CONSOLE_6_what_is_decided_is_audited_in_the_deciding_commit) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {adds()});
  auto x = audited();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::committed);
  EXPECT_EQ(store->stats().commits, 1u);
  ASSERT_EQ(rows().size(), 1u);
  expect_row(rows()[0], store::AuditOutcome::ok, x->id());
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(rows().size(), 1u) << "one that asks for no audit has none";
}

TEST_F(Audited, CONSOLE_6_a_refused_precondition_is_audited_in_the_branch_that_refuses_it) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("take", [](Exchange& x) -> Result<Vote> {
               x.draft().take(row("empty"), 1, "sold_out");
               return Vote();
             })});
  auto x = audited();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::aborted);
  EXPECT_EQ(store->stats().commits, 1u);
  ASSERT_EQ(rows().size(), 1u);
  expect_row(rows()[0], store::AuditOutcome::error, x->id());
  EXPECT_EQ(rows()[0].detail, "sold_out");
}

TEST_F(Audited, CONSOLE_6_with_stages_outside_the_decision_carries_the_only_row) {
  for (const bool refused : {false, true}) {
    const auto before = rows().size();
    Flow flow("f", {.store = store.get()});
    flow.group("main", {record.stage("a", Effect::external), func("take", [refused](Exchange& x) -> Result<Vote> {
                          if (refused) x.draft().take(row("empty"), 1, "sold_out");
                          return Vote();
                        })});
    auto x = audited();
    EXPECT_EQ(run(flow, x).kind, refused ? OutcomeKind::aborted : OutcomeKind::committed);
    ASSERT_EQ(rows().size(), before + 1);
    expect_row(rows()[0], refused ? store::AuditOutcome::error : store::AuditOutcome::ok, x->id());
  }
}

TEST_F(Audited, CONSOLE_6_an_abort_that_leaves_nothing_else_leaves_its_row) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("no", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "no", ""); })});
  auto x = audited();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::aborted);
  ASSERT_EQ(rows().size(), 1u);
  expect_row(rows()[0], store::AuditOutcome::error, x->id());
  EXPECT_EQ(rows()[0].detail, "no");
}

TEST_F(Audited, CONSOLE_6_a_lost_decision_is_audited_as_not_committed) {
  Flow flow("f", {.store = &spy});
  spy.lost = 0;
  flow.group("main", {adds()});
  auto x = audited();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::aborted);
  ASSERT_EQ(rows().size(), 1u);
  expect_row(rows()[0], store::AuditOutcome::error, x->id());
  EXPECT_EQ(rows()[0].detail, "not_committed");
}

// Two nodes run one key at once: this one's stage has answered already when its claim is refused.
TEST_F(Owners, G1_what_a_stage_has_answered_is_not_told_when_another_node_has_the_key) {
  idempotency::Keys keys(clock, &spy);
  FlowOptions options;
  options.store = &spy;
  options.keys = &keys;
  options.key = [](const Exchange&) -> std::optional<std::string> { return "k"; };
  Flow flow("f", options);
  flow.group("main", {func("answer", [](Exchange& x) -> Result<Vote> {
                        x.respond(Reply::ok("mine"));
                        return Vote();
                      }),
                      record.stage("outside", Effect::external)});
  bool claimed = false;
  spy.before = [&](int, const store::Commit& commit) {
    for (const auto& mutation : commit.then)
      if (const auto* put = std::get_if<store::KeyPut>(&mutation); put != nullptr && !std::exchange(claimed, true)) {
        store::KeyPut theirs = *put;
        theirs.row.exchange = {777};
        EXPECT_TRUE(store::commit_and_wait(*store, {.then = {std::move(theirs)}}));
      }
  };
  const auto outcome = run(flow);
  EXPECT_TRUE(claimed);
  EXPECT_NE(outcome.kind, OutcomeKind::committed);
  EXPECT_FALSE(outcome.reply && outcome.reply->body == "mine") << "it was not decided";
  EXPECT_TRUE(record.calls.empty()) << "the stage outside was not begun";
}

}  // namespace
}  // namespace sluice::flow
