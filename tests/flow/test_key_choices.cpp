// What a keyed flow declares of its keys: refuse_expired (IDEM-8), fail_open (IDEM-11).
#include "flow_fixture.hpp"
#include "spy_store.hpp"

namespace sluice::flow {
namespace {

class KeyChoices : public FlowTest {
 protected:
  ~KeyChoices() override {
    store->close();
    lane.run_ready();
  }
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  SpyStore spy{*store};
  idempotency::Keys keys{clock, &spy};
  int runs = 0;

  std::unique_ptr<Flow> declared(idempotency::KeyPolicy policy, std::string key) {
    FlowOptions options;
    options.store = &spy;
    options.keys = &keys;
    options.key_policy = policy;
    options.key = [key](const Exchange&) { return std::optional<std::string>(key); };
    auto flow = std::make_unique<Flow>("f", std::move(options));
    flow->group("main", {func("count", [this](Exchange& x) -> Result<Vote> {
                  x.respond(Reply::ok("run " + std::to_string(++runs)));
                  return Vote();
                })});
    return flow;
  }
};

TEST_F(KeyChoices, IDEM_8_an_expired_key_of_a_flow_is_refused_or_runs_as_new_by_choice) {
  for (const bool refuse : {true, false}) {
    const auto flow = declared({.ttl = std::chrono::hours(1), .refuse_expired = refuse}, refuse ? "a" : "b");
    const int before = runs;
    EXPECT_EQ(run(*flow).kind, OutcomeKind::committed);
    clock.advance(std::chrono::hours(2));
    const auto late = run(*flow);
    if (refuse) {
      EXPECT_EQ(late.kind, OutcomeKind::aborted);
      ASSERT_TRUE(late.cause);
      EXPECT_EQ(late.cause->code(), "expired_key");
      EXPECT_NE(late.cause->detail().find("use a new key"), std::string_view::npos);
    }
    EXPECT_EQ(runs - before, refuse ? 1 : 2);
  }
}

TEST_F(KeyChoices, IDEM_11_a_flow_runs_without_its_key_while_the_store_fails_if_it_declares_that) {
  for (const bool open : {true, false}) {
    const auto flow = declared({.fail_open = open}, open ? "a" : "b");
    const int before = runs;
    spy.unreadable = 1;
    const auto outcome = run(*flow);
    EXPECT_EQ(outcome.kind, open ? OutcomeKind::committed : OutcomeKind::aborted);
    EXPECT_EQ(runs - before, open ? 1 : 0);
    if (!open) EXPECT_EQ(outcome.cause->kind(), FailureKind::unavailable);
    EXPECT_FALSE(run(*flow).replayed) << "nothing was remembered";
    EXPECT_TRUE(run(*flow).replayed);
  }
}

}  // namespace
}  // namespace sluice::flow
