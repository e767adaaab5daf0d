// FLOW-17: whatever a stage throws, in whichever phase and way, is a failure of its exchange, which ends
// aborted or in doubt, on record; the process lives.
#include <stdexcept>

#include "sentences_fixture.hpp"

namespace sluice::flow {
namespace {

enum class In { prepare, commit, abort };
enum class How { synchronous, before_it_suspends, after_it_slept, instead_of_a_task };

/// Throws in one phase, the first `times` calls.
class Thrower final : public Stage {
 public:
  Thrower(In in, How how, bool foreign, int times) : in_(in), how_(how), foreign_(foreign), left_(times) {}
  std::string_view name() const noexcept override { return "odd"; }
  Effect effect() const noexcept override { return Effect::external; }
  bool asynchronous() const noexcept override { return how_ != How::synchronous; }
  bool has_commit() const noexcept override { return true; }
  bool has_abort() const noexcept override { return true; }

  Result<Vote> prepare(Exchange&) override {
    may_throw(In::prepare);
    return Vote();
  }
  Status commit(Exchange&) override {
    may_throw(In::commit);
    return {};
  }
  Status abort(Exchange&, bool prepared) override {
    aborts.push_back(prepared);
    may_throw(In::abort);
    return {};
  }
  Task<Result<Vote>> prepare_task(Exchange&) override {
    if (how_ == How::instead_of_a_task) may_throw(In::prepare);
    return preparing();
  }
  Task<Status> commit_task(Exchange&) override {
    if (how_ == How::instead_of_a_task) may_throw(In::commit);
    return settling(In::commit);
  }
  Task<Status> abort_task(Exchange&, bool prepared) override {
    aborts.push_back(prepared);
    if (how_ == How::instead_of_a_task) may_throw(In::abort);
    return settling(In::abort);
  }
  std::vector<bool> aborts;  ///< `prepared` of each

 private:
  void may_throw(In phase) {
    if (phase != in_ || left_ == 0) return;
    --left_;
    if (foreign_) throw 7;
    throw std::runtime_error("boom");
  }
  Task<void> nap() {
    if (how_ == How::after_it_slept) {
      auto sleeping = sleep_for(milliseconds(1));
      const FailureKind cut = co_await sleeping;
      (void)cut;
    }
  }
  Task<Result<Vote>> preparing() {
    auto napping = nap();
    co_await napping;
    may_throw(In::prepare);
    Result<Vote> vote = Vote();
    co_return vote;
  }
  Task<Status> settling(In phase) {
    auto napping = nap();
    co_await napping;
    may_throw(phase);
    Status done;
    co_return done;
  }
  In in_;
  How how_;
  bool foreign_;
  int left_;
};

class Throws : public Sentences {
 protected:
  struct Ended {
    Outcome outcome;
    TransactionView view;
    std::vector<bool> aborts;
  };
  /// before → odd → after, all external; `refused`: a last stage says no.
  Ended play(In in, How how, bool foreign, int times, bool refused) {
    record.calls.clear();
    const auto odd = std::make_shared<Thrower>(in, how, foreign, times);
    Flow flow("f", {.store = store.get()});
    flow.group("main", {record.stage("before", Effect::external), odd, record.stage("after", Effect::external)});
    if (refused)
      flow.group("main", {func("no", [](Exchange&) -> Result<Vote> { return fail(FailureKind::rejected, "no", ""); })});
    auto x = exchange();
    Ended ended;
    ended.outcome = run(flow, x);
    settle_lane();
    auto view = describe(*store, x->id());
    EXPECT_TRUE(view) << "it is on record";
    if (view) ended.view = *std::move(view);
    ended.aborts = odd->aborts;
    return ended;
  }
  template <class Check>
  void each_way(const Check& check) {
    for (const How how : {How::synchronous, How::before_it_suspends, How::after_it_slept, How::instead_of_a_task})
      for (const bool foreign : {false, true}) {
        SCOPED_TRACE("way " + std::to_string(static_cast<int>(how)) + (foreign ? ", no std::exception" : ""));
        check(how, foreign);
      }
  }
  std::size_t listed() { return list_in_doubt(*store, 100)->size(); }
};

TEST_F(Throws, FLOW_17_in_prepare_it_aborts_and_what_began_is_undone) {
  each_way([&](How how, bool foreign) {
    const Ended ended = play(In::prepare, how, foreign, 1, false);
    EXPECT_EQ(ended.outcome.kind, OutcomeKind::aborted);
    ASSERT_TRUE(ended.outcome.cause);
    EXPECT_EQ(ended.outcome.cause->kind(), FailureKind::internal);
    EXPECT_EQ(ended.outcome.cause->code(), "exception");
    if (!foreign) EXPECT_NE(ended.outcome.cause->detail().find("boom"), std::string_view::npos);
    EXPECT_EQ(ended.aborts, std::vector<bool>{false}) << "it began, and may have done a part";
    EXPECT_EQ(record.calls, (std::vector<std::string>{"before.prepare", "before.abort(1)"}));
    EXPECT_EQ(ended.view.outcome, "aborted");
    EXPECT_EQ(open(), 0u);
  });
}

TEST_F(Throws, FLOW_17_in_commit_it_is_in_doubt_by_name_and_the_others_commit) {
  std::size_t doubtful = 0;
  each_way([&](How how, bool foreign) {
    const Ended ended = play(In::commit, how, foreign, 1000, false);
    EXPECT_EQ(ended.outcome.kind, OutcomeKind::in_doubt);
    ASSERT_TRUE(ended.outcome.cause);
    EXPECT_NE(ended.outcome.cause->detail().find("stage 'odd'"), std::string_view::npos);
    if (!foreign) EXPECT_NE(ended.outcome.cause->detail().find("boom"), std::string_view::npos);
    EXPECT_EQ(count("before.commit"), 1u);
    EXPECT_EQ(count("after.commit"), 1u);
    EXPECT_EQ(ended.view.outcome, "in_doubt");
    EXPECT_EQ(listed(), ++doubtful);
  });
}

TEST_F(Throws, FLOW_17_in_abort_it_is_in_doubt_and_the_others_are_undone) {
  std::size_t doubtful = 0;
  each_way([&](How how, bool foreign) {
    const Ended ended = play(In::abort, how, foreign, 1000, true);
    EXPECT_EQ(ended.outcome.kind, OutcomeKind::in_doubt);
    EXPECT_EQ(count("after.abort(1)"), 1u);
    EXPECT_EQ(count("before.abort(1)"), 1u);
    EXPECT_EQ(ended.view.outcome, "in_doubt");
    EXPECT_EQ(listed(), ++doubtful);
  });
}

TEST_F(Throws, FLOW_17_a_throw_of_the_second_phase_is_retried_as_any_failure_is) {
  each_way([&](How how, bool foreign) {
    EXPECT_EQ(play(In::commit, how, foreign, 2, false).outcome.kind, OutcomeKind::committed);
    EXPECT_EQ(play(In::abort, how, foreign, 2, true).outcome.kind, OutcomeKind::aborted);
    EXPECT_EQ(open(), 0u);
  });
}

TEST_F(Throws, FLOW_17_in_recovery_too) {
  OddStore dying(*store);
  dying.at = 1;  // the decision is durable, nobody is told
  dying.applies = dying.dies = true;
  const auto shape = [&](Flow& flow, int times) {
    flow.group("main", {std::make_shared<Thrower>(In::commit, How::synchronous, false, times)});
  };
  Flow doomed("f", {.store = &dying});
  shape(doomed, 0);
  start(doomed, exchange());
  settle_lane();
  Flow next("f", {.store = store.get()});
  shape(next, 1000);
  EXPECT_EQ(recover(next).in_doubt, 1u);
  EXPECT_EQ(listed(), 1u);
  Flow mended("f", {.store = store.get()});
  shape(mended, 0);
  EXPECT_EQ(recover(mended).committed, 1u);
  EXPECT_EQ(open(), 0u);
}

// Not a phase of a stage, but as much the application's own: it ends its request, not the lane.
TEST_F(Throws, a_key_function_that_throws_fails_its_request_and_nothing_runs) {
  for (const bool foreign : {false, true}) {
    auto options = keyed(*store, *keys);
    options.key = [foreign](const Exchange&) -> std::optional<std::string> {
      if (foreign) throw 7;
      throw std::runtime_error("no such header");
    };
    Flow flow("f", std::move(options));
    flow.group("main", {record.stage("a")});
    const Outcome outcome = run(flow);
    EXPECT_EQ(outcome.kind, OutcomeKind::aborted);
    ASSERT_TRUE(outcome.cause);
    EXPECT_EQ(outcome.cause->kind(), FailureKind::internal);
    EXPECT_TRUE(record.calls.empty());
  }
}

}  // namespace
}  // namespace sluice::flow
