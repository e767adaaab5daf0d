// What recovery leaves behind of an exchange it cannot finish, however often it sweeps; and what every
// end leaves in the audit.
#include "flow_fixture.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::flow {
namespace {

store::KvKey at(std::string key) { return {"app", "accounts", std::move(key)}; }

/// A store that does something of its own before, or with, a Commit.
class Meddling final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  std::function<bool(store::PendingCommit&)> first;  ///< true: it was answered, or nobody waits for it
  void submit(store::PendingCommit& pending) override {
    if (!first || !first(pending)) inner_.submit(pending);
  }
};

class Listed : public FlowTest {
 protected:
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  Meddling meddling{*store};
  std::size_t records(ExchangeId id) { return store::ask_now(*store, store::ReadJournal{id})->size(); }
  std::size_t audits() { return store::ask_now(*store, store::ListAudit{})->size(); }
  RecoveryProgress sweep(Flow& flow) { return recover(flow, &meddling); }
  /// Its node dies once the first intent is durable.
  ExchangeId left_behind(std::uint32_t version) {
    Meddling dying(*store);
    dying.first = [this](store::PendingCommit& pending) {
      (void)store::commit_and_wait(*store, pending.commit);
      return true;
    };
    Flow old("f", {.version = version, .store = &dying});
    old.group("main", {record.stage("a", Effect::external)});
    auto x = exchange();
    start(old, x);
    settle_lane();
    return x->id();
  }
};

TEST_F(Listed, G6_a_sweep_writes_nothing_about_an_unknown_version_that_is_listed_already) {
  (void)left_behind(1);
  Flow newer("f", {.version = 2, .store = store.get()});
  newer.group("main", {record.stage("a", Effect::external)});
  EXPECT_EQ(sweep(newer).in_doubt, 1u);
  const auto rows = audits();
  EXPECT_EQ(rows, 1u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(sweep(newer).in_doubt, 1u);
  EXPECT_EQ(audits(), rows);
}

TEST_F(Listed, FLOW_27_what_was_settled_beside_a_sweep_stays_settled_and_is_settled_once) {
  const ExchangeId id = left_behind(1);
  Flow newer("f", {.version = 2, .store = store.get()});
  newer.group("main", {record.stage("a", Effect::external)});
  EXPECT_EQ(sweep(newer).in_doubt, 1u);
  // The sweep has read the exchange; the operator is faster than what the sweep writes about it.
  bool settled = false;
  meddling.first = [&](store::PendingCommit&) {
    if (!std::exchange(settled, true)) EXPECT_TRUE(settle(*store, id, false, "ann", "looked at it"));
    return false;
  };
  (void)sweep(newer);
  if (!settled) {
    EXPECT_TRUE(settle(*store, id, false, "ann", "looked at it"));
  }
  EXPECT_TRUE(list_in_doubt(*store, 10)->empty()) << "what was settled is in doubt no more";
  EXPECT_FALSE(settle(*store, id, false, "bob", "me too"));
  EXPECT_EQ(describe(*store, id)->settled_by, "ann");
}

TEST_F(Listed, G6_sweeps_over_a_commit_that_keeps_failing_leave_its_journal_as_it_is) {
  record.failing_commit = "a";
  record.failing_times = 1000;
  Flow flow("f", {.store = store.get()});
  flow.group("main", {record.stage("a", Effect::external), record.stage("b", Effect::external)});
  auto x = exchange();
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::in_doubt);
  settle_lane();
  EXPECT_EQ(sweep(flow).in_doubt, 1u);
  const auto after_one = records(x->id());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(sweep(flow).in_doubt, 1u);
  EXPECT_EQ(records(x->id()), after_one);
  EXPECT_EQ(list_in_doubt(*store, 10)->size(), 1u);
  record.failing_times = 0;
  EXPECT_EQ(sweep(flow).committed, 1u);
  EXPECT_TRUE(list_in_doubt(*store, 10)->empty());
}

TEST_F(Listed, CONSOLE_6_one_that_gives_up_running_again_is_audited) {
  Flow flow("f", {.store = store.get()});
  flow.group("main", {func("see", [this](Exchange& x) -> Result<Vote> {
               (void)store::commit_and_wait(*store, {.then = {store::KvAdd{at("n"), 1}}});
               x.draft().guards.push_back({{store::KvVersionIs{at("n"), 0}, "n"}, {}, true});
               return Vote();
             })});
  auto x = exchange();
  x->audited = true;
  const auto outcome = run(flow, x);
  ASSERT_EQ(outcome.kind, OutcomeKind::aborted);
  EXPECT_EQ(outcome.cause->code(), "too_many_reruns");
  settle_lane();
  EXPECT_EQ(audits(), 1u);
}

TEST_F(Listed, CONSOLE_6_one_whose_decision_the_store_refused_to_take_is_audited_when_it_can_be) {
  Flow flow("f", {.store = &meddling});
  flow.group("main", {func("add", [](Exchange& x) -> Result<Vote> {
               x.draft().add(at("n"), 1);
               return Vote();
             })});
  bool full = true;
  meddling.first = [&](store::PendingCommit& pending) {
    if (!std::exchange(full, false)) return false;
    pending.outcome = fail(FailureKind::overloaded, "store_queue_full", "");
    pending.lane->post(pending);
    return true;
  };
  auto x = exchange();
  x->audited = true;
  EXPECT_EQ(run(flow, x).kind, OutcomeKind::aborted);
  settle_lane();
  EXPECT_EQ(audits(), 1u);
}

TEST_F(Listed, G1_a_refusal_found_after_an_unknown_commit_is_told_as_it_was_stored) {
  idempotency::Keys keys(clock, &meddling, {});
  FlowOptions options;
  options.store = &meddling;
  options.keys = &keys;
  options.key = [](const Exchange&) { return std::optional<std::string>("k"); };
  Flow flow("f", std::move(options));
  flow.group("main", {func("take", [](Exchange& x) -> Result<Vote> {
               x.draft().take(at("empty"), 1, "sold_out");
               return Vote();
             })});
  bool lost = true;
  meddling.first = [&](store::PendingCommit& pending) {
    if (!std::exchange(lost, false)) return false;
    (void)store::commit_and_wait(*store, pending.commit);
    pending.outcome = fail(FailureKind::unknown_outcome, "", "the connection went");
    pending.lane->post(pending);
    return true;
  };
  const auto first = run(flow);
  ASSERT_TRUE(first.reply);
  settle_lane();
  idempotency::Keys after_restart(clock, store.get(), {});
  FlowOptions again;
  again.store = store.get();
  again.keys = &after_restart;
  again.key = [](const Exchange&) { return std::optional<std::string>("k"); };
  Flow later("f", std::move(again));
  later.group("main", {func("take", [](Exchange&) -> Result<Vote> { return Vote(); })});
  const auto second = run(later);
  EXPECT_TRUE(second.replayed);
  EXPECT_EQ(to_hex(first.reply_bytes), to_hex(second.reply_bytes)) << first.reply->detail << " / " << second.reply->detail;
}

}  // namespace
}  // namespace sluice::flow
