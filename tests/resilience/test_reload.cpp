// Rules replaced while calls run: state stays where its policy stays; what operators see and force.
#include "resilience/guards_fixture.hpp"
#include "sluice/resilience/guard_metrics.hpp"

namespace sluice::resilience {
namespace {

using ReloadTest = GuardsTest;

TEST_F(ReloadTest, RES_40_an_identical_reload_is_a_no_op) {
  load(kBreaker);
  const auto again = guards.reload(rules(kBreaker));
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->empty());
  EXPECT_EQ(again->version, 1u);
  EXPECT_EQ(guards.audits().size(), 1u);
}

TEST_F(ReloadTest, RES_40_editing_one_field_keeps_counters_and_state) {
  load(kBreaker);
  Protector& protector = guards.find("a");
  for (int i = 0; i < 4; ++i) run(protector, Outcome::failure);
  ASSERT_EQ(protector.breaker()->state(), BreakerState::open);
  auto edited = rules(kBreaker);
  edited.rules[0].breaker->options.failure_ratio = 0.75;
  const auto plan = guards.plan(edited);
  ASSERT_TRUE(plan);
  EXPECT_NE(plan->text.find("~ guard 'a' breaker.failure_ratio: 0.5 -> 0.75\n"), std::string::npos)
      << plan->text;
  EXPECT_NE(plan->text.find("closes 0, resets 0"), std::string::npos);
  ASSERT_TRUE(guards.reload(edited));
  EXPECT_EQ(protector.breaker()->state(), BreakerState::open);
  EXPECT_FALSE(run(protector));
  EXPECT_EQ(protector.snapshot(clock.now()).version, 2u);
}

TEST_F(ReloadTest, RES_40_a_dry_run_tells_what_closes_and_what_resets) {
  load(std::string(kBreaker) + "[guard.\"b.*\".breaker]\nwindow = \"count\"\n");
  Protector& a = guards.find("a");
  guards.find("b.1");
  guards.find("b.2");
  for (int i = 0; i < 4; ++i) run(a, Outcome::failure);
  const auto next = rules("[guard.\"b.*\".breaker]\nwindow = \"time\"\n");
  const auto plan = guards.plan(next);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->closes, 1u);
  EXPECT_EQ(plan->resets, 2u);
  EXPECT_NE(plan->text.find("- guard 'a': breaker\n"), std::string::npos) << plan->text;
  EXPECT_NE(plan->text.find("! 'a' of app 'default' closes\n"), std::string::npos) << plan->text;
  EXPECT_FALSE(run(a)) << "a dry run changes nothing";
  ASSERT_TRUE(guards.reload(next));
  EXPECT_TRUE(run(a));
  EXPECT_EQ(transitions.back(), std::pair(std::string("a"), BreakerState::closed));
  load(kBreaker);
  EXPECT_TRUE(run(a)) << "it does not come back open";
}

TEST_F(ReloadTest, RES_40_a_rule_that_names_nothing_that_was_called_is_told) {
  guards.find("codes.SG");
  const auto plan = guards.plan(rules("[guard.\"codes.*\".breaker]\n[guard.\"*\".breaker]\n[guard.\"users.*\".breaker]\n"));
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->rules_unmet, 1u);
  EXPECT_NE(plan->text.find("? guard 'users.*': nothing it names has been called yet\n"), std::string::npos) << plan->text;
}

TEST_F(ReloadTest, RES_40_what_a_narrower_rule_takes_away_is_told) {
  const std::string wide = "[guard.\"codes.*\".breaker]\n[guard.\"codes.*\".timeout]\n[guard.\"codes.*\".retry]\n"
                           "[guard.\"codes.*\".throttle]\nmode = \"off\"\n";
  load(wide);
  Protector& narrowed = guards.find("codes.SG", Namespace("shop"));
  guards.find("codes.SG", Namespace("bank"));
  guards.find("codes.SG", Namespace("bank", true));
  guards.find("codes.TH");
  const std::string narrow = "[guard.\"codes.SG\".rate]\n[guard.\"codes.SG\".timeout]\nmode = \"off\"\n";
  const auto next = rules(wide + narrow);
  const auto plan = guards.plan(next);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->loses, 2u) << plan->text;
  const std::string told = "! 'codes.SG' loses breaker, timeout, retry of 'codes.*'\n";
  const auto at = plan->text.find(told);
  EXPECT_NE(at, std::string::npos) << plan->text;
  EXPECT_EQ(plan->text.find(told, at + 1), std::string::npos) << "once for all apps: the rule is the same";
  EXPECT_NE(plan->text.find("! shadow 'codes.SG' loses breaker, timeout, retry of 'codes.*'\n"), std::string::npos) << plan->text;
  EXPECT_EQ(plan->text.find("codes.TH"), std::string::npos) << plan->text;
  EXPECT_NE(narrowed.breaker(), nullptr) << "a dry run";
  const auto done = guards.reload(next);
  ASSERT_TRUE(done);
  EXPECT_EQ(done->text, plan->text);
  EXPECT_EQ(narrowed.breaker(), nullptr);
}

TEST_F(ReloadTest, RES_40_only_what_another_rule_takes_away_is_told_as_lost) {
  const std::string wide = "[guard.\"codes.*\".breaker]\n[guard.\"codes.*\".retry]\n";
  load(wide);
  guards.find("codes.SG");
  guards.find("codes.TH", true);
  for (const char* next : {"[guard.\"codes.*\".breaker]\n", "[guard.\"codes.SG\".breaker]\n[guard.\"codes.SG\".retry]\n[guard.\"codes.SG\".rate]\n"}) {
    const auto plan = guards.plan(rules(std::string(next).starts_with("[guard.\"codes.SG") ? wide + next : next));
    ASSERT_TRUE(plan);
    EXPECT_EQ(plan->loses, 0u) << plan->text;
    EXPECT_EQ(plan->text.find(" loses "), std::string::npos) << plan->text;
  }
  const auto gone = guards.plan(rules(""));
  ASSERT_TRUE(gone);
  EXPECT_NE(gone->text.find("! 'codes.SG' loses breaker, retry of 'codes.*': no rule fits it any more\n"), std::string::npos) << gone->text;
  const auto shadow = guards.plan(rules(wide + "[shadow.\"*\".rate]\n"));
  ASSERT_TRUE(shadow);
  EXPECT_NE(shadow->text.find("! shadow 'codes.TH' loses breaker, retry of 'codes.*'\n"), std::string::npos) << shadow->text;
}

TEST_F(ReloadTest, RES_40_invalid_rules_are_refused_whole) {
  load(kBreaker);
  auto bad = rules(kBreaker);
  bad.rules.push_back(bad.rules[0]);
  EXPECT_FALSE(guards.reload(bad));
  bad.rules[1].pattern = "b";
  bad.rules[1].breaker->options.failure_ratio = 0;
  EXPECT_FALSE(guards.plan(bad));
  EXPECT_FALSE(guards.reload(bad));
  EXPECT_EQ(guards.find("b").breaker(), nullptr);
  EXPECT_NE(guards.find("a").breaker(), nullptr);
}

TEST_F(ReloadTest, RES_40_a_permit_survives_the_removal_of_its_rule) {
  load(std::string(kBreaker) + "[guard.a.bulkhead]\nlimit = 1\n");
  Protector& protector = guards.find("a");
  auto permit = protector.try_enter(call());
  load("");
  permit->complete(Outcome::failure, clock.now());
  load("[guard.a.bulkhead]\nlimit = 1\n");
  EXPECT_EQ(protector.snapshot(clock.now()).bulkhead->in_flight, 0u);
}

TEST_F(ReloadTest, RES_41_forced_by_name_and_audited) {
  load(kBreaker);
  EXPECT_FALSE(guards.force("b", false, BreakerState::forced_open, "ann", "drill")) << "no rule gives it a breaker";
  EXPECT_TRUE(guards.list().empty()) << "nor does a name that was mistyped stay";
  ASSERT_TRUE(guards.force("a", false, BreakerState::forced_open, "ann", "drill")) << "before its first call";
  EXPECT_FALSE(run(guards.find("a")));
  const auto shown = guards.show("a");
  ASSERT_TRUE(shown);
  EXPECT_EQ(shown->breaker->state, BreakerState::forced_open);
  EXPECT_EQ(shown->breaker->transitions.back().reason, BreakerReason::operator_order);
  EXPECT_FALSE(guards.force("a", false, BreakerState::forced_open, "ann", "again"));
  ASSERT_EQ(guards.audits().size(), 3u);
  EXPECT_FALSE(guards.audits()[1].refused);
  EXPECT_TRUE(guards.audits()[2].refused) << "what did not happen is not told as done";
  EXPECT_EQ(guards.audits()[1].by, "ann");
  EXPECT_EQ(guards.audits()[1].what, "breaker of 'a': closed -> forced_open: drill");
  EXPECT_FALSE(guards.show("b"));
}

TEST_F(ReloadTest, RES_41_an_order_without_an_app_holds_for_each_also_for_one_that_comes_later) {
  load(kBreaker);
  const Namespace shop("shop"), bank("bank");
  Protector& early = guards.find("a", shop);
  ASSERT_TRUE(guards.force("a", false, BreakerState::forced_open, "ann", "drill"));
  const std::size_t told = transitions.size();
  Protector& late = guards.find("a", bank);
  EXPECT_EQ(transitions.size(), told) << "it was told when it was given";
  EXPECT_FALSE(run(early));
  EXPECT_FALSE(run(late));
  const auto which = guards.show("a");
  ASSERT_FALSE(which) << "each has one of its own";
  EXPECT_EQ(which.error().code(), "which_app");
  EXPECT_EQ(guards.show("a", false, "bank")->app, "bank");
  ASSERT_TRUE(guards.force("a", false, BreakerState::closed, "ann", "over", "bank"));
  EXPECT_EQ(guards.audits().back().what, "breaker of 'a' of app 'bank': forced_open -> closed: over");
  EXPECT_FALSE(run(early));
  EXPECT_TRUE(run(late));
  ASSERT_TRUE(guards.force("a", false, BreakerState::half_open, "ann", "try"));
  EXPECT_TRUE(run(early));
  EXPECT_TRUE(run(guards.find("a", Namespace("post")))) << "nothing is left of the order";
}

TEST_F(ReloadTest, RES_40_a_misspelt_rule_is_told_also_once_its_name_was_forced) {
  const std::string slip = std::string(kBreaker) + "[guard.aa.breaker]\n";
  load(slip);
  guards.find("a");
  ASSERT_TRUE(guards.force("aa", false, BreakerState::forced_open, "ann", "drill"));
  EXPECT_EQ(guards.plan(rules(slip))->rules_unmet, 1u);
  EXPECT_FALSE(guards.called("aa"));
  EXPECT_TRUE(guards.called("a"));
  load("[guard.\"a*\".breaker]\n");
  EXPECT_EQ(guards.nearest("aab"), "a") << "not the slip before it";
}

TEST_F(ReloadTest, RES_16_an_operators_order_outlives_the_rule_of_its_breaker) {
  load(kBreaker);
  Protector& protector = guards.find("a");
  for (const BreakerState order : {BreakerState::forced_open, BreakerState::forced_closed, BreakerState::disabled}) {
    ASSERT_TRUE(guards.force("a", false, order, "ann", "drill"));
    const auto plan = guards.plan(rules(""));
    ASSERT_TRUE(plan);
    EXPECT_EQ(plan->closes, 0u) << to_string(order);
    load("");
    EXPECT_EQ(run(protector), order != BreakerState::forced_open) << "also while no rule gives it a breaker";
    load(kBreaker);
    EXPECT_EQ(protector.breaker()->state(), order);
    ASSERT_TRUE(guards.force("a", false, BreakerState::closed, "ann", "over"));
  }
}

TEST_F(ReloadTest, RES_16_an_order_lifted_while_there_is_no_rule_leaves_no_breaker) {
  load(kBreaker);
  Protector& protector = guards.find("a");
  for (const BreakerState after : {BreakerState::closed, BreakerState::half_open}) {
    ASSERT_TRUE(guards.force("a", false, BreakerState::forced_open, "ann", "drill"));
    load("");
    ASSERT_TRUE(guards.force("a", false, after, "ann", "over"));
    EXPECT_EQ(protector.breaker(), nullptr);
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(run(protector, Outcome::failure));
    load(kBreaker);
    EXPECT_EQ(protector.breaker()->state(), BreakerState::closed);
  }
}

TEST_F(ReloadTest, RES_41_the_name_that_a_slip_may_have_meant_is_known) {
  load("[guard.\"voucher.code.*\".breaker]\n[guard.\"voucher.user.exists\".breaker]\n");
  guards.find("voucher.code.get.SG");
  guards.find("voucher.code.put.TH", true);
  EXPECT_EQ(guards.nearest("voucher.code.gte.SG"), "voucher.code.get.SG");
  EXPECT_EQ(guards.nearest("voucher.user.exist"), "voucher.user.exists") << "not called, but it has a rule";
  EXPECT_EQ(guards.nearest("voucher.code.get.SG"), std::nullopt) << "a name is no slip of itself";
  EXPECT_EQ(guards.nearest("bank.transfer"), std::nullopt);
  EXPECT_EQ(guards.nearest("voucher.code.putt.TH", true), "voucher.code.put.TH");
  EXPECT_EQ(guards.nearest("voucher.code.putt.TH"), std::nullopt) << "shadow traffic's are its own";
}

TEST_F(ReloadTest, RES_41_an_order_for_a_rules_pattern_is_refused_and_names_the_calls) {
  load("[guard.\"codes.*\".breaker]\n[guard.\"*\".breaker]\n");
  Protector& here = guards.find("codes.MY");
  guards.find("codes.SG", Namespace("shop"));
  guards.find("codes.SG", Namespace("bank"));
  guards.find("codes.TH", true);
  guards.find("users.MY");
  for (const char* app : {"", "shop"}) {
    const Status refused = guards.force("codes.*", false, BreakerState::forced_open, "ann", "drill", app);
    ASSERT_FALSE(refused) << "calls go on under their own names";
    EXPECT_EQ(refused.error().kind(), FailureKind::invalid_argument);
    EXPECT_EQ(refused.error().code(), "pattern_is_no_call");
    const std::string told = refused.error().to_string();
    EXPECT_NE(told.find("codes.MY, codes.SG"), std::string::npos) << told;
    EXPECT_EQ(told.find("codes.TH"), std::string::npos) << told;
    EXPECT_EQ(told.find("users.MY"), std::string::npos) << told;
  }
  EXPECT_EQ(guards.list().size(), 5u) << "nothing was made for it";
  EXPECT_TRUE(run(here));
  const Status none = guards.force("bank.*", false, BreakerState::forced_open, "ann", "drill");
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().to_string().find("none of those called"), std::string::npos) << none.error().to_string();
}

TEST_F(ReloadTest, RES_41_another_region_is_no_slip) {
  load("[guard.\"cache.*\".breaker]\n");
  guards.find("voucher.cache.MY");
  guards.find("voucher.user.exists");
  EXPECT_EQ(guards.nearest("voucher.cache.TH"), std::nullopt) << "a region that was not called yet";
  EXPECT_EQ(guards.nearest("voucher.cache.MM"), std::nullopt);
  EXPECT_EQ(guards.nearest("voucher.cahce.TH"), std::nullopt) << "nor with another slip beside it";
  EXPECT_EQ(guards.nearest("voucher.cache.sg"), std::nullopt);
  EXPECT_EQ(guards.nearest("voucher.cahce.MY"), "voucher.cache.MY");
  EXPECT_EQ(guards.nearest("voucher.cache.MYY"), "voucher.cache.MY");
  EXPECT_EQ(guards.nearest("voucher.user.EXIST"), "voucher.user.exists") << "capitals are no other letters";
  guards.find("voucher.cache.SG");
  EXPECT_EQ(guards.nearest("voucher.cache.sg"), "voucher.cache.SG");
  EXPECT_EQ(guards.nearest("Voucher.Cache.sg"), "voucher.cache.SG");
}

TEST_F(ReloadTest, RES_41_what_a_rule_took_away_is_not_in_the_metrics_any_more) {
  const std::string all = std::string(kBreaker) + "[guard.a.rate]\nlimit = 100\n[guard.a.bulkhead]\nlimit = 3\n[guard.a.retry]\n";
  load(all);
  Metrics metrics;
  const GuardMetrics shown(guards, metrics);
  Protector& protector = guards.find("a");
  for (int i = 0; i < 3; ++i) run(protector, i == 0 ? Outcome::success : Outcome::failure);
  protector.count_retry();
  const std::vector<std::string> gauges{"breaker_state", "window_calls", "window_failures", "window_slow", "tokens",
                                        "retry_budget", "in_flight", "limit", "waiting"};
  const auto value = [&](const std::string& name) {
    const std::string text = metrics.prometheus_text(), line = "\nsluice_guard_" + name + "{app=\"default\",command=\"a\",traffic=\"live\"} ";
    const auto at = text.find(line);
    return at == std::string::npos ? std::string("absent") : text.substr(at + line.size(), text.find('\n', at + 1) - at - line.size());
  };
  EXPECT_EQ(value("window_calls"), "3");
  EXPECT_EQ(value("window_failures"), "2");
  EXPECT_EQ(value("window_slow"), "0");
  EXPECT_EQ(value("tokens"), "97");
  EXPECT_EQ(value("retry_budget"), "10");
  EXPECT_EQ(value("retries_total"), "1");
  EXPECT_EQ(value("hedges_total"), "0");
  ASSERT_TRUE(guards.force("a", false, BreakerState::half_open, "ann", "x") || guards.force("a", false, BreakerState::metrics_only, "ann", "x"));
  ASSERT_TRUE(guards.force("a", false, BreakerState::closed, "ann", "x"));
  load("");
  for (const auto& name : gauges) EXPECT_EQ(value(name), "absent") << name;
  load(all);
  for (const auto& name : gauges) EXPECT_NE(value(name), "absent") << name;
}

TEST_F(ReloadTest, RES_41_past_the_bound_of_series_gauges_are_a_sum_and_go_with_their_rule) {
  const std::string limits = "[guard.\"*\".bulkhead]\nlimit = 3\n";
  load(limits + "[guard.\"*\".breaker]\n");
  Metrics metrics({.max_series_per_name = 2});
  const GuardMetrics shown(guards, metrics);
  std::vector<GuardPermit> inside;
  const auto enter = [&](const char* name) { inside.push_back(*guards.find(name).try_enter(call())); };
  for (const char* name : {"a", "b", "c", "c", "d"}) enter(name);
  const auto has = [&](const std::string& line) { return metrics.prometheus_text().find(line) != std::string::npos; };
  const std::string other = "{app=\"other\",command=\"other\",traffic=\"other\"} ";
  EXPECT_TRUE(has("sluice_guard_in_flight{app=\"default\",command=\"b\",traffic=\"live\"} 1\n"));
  EXPECT_TRUE(has("sluice_guard_in_flight" + other + "3\n")) << metrics.prometheus_text();
  EXPECT_TRUE(has("sluice_guard_limit" + other + "6\n"));
  EXPECT_TRUE(has("sluice_guard_passed_total" + other + "3\n"));
  EXPECT_TRUE(has("sluice_guard_breaker_state{app=\"default\",command=\"b\"")) << "of those with a series";
  EXPECT_FALSE(has("sluice_guard_breaker_state" + other)) << "states have no sum";
  inside.clear();
  EXPECT_TRUE(has("sluice_guard_in_flight" + other + "0\n"));
  load("[guard.c.bulkhead]\nlimit = 3\n");
  EXPECT_TRUE(has("sluice_guard_limit{app=\"default\",command=\"c\",traffic=\"live\"} 3\n")) << "there is room again";
  EXPECT_FALSE(has("sluice_guard_limit" + other));
  EXPECT_FALSE(has("sluice_guard_breaker_state{"));
}

TEST_F(ReloadTest, RES_41_protectors_are_in_the_metrics) {
  load(std::string(kBreaker) + "[guard.a.bulkhead]\nlimit = 3\n");
  Metrics metrics;
  const GuardMetrics shown(guards, metrics);
  Protector& protector = guards.find("a");
  const auto has = [&](const std::string& line) {
    return metrics.prometheus_text().find(line + "\n") != std::string::npos;
  };
  for (int i = 0; i < 4; ++i) run(protector, Outcome::failure);
  EXPECT_FALSE(run(protector));
  EXPECT_TRUE(has("sluice_guard_passed_total{app=\"default\",command=\"a\",traffic=\"live\"} 4"))
      << metrics.prometheus_text();
  EXPECT_TRUE(has("sluice_guard_breaker_state{app=\"default\",command=\"a\",traffic=\"live\"} 1"));
  EXPECT_FALSE(run(protector));
  EXPECT_TRUE(
      has("sluice_guard_blocked_total{app=\"default\",command=\"a\",policy=\"breaker\",traffic=\"live\"} 2") ||
      has("sluice_guard_blocked_total{app=\"default\",command=\"a\",traffic=\"live\",policy=\"breaker\"} 2"))
      << metrics.prometheus_text();
  EXPECT_TRUE(has("sluice_guard_limit{app=\"default\",command=\"a\",traffic=\"live\"} 3"));
}

}  // namespace
}  // namespace sluice::resilience
