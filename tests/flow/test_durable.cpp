// What is durable when, and what recovery makes of it: FLOW-22 … FLOW-27, PROTOCOL's kill table.
#include "flow/flow_fixture.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::flow {
namespace {

using Calls = std::vector<std::string>;
store::KvKey at(std::string key) { return {"app", "accounts", std::move(key)}; }

/// Passes Commits on until the k-th, at which the "machine dies": before or after it is applied.
class DyingStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  int dies_at = -1;
  bool applied_first = false;
  int seen = 0;
  bool dead = false;
  void submit(store::PendingCommit& pending) override {
    if (dead) return;  // nobody is there to answer
    if (seen++ != dies_at) return inner_.submit(pending);
    dead = true;
    if (applied_first) (void)store::commit_and_wait(inner_, pending.commit);
  }
};

class DurableFlow : public FlowTest {
 protected:
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  std::int64_t balance(const std::string& key) {
    auto rows = store::ask_now(*store, store::GetRows{{at(key)}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }
  void deposit(const std::string& key, std::int64_t amount) {
    (void)store::commit_and_wait(*store, {.then = {store::KvAdd{at(key), amount}}});
  }
  static StagePtr transfer() {
    return func("transfer", [](Exchange& x) -> Result<Vote> {
      x.draft().take(at("ann"), 10, "insufficient_funds");
      x.draft().add(at("bob"), 10);
      x.respond(Reply::ok("moved"));
      return Vote();
    });
  }
  std::size_t open() { return store::ask_now(*store, store::ListOpen{})->size(); }
};

TEST_F(DurableFlow, FLOW_25_a_store_only_transaction_is_one_commit) {
  deposit("ann", 25);
  const auto before = store->stats().commits;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {transfer()});
  auto x = exchange();
  const auto outcome = run(flow, x);
  EXPECT_EQ(outcome.kind, OutcomeKind::committed);
  EXPECT_EQ(store->stats().commits - before, 1u);
  EXPECT_EQ(balance("ann"), 15);
  EXPECT_EQ(balance("bob"), 10);
  const auto view = describe(*store, x->id());
  ASSERT_TRUE(view) << view.error().to_string();
  EXPECT_EQ(view->outcome, "committed");
  EXPECT_EQ(view->reply->body, "moved");
}

TEST_F(DurableFlow, FLOW_25_a_refused_precondition_aborts_in_the_same_commit_and_names_it) {
  deposit("ann", 5);
  const auto before = store->stats().commits;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {transfer()});
  auto x = exchange();
  const auto outcome = run(flow, x);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.reply->code, "insufficient_funds");
  EXPECT_EQ(store->stats().commits - before, 1u);
  EXPECT_EQ(balance("ann"), 5);
  EXPECT_EQ(describe(*store, x->id())->outcome, "aborted");
}

TEST_F(DurableFlow, an_abort_without_key_or_intent_leaves_nothing) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("no", [](Exchange& x) -> Result<Vote> { x.draft().add(at("ann"), 1); return fail(FailureKind::rejected, "no", ""); })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::aborted);
  EXPECT_EQ(store->stats().commits, 0u);
}

TEST_F(DurableFlow, IDEM_7_a_verified_read_that_changed_runs_prepare_again_and_never_replies_conflict) {
  deposit("ann", 100);
  int runs = 0;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("double", [&](Exchange& x) -> Result<Vote> {
               auto row = x.read(at("ann"), Read::verified);
               if (!row) return fail(row.error());
               if (++runs == 1) deposit("ann", 1);  // somebody else, in between
               x.draft().put(at("copy"), "", (*row)->number);
               return Vote();
             })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(balance("copy"), 101);
}

TEST_F(DurableFlow, G2_rows_read_one_after_the_other_are_of_one_snapshot) {
  deposit("ann", 60);
  deposit("bob", 40);
  int runs = 0;
  std::vector<std::int64_t> sums;
  Flow flow("f", {.store = store.get()});
  std::int64_t ann = 0;
  flow.group("main", {func("first", [&](Exchange& x) -> Result<Vote> {
                        auto row = x.read(at("ann"));
                        if (!row) return fail(row.error());
                        ann = (*row)->number;
                        if (++runs == 1) {  // a transfer by somebody else, in between
                          deposit("ann", -50);
                          deposit("bob", 50);
                        }
                        return Vote();
                      }),
                      func("second", [&](Exchange& x) -> Result<Vote> {
                        auto row = x.read(at("bob"));
                        if (!row) return fail(row.error());
                        sums.push_back(ann + (*row)->number);
                        return Vote();
                      })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(runs, 2) << "the first phase runs again";
  EXPECT_EQ(sums, std::vector<std::int64_t>{100}) << "money was seen twice, or nowhere";
}

TEST_F(DurableFlow, G2_a_row_read_as_it_is_now_belongs_to_no_snapshot) {
  deposit("ann", 1);
  int runs = 0;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("hint", [&](Exchange& x) -> Result<Vote> {
                        ++runs;
                        (void)x.read(at("ann"), Read::latest);
                        deposit("ann", 1);
                        auto other = x.read(at("bob"));
                        if (!other) return fail(other.error());
                        return Vote();
                      })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(runs, 1);
}

TEST_F(DurableFlow, G2_rows_read_together_belong_to_one_snapshot_and_show_what_was_drafted) {
  deposit("ann", 25);
  int runs = 0;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("read", [&](Exchange& x) -> Result<Vote> {
                        ++runs;
                        x.draft().put(at("new"), "drafted");
                        auto rows = x.read_rows({at("ann"), at("new"), at("nobody")}, Read::verified);
                        if (!rows) return fail(rows.error());
                        EXPECT_EQ((*rows)[0]->number, runs == 1 ? 25 : 26);
                        EXPECT_EQ((*rows)[1]->value, "drafted");
                        EXPECT_FALSE((*rows)[2]);
                        if (runs == 1) deposit("ann", 1);
                        auto more = x.read_rows({at("bob"), at("cora")});
                        if (!more) return fail(more.error());
                        EXPECT_EQ(runs, 2) << "ann is not what she was when bob is read";
                        return Vote();
                      })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(runs, 2);
}

TEST_F(DurableFlow, G2_no_rows_are_read_without_asking_also_when_what_was_read_before_has_changed) {
  deposit("ann", 25);
  int runs = 0;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("read", [&](Exchange& x) -> Result<Vote> {
                        ++runs;
                        (void)x.read(at("ann"));
                        deposit("ann", 1);
                        const auto none = x.read_rows({});
                        if (!none) return fail(none.error());
                        EXPECT_TRUE(none->empty());
                        return Vote();
                      })});
  EXPECT_EQ(run(flow).kind, OutcomeKind::committed);
  EXPECT_EQ(runs, 1) << "nothing was read that does not belong to the snapshot";
}

TEST_F(DurableFlow, G2_a_snapshot_that_never_holds_still_ends_as_a_conflict) {
  deposit("ann", 1);
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("unlucky", [&](Exchange& x) -> Result<Vote> {
                        (void)x.read(at("ann"));
                        deposit("ann", 1);
                        auto other = x.read(at("bob"));
                        if (!other) return fail(other.error());
                        x.draft().add(at("bob"), 1);
                        return Vote();
                      })});
  const Outcome outcome = run(flow);
  EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.cause->code(), "too_many_reruns");
  EXPECT_EQ(balance("bob"), 0);
}

TEST_F(DurableFlow, a_read_sees_the_exchanges_own_draft) {
  deposit("ann", 1);
  std::int64_t seen = 0;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("a", [&](Exchange& x) -> Result<Vote> {
               x.draft().add(at("ann"), 41);
               seen = (*x.read(at("ann")))->number;
               return Vote();
             })});
  run(flow);
  EXPECT_EQ(seen, 42);
}

/// One row of the kill table: the machine dies at the k-th Commit, before or after it is on disk.
struct Kill {
  int at;
  bool applied;
  OutcomeKind expected;  // after recovery; pending: nothing was left to recover
  const char* calls;     // what recovery called
};

TEST_F(DurableFlow, FLOW_24_killed_at_each_commit_recovery_finishes_what_was_begun) {
  // Commits of one exchange with two external stages: intent a, intent b, decision.
  const std::vector<Kill> table{
      {0, false, OutcomeKind::pending, ""},
      {0, true, OutcomeKind::aborted, "a.abort(0)"},
      {1, false, OutcomeKind::aborted, "a.abort(0)"},
      {1, true, OutcomeKind::aborted, "b.abort(0) a.abort(0)"},
      {2, false, OutcomeKind::aborted, "b.abort(0) a.abort(0)"},
      {2, true, OutcomeKind::committed, "a.commit b.commit"},
  };
  for (const auto& kill : table) {
    SCOPED_TRACE("commit " + std::to_string(kill.at) + (kill.applied ? " applied" : " lost"));
    store = testing_support::make_any_store(clock, random);
    deposit("ann", 50);
    DyingStore dying(*store);
    dying.dies_at = kill.at;
    dying.applied_first = kill.applied;
    const auto shape = [&](Flow& flow) {
      flow.group("main", {record.stage("a", Effect::external), transfer(), record.stage("b", Effect::external)});
    };
    Flow doomed("f", {.store = &dying});
    shape(doomed);
    auto x = exchange();
    auto running = start(doomed, x);
    settle_lane();
    EXPECT_FALSE(running->outcome) << "nothing may be acknowledged";
    record.calls.clear();
    Flow again("f", {.store = store.get()});
    shape(again);
    const auto progress = recover(again);
    std::string calls;
    for (const auto& call : record.calls) calls += (calls.empty() ? "" : " ") + call;
    EXPECT_EQ(calls, kill.calls);
    EXPECT_EQ(progress.committed, kill.expected == OutcomeKind::committed ? 1u : 0u);
    EXPECT_EQ(progress.aborted, kill.expected == OutcomeKind::aborted ? 1u : 0u);
    EXPECT_EQ(balance("ann"), kill.expected == OutcomeKind::committed ? 40 : 50);
    EXPECT_EQ(open(), 0u);
    record.calls.clear();
    recover(again);
    EXPECT_TRUE(record.calls.empty()) << "recovery is idempotent";
  }
}

TEST_F(DurableFlow, FLOW_24_recovery_that_is_killed_itself_is_finished_by_the_next) {
  deposit("ann", 50);
  DyingStore dying(*store);
  dying.dies_at = 1;  // the decision's Commit is applied, nobody is told
  dying.applied_first = true;
  Flow doomed("f", {.store = &dying});
  doomed.group("main", {record.stage("a", Effect::external), transfer()});
  start(doomed, exchange());
  settle_lane();
  for (int round = 0; round < 3; ++round) {
    DyingStore dead(*store);
    dead.dies_at = 0;  // every write of this recovery is lost
    Flow flow("f", {.store = &dead});
    flow.group("main", {record.stage("a", Effect::external), transfer()});
    recover(flow);
  }
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external), transfer()});
  EXPECT_EQ(recover(flow).committed, 1u);
  EXPECT_EQ(balance("ann"), 40);
  EXPECT_EQ(open(), 0u);
}

// Found by the crash campaign: the second recovery took the interruption for a refusal by a stage,
// and every retry with the key was told so.
TEST_F(DurableFlow, FLOW_24_an_interrupted_exchange_frees_its_key_however_often_recovery_is_killed) {
  const auto keyed = [&](store::Store& on, idempotency::Keys& keys) {
    FlowOptions options;
    options.store = &on;
    options.keys = &keys;
    options.key = [](const Exchange&) { return std::optional<std::string>("k"); };
    auto flow = std::make_unique<Flow>("f", std::move(options));
    flow->group("main", {record.stage("a", Effect::external), transfer()});
    return flow;
  };
  deposit("ann", 50);
  DyingStore dying(*store);
  dying.dies_at = 0;  // the intent is durable, then the process dies
  dying.applied_first = true;
  idempotency::Keys lost_keys(clock, &dying, {});
  auto doomed = keyed(dying, lost_keys);
  start(*doomed, exchange());
  settle_lane();
  DyingStore halfway(*store);
  halfway.dies_at = 1;  // the decision to abort is durable, the end is not
  idempotency::Keys halfway_keys(clock, &halfway, {});
  auto first = keyed(halfway, halfway_keys);
  recover(*first);
  idempotency::Keys keys(clock, store.get(), {});
  auto second = keyed(*store, keys);
  EXPECT_EQ(recover(*second).aborted, 1u);
  const Outcome again = run(*second, exchange());
  EXPECT_EQ(again.kind, OutcomeKind::committed) << (again.cause ? again.cause->to_string() : "");
  EXPECT_FALSE(again.replayed);
  EXPECT_EQ(balance("ann"), 40);
}

TEST_F(DurableFlow, FLOW_24_an_unknown_version_is_listed_in_doubt_and_never_guessed) {
  DyingStore dying(*store);
  dying.dies_at = 0;
  dying.applied_first = true;
  Flow old("f", {.version = 1, .store = &dying});
  old.group("main", {record.stage("a", Effect::external)});
  start(old, exchange());
  settle_lane();
  record.calls.clear();
  Flow newer("f", {.version = 2, .store = store.get()});
  newer.group("main", {record.stage("a", Effect::external)});
  EXPECT_EQ(recover(newer).in_doubt, 1u);
  EXPECT_TRUE(record.calls.empty());
  EXPECT_EQ(list_in_doubt(*store, 10)->size(), 1u);
}

TEST_F(DurableFlow, FLOW_15_and_27_a_commit_that_keeps_failing_is_listed_retried_and_can_be_settled) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external), record.stage("b", Effect::external)});
  auto x = exchange();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::in_doubt);
  Flows flows;
  flows.add(flow);
  auto view = describe(*store, x->id(), &flows);
  ASSERT_TRUE(view) << view.error().to_string();
  EXPECT_EQ(view->outcome, "in_doubt");
  ASSERT_EQ(view->stages.size(), 2u);
  EXPECT_EQ(view->stages[0].stage, "a");
  EXPECT_EQ(view->stages[0].state, "prepared");
  EXPECT_EQ(view->stages[1].state, "finished");
  EXPECT_EQ(recover(flow).in_doubt, 1u) << "a sweep tries again";
  EXPECT_FALSE(settle(*store, x->id(), true, "ops", ""));
  EXPECT_TRUE(settle(*store, x->id(), true, "ops", "partner confirmed by phone"));
  view = describe(*store, x->id(), &flows);
  EXPECT_EQ(view->outcome, "committed");
  EXPECT_EQ(view->settled_reason, "partner confirmed by phone");
  EXPECT_EQ(open(), 0u);
  EXPECT_EQ(settle(*store, x->id(), false, "ops", "again").error().code(), "not_in_doubt");
  EXPECT_EQ(store::ask_now(*store, store::ListAudit{})->front().command, "sluice.tx.settle");
}

TEST_F(DurableFlow, FLOW_24_a_later_sweep_settles_what_was_in_doubt_when_the_partner_is_back) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external)});
  run(flow);
  record.failing_times = 0;
  EXPECT_EQ(recover(flow).committed, 1u);
  EXPECT_EQ(open(), 0u);
}

}  // namespace
}  // namespace sluice::flow
