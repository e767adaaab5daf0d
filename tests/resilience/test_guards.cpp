// Protectors as callers see them: one decision per call, all or nothing; modes; shadow traffic.
#include <gmock/gmock.h>

#include "resilience/guards_fixture.hpp"

namespace sluice::resilience {
namespace {

TEST_F(GuardsTest, RES_2_without_a_rule_calls_go_straight_through) {
  Protector& protector = guards.find("a");
  EXPECT_EQ(&protector, &guards.find("a"));
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(run(protector, Outcome::failure));
  EXPECT_TRUE(protector.snapshot(clock.now()).policies.empty());
}

TEST_F(GuardsTest, RES_3_a_block_names_policy_rule_and_version) {
  load("[guard.\"a.*\".rate]\nlimit = 1\n");
  Protector& protector = guards.find("a.b");
  EXPECT_TRUE(run(protector));
  const auto refused = protector.try_enter(call());
  ASSERT_FALSE(refused);
  const Block& block = refused.error();
  EXPECT_EQ(block.policy, Policy::rate);
  EXPECT_EQ(block.rule, "a.*");
  EXPECT_EQ(block.version, 1u);
  EXPECT_EQ(block.observed, 1);
  EXPECT_EQ(block.retry_after, seconds(1));
  EXPECT_FALSE(block.shadow);
  EXPECT_EQ(to_failure(block).traits().grpc_code, 8);
}

// What was asked against what was left, or how long the wait would be against how long it may be.
TEST_F(GuardsTest, RES_3_a_block_of_every_limit_tells_what_was_observed_and_what_bound_it_met) {
  load(
      "[guard.hot.hot_keys]\nlimit = 3\n[guard.pace.pacing]\nlimit = 10\nmax_wait = \"150ms\"\n"
      "[guard.warm.warm_up]\nlimit = 10\nwarm_up = \"10s\"\n"
      "[guard.rank.bulkhead]\nlimit = 4\npriorities = [1, 1, 0.75, 0.5]\n");
  const auto refused = [&](const char* command, const CallInfo& info) {
    auto permit = guards.find(command).try_enter(info);
    EXPECT_FALSE(permit) << command;
    return permit ? Block{} : permit.error();
  };
  CallInfo two = call();
  two.hot_key = "v";
  two.weight = 2;
  ASSERT_TRUE(guards.find("hot").try_enter(two));
  Block block = refused("hot", two);
  EXPECT_EQ(block.observed, 2) << "asked for";
  EXPECT_EQ(block.threshold, 1) << "left of this value's quota";
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(guards.find("pace").try_enter(call()));
  block = refused("pace", call());
  EXPECT_NEAR(block.observed, 0.2, 1e-6) << "seconds it would wait";
  EXPECT_NEAR(block.threshold, 0.15, 1e-9) << "seconds it may";
  ASSERT_TRUE(guards.find("warm").try_enter(call()));
  block = refused("warm", call());
  EXPECT_GT(block.observed, 0.1);
  EXPECT_EQ(block.threshold, 0);
  CallInfo many = call();
  many.weight = 11;
  for (const char* command : {"pace", "warm"}) {
    block = refused(command, many);
    EXPECT_EQ(block.observed, 11) << command << ": more than ever passes at once";
    EXPECT_EQ(block.threshold, 10) << command;
  }
  CallInfo low = call();
  low.priority = Priority::background;
  const auto one = guards.find("rank").try_enter(call()), other = guards.find("rank").try_enter(call());
  block = refused("rank", low);
  EXPECT_EQ(block.observed, 2);
  EXPECT_EQ(block.threshold, 2) << "the part of the limit that this priority may fill";
}

TEST_F(GuardsTest, RES_16_forced_open_stops_calls_also_where_the_rule_only_observes) {
  load(std::string(kBreaker) + "mode = \"observe\"\n");
  Protector& protector = guards.find("a");
  ASSERT_TRUE(guards.force("a", false, BreakerState::forced_open, "ann", "drill"));
  const auto refused = protector.try_enter(call());
  ASSERT_FALSE(refused) << "an operator's order is no verdict of the rule";
  EXPECT_EQ(refused.error().policy, Policy::breaker);
  EXPECT_EQ(counts(protector.snapshot(clock.now()), Policy::breaker).blocked, 1u);
  ASSERT_TRUE(guards.force("a", false, BreakerState::closed, "ann", "over"));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(run(protector, Outcome::failure)) << "tripped, it only counts again";
  EXPECT_GT(counts(protector.snapshot(clock.now()), Policy::breaker).would_block, 0u);
}

TEST_F(GuardsTest, RES_3_every_policy_has_its_code_on_every_wire) {
  struct Wire {
    Policy policy;
    int grpc, http;
  };
  constexpr int kResourceExhausted = 8, kUnavailable = 14, kDeadlineExceeded = 4;
  for (const Wire wire :
       {Wire{Policy::rate, kResourceExhausted, 429}, Wire{Policy::pacing, kResourceExhausted, 429},
        Wire{Policy::hot_keys, kResourceExhausted, 429},
        Wire{Policy::bulkhead, kResourceExhausted, 503},
        Wire{Policy::adaptive, kResourceExhausted, 503}, Wire{Policy::breaker, kUnavailable, 503},
        Wire{Policy::timeout, kDeadlineExceeded, 504}}) {
    const Block block{.policy = wire.policy,
                      .version = 7,
                      .rule = "a.*",
                      .observed = 5,
                      .threshold = 4,
                      .retry_after = microseconds(1500)};
    const Failure failure = to_failure(block);
    EXPECT_EQ(failure.traits().grpc_code, wire.grpc) << to_string(wire.policy);
    EXPECT_EQ(failure.traits().http_status, wire.http) << to_string(wire.policy);
    EXPECT_EQ(failure.retry_after(), milliseconds(2)) << "never early";
    EXPECT_EQ(failure.details()[2], (std::pair<std::string, std::string>("rule_version", "7")));
  }
}

TEST_F(GuardsTest, RES_5_the_outermost_policy_that_refuses_is_the_one_told) {
  load(std::string(kBreaker) +
       "[guard.a.rate]\nlimit = 0\n[guard.a.hot_keys]\nlimit = 0\n[guard.a.bulkhead]\nlimit = 0\n");
  Protector& protector = guards.find("a");
  const auto told = [&] {
    CallInfo hot = call();
    hot.hot_key = "k";
    return protector.try_enter(hot).error().policy;
  };
  EXPECT_TRUE(guards.force("a", false, BreakerState::forced_open, "ann", "order"));
  EXPECT_EQ(told(), Policy::breaker);
  EXPECT_TRUE(guards.force("a", false, BreakerState::closed, "ann", "order"));
  EXPECT_EQ(told(), Policy::rate);
  load("[guard.a.hot_keys]\nlimit = 0\n[guard.a.bulkhead]\nlimit = 0\n");
  EXPECT_EQ(told(), Policy::hot_keys);
  load("[guard.a.bulkhead]\nlimit = 0\n");
  EXPECT_EQ(told(), Policy::bulkhead);
}

TEST_F(GuardsTest, RES_4_what_was_taken_before_a_refusal_goes_back) {
  load(std::string(kBreaker) +
       "[guard.a.rate]\nlimit = 5\n[guard.a.bulkhead]\nlimit = 1\n[guard.a.hot_keys]\nlimit = 2\n");
  Protector& protector = guards.find("a");
  for (int i = 0; i < 4; ++i) run(protector, Outcome::failure);
  clock.advance(seconds(2));  // half-open: two trials
  CallInfo hot = call();
  hot.hot_key = "k";
  auto inside = protector.try_enter(hot);
  ASSERT_TRUE(inside);
  for (int i = 0; i < 10; ++i) {
    const auto refused = protector.try_enter(hot);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().policy, Policy::bulkhead);
  }
  const ProtectorSnapshot shown = protector.snapshot(clock.now());
  EXPECT_EQ(shown.breaker->trials_running, 1u) << "refused calls gave their trials back";
  EXPECT_EQ(shown.tokens, 4u) << "and took no tokens";
  EXPECT_EQ(shown.bulkhead->in_flight, 1u);
  inside->complete(Outcome::success, clock.now());
  EXPECT_EQ(protector.snapshot(clock.now()).bulkhead->in_flight, 0u);
}

TEST_F(GuardsTest, RES_4_nobody_waits_for_a_pacer_before_an_open_breaker) {
  load(std::string(kBreaker) + "[guard.a.pacing]\nlimit = 10\nmax_wait = \"10s\"\n");
  Protector& protector = guards.find("a");
  Duration longest{};
  for (int i = 0; i < 8; ++i) {
    auto permit = protector.try_enter(call());
    if (!permit) {
      EXPECT_EQ(permit.error().policy, Policy::breaker);
      continue;
    }
    longest = std::max(longest, permit->wait());
    permit->complete(Outcome::failure, clock.now());
  }
  EXPECT_EQ(longest, milliseconds(300)) << "four calls passed; the refused took no turns";
}

TEST_F(GuardsTest, RES_7_observe_counts_and_passes_and_off_is_not_asked) {
  load(
      "[guard.a.rate]\nmode = \"observe\"\nlimit = 2\n[guard.a.bulkhead]\nmode = \"off\"\nlimit = "
      "0\n");
  Protector& protector = guards.find("a");
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(run(protector));
  const auto shown = protector.snapshot(clock.now());
  EXPECT_EQ(counts(shown, Policy::rate).would_block, 3u);
  EXPECT_EQ(counts(shown, Policy::rate).blocked, 0u);
  EXPECT_EQ(shown.passed, 5u);
}

TEST_F(GuardsTest, RES_7_an_observed_breaker_and_bulkhead_hold_nothing_they_did_not_give) {
  load(std::string(kBreaker) +
       "mode = \"observe\"\n[guard.a.bulkhead]\nmode = \"observe\"\nlimit = 1\n");
  Protector& protector = guards.find("a");
  std::vector<GuardPermit> inside;
  for (int i = 0; i < 4; ++i) inside.push_back(std::move(*protector.try_enter(call())));
  for (auto& permit : inside) permit.complete(Outcome::failure, clock.now());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(run(protector));
  const auto shown = protector.snapshot(clock.now());
  EXPECT_EQ(shown.bulkhead->in_flight, 0u);
  EXPECT_EQ(counts(shown, Policy::bulkhead).would_block, 3u);
  EXPECT_EQ(shown.breaker->state, BreakerState::open);
  EXPECT_EQ(counts(shown, Policy::breaker).would_block, 3u);
}

TEST_F(GuardsTest, RES_7_observed_pacing_and_throttling_change_nothing) {
  load(
      "[guard.a.pacing]\nmode = \"observe\"\nlimit = 10\nmax_wait = \"1s\"\n"
      "[guard.a.throttle]\nmode = \"observe\"\n[guard.b.throttle]\n");
  Protector& protector = guards.find("a");
  for (int i = 0; i < 5; ++i) {
    auto permit = protector.try_enter(call());
    ASSERT_TRUE(permit);
    EXPECT_EQ(permit->wait(), Duration::zero());
    permit->complete(Outcome::success, clock.now());
  }
  EXPECT_EQ(counts(protector.snapshot(clock.now()), Policy::pacing).would_block, 4u);
  clock.advance(seconds(10));
  Throttle same(ThrottleOptions{}, random);
  for (int i = 0; i < 5; ++i) same.on_end(Outcome::success, clock.now());
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(run(protector, Outcome::overloaded));
    same.on_end(Outcome::overloaded, clock.now());
  }
  const auto shown = protector.snapshot(clock.now());
  EXPECT_GT(counts(shown, Policy::throttle).would_block, 20u);
  EXPECT_EQ(shown.throttle_refusal, same.refusal(clock.now())) << "each call counted once";
}

TEST_F(GuardsTest, RES_6_shadow_traffic_has_state_of_its_own) {
  load(kBreaker);
  Protector& live = guards.find("a");
  Protector& shadow = guards.find("a", true);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(run(shadow, Outcome::failure));
  const auto refused = shadow.try_enter(call());
  ASSERT_FALSE(refused) << "inherits the live rule";
  EXPECT_TRUE(refused.error().shadow);
  EXPECT_TRUE(run(live));
  EXPECT_EQ(live.snapshot(clock.now()).breaker->window.failures, 0u);
  load(std::string(kBreaker) + "[shadow.a.rate]\nlimit = 1\n");
  EXPECT_EQ(shadow.breaker(), nullptr) << "its own rule replaces the inherited one";
}

TEST_F(GuardsTest, RES_6_each_app_has_state_limits_and_budget_of_its_own) {
  load(std::string(kBreaker) + "[guard.a.rate]\nlimit = 10\n");
  Protector& shop = guards.find("a", Namespace("shop"));
  Protector& bank = guards.find("a", Namespace("bank"));
  EXPECT_EQ(&shop, &guards.find("a", Namespace("shop")));
  EXPECT_NE(&shop, &guards.find("a", Namespace("shop", true)));
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(run(shop, Outcome::failure));
  EXPECT_FALSE(run(shop));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(run(bank)) << "neither the other's breaker nor its tokens";
  EXPECT_FALSE(run(bank)) << "the rule is the same";
  std::vector<std::string> apps;
  for (const auto& one : guards.list()) apps.push_back(one.app + (one.shadow ? "~shadow" : ""));
  EXPECT_THAT(apps, testing::ElementsAre("bank", "shop", "shop~shadow"));
}

TEST_F(GuardsTest, RES_6_missing_shadow_rules_pass_or_deny_by_configuration) {
  GuardsOptions passing, denying;
  passing.missing_shadow = MissingShadow::pass;
  denying.missing_shadow = MissingShadow::deny;
  Guards pass(clock, random, passing), deny(clock, random, denying);
  for (Guards* one : {&pass, &deny}) ASSERT_TRUE(one->reload(rules("[guard.a.rate]\nlimit = 0\n")));
  EXPECT_TRUE(run(pass.find("a", true)));
  const auto refused = deny.find("a", true).try_enter(call());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().policy, Policy::missing_rule);
  EXPECT_FALSE(run(deny.find("a"))) << "live: by its rate";
  ASSERT_TRUE(deny.reload(rules("[shadow.a.rate]\nlimit = 9\n")));
  EXPECT_TRUE(run(deny.find("a", true)));
}

TEST_F(GuardsTest, RES_2_instances_are_bounded_by_the_stated_policy) {
  GuardsOptions few;
  few.max_protectors = 2;
  Guards shared(clock, random, few);
  ASSERT_TRUE(shared.reload(rules("[guard.\"*\".rate]\nlimit = 1\n")));
  shared.find("a");
  shared.find("b");
  EXPECT_EQ(&shared.find("c"), &shared.find("d"));
  EXPECT_TRUE(run(shared.find("c")));
  EXPECT_FALSE(run(shared.find("d")));
  few.overflow = GuardOverflow::deny;
  Guards denied(clock, random, few);
  denied.find("a");
  denied.find("b");
  EXPECT_EQ(denied.find("c").try_enter(call()).error().policy, Policy::overflow);
  EXPECT_EQ(denied.list().size(), 3u);
}

// Random calls on a protector with everything on: no policy keeps anything at the end, whatever
// refused in between, and whatever the rules were.
TEST_F(GuardsTest, RES_42_all_policies_together_leak_nothing) {
  const std::array<std::string, 3> files{
      std::string(kBreaker) +
          "[guard.a.rate]\nlimit = 20000\nburst=50\n[guard.a.bulkhead]\nlimit = 4\n"
          "[guard.a.hot_keys]\nlimit = 3000\nburst = 5\n[guard.a.throttle]\nwindow = \"1s\"\n",
      std::string(kBreaker) + "[guard.a.adaptive]\nceiling = 6\n[guard.a.pacing]\nlimit = 20000\n",
      "[guard.a.bulkhead]\nlimit = 3\n[guard.a.warm_up]\nlimit = 10000\nmax_wait = \"1s\"\n"};
  Protector& protector = guards.find("a");
  std::vector<GuardPermit> inside(8);
  std::uint64_t passed = 0, refused = 0;
  for (int i = 0; i < 400'000; ++i) {
    clock.advance(microseconds(random.below(200)));
    if (i % 20'000 == 0) load(files[random.below(files.size())] + "# " + std::to_string(i));
    GuardPermit& permit = inside[random.below(inside.size())];
    switch (random.below(8)) {
      case 0:
        permit.complete(Outcome::failure, clock.now());
        break;
      case 1:
        permit.cancel();
        break;
      case 2:
      case 3:
        permit.complete(Outcome::success, clock.now());
        break;
      default: {
        CallInfo info = call();
        if (random.one_in(3)) info.hot_key = "k";
        auto entered = protector.try_enter(info);
        ++(entered ? passed : refused);
        if (entered) permit = std::move(*entered);
      }
    }
  }
  EXPECT_GT(passed, 10'000u);
  EXPECT_GT(refused, 10'000u);
  inside.clear();
  for (const auto& file : files) {
    load(file);
    const auto shown = protector.snapshot(clock.now());
    if (shown.bulkhead) EXPECT_EQ(shown.bulkhead->in_flight, 0u);
    if (shown.adaptive) EXPECT_EQ(shown.adaptive->places.in_flight, 0u);
    if (shown.breaker) EXPECT_EQ(shown.breaker->trials_running, 0u);
  }
}

}  // namespace
}  // namespace sluice::resilience
