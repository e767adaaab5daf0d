// What a command declares of its keys: refuse_expired (IDEM-8), fail_open (IDEM-11).
#include "rpc/registry_fixture.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::rpc {
namespace {

/// Finds no key while it is `blind`.
class BlindStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  bool blind = false;
  bool ask(store::PendingQuery& pending) override {
    if (!blind) return inner_.ask(pending);
    pending.answer = fail(FailureKind::unavailable, "store_io", "the disk refused");
    return true;
  }
};

class KeyChoices : public RegistryTest {
 protected:
  BlindStore blinking{*store};
  idempotency::Keys few{clock, &blinking, {.max_entries = 1, .shards = 1}};
  Registry declared{blinking, few, ids};

  void declare(idempotency::KeyPolicy policy) {
    auto s = spec();
    s.keys = policy;
    ASSERT_TRUE(declared.add(std::move(s)));
  }
  Got& ask(std::string key) {
    auto& invocation = make("order.place", std::move(key));
    auto& got = answers.emplace_back();
    invocation.owner = &got;
    invocation.done = [](Invocation& i, Answer answer) noexcept { *static_cast<Got*>(i.owner) = {true, std::move(answer)}; };
    declared.dispatch(invocation);
    lane.run_ready();
    EXPECT_TRUE(got.done);
    return got;
  }
};

TEST_F(KeyChoices, IDEM_8_an_expired_key_is_refused_with_what_to_do_where_the_command_declares_it) {
  declare({.ttl = std::chrono::hours(1), .refuse_expired = true, .refuse_for = std::chrono::hours(10)});
  ask("k");
  EXPECT_TRUE(ask("k").answer.replayed);
  for (const bool forgotten : {false, true}) {
    clock.advance(std::chrono::hours(2));
    if (forgotten) ask("another");  // and memory holds one: the row itself must say so
    const Got& late = ask("k");
    EXPECT_EQ(late.code(), "expired_key");
    EXPECT_EQ(late.answer.failure->kind(), FailureKind::invalid_argument);
    EXPECT_NE(late.answer.failure->detail().find("use a new key"), std::string_view::npos);
  }
  EXPECT_EQ(runs, 2);
  clock.advance(std::chrono::hours(10));
  EXPECT_FALSE(ask("k").answer.replayed) << "past refuse_for it is as new";
  EXPECT_EQ(runs, 3);
}

TEST_F(KeyChoices, IDEM_8_otherwise_an_expired_key_runs_as_new) {
  declare({.ttl = std::chrono::hours(1)});
  ask("k");
  clock.advance(std::chrono::hours(2));
  EXPECT_FALSE(ask("k").answer.replayed);
  EXPECT_EQ(runs, 2);
}

TEST_F(KeyChoices, IDEM_11_a_command_that_declares_fail_open_runs_without_its_key_while_the_store_fails) {
  declare({.fail_open = true});
  blinking.blind = true;
  const Got& first = ask("k");
  EXPECT_EQ(first.answer.kind, Answer::Kind::reply) << first.code();
  EXPECT_EQ(ask("k").answer.kind, Answer::Kind::reply);
  EXPECT_EQ(runs, 2) << "nothing was remembered: a duplicate runs too";
  blinking.blind = false;
  EXPECT_FALSE(ask("k").answer.replayed);
  EXPECT_TRUE(ask("k").answer.replayed) << "with a store that works its keys are keys again";
  EXPECT_EQ(runs, 3);
}

TEST_F(KeyChoices, IDEM_11_otherwise_a_failing_store_fails_the_command_and_nothing_runs) {
  declare({});
  blinking.blind = true;
  EXPECT_EQ(ask("k").answer.failure->kind(), FailureKind::unavailable);
  EXPECT_EQ(runs, 0);
  blinking.blind = false;
  EXPECT_FALSE(ask("k").answer.replayed);
  EXPECT_EQ(runs, 1);
}

}  // namespace
}  // namespace sluice::rpc
