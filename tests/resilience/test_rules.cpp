// Rule files: every mistake is told with its place, and nothing of a bad file takes effect.
#include "sluice/resilience/rule.hpp"

namespace sluice::resilience {
namespace {

std::string error_of(std::string_view toml) {
  const auto rules = parse_rules(toml, "rules.toml");
  return rules ? "accepted" : std::string(rules.error().detail());
}

TEST(Rules, RES_40_reads_every_policy) {
  const auto rules = parse_rules(R"(
[guard."code.*".breaker]
window = "count"
window_calls = 50
failure_ratio = 0.25
isolation = "2s"
[guard."code.*".rate]
mode = "observe"
limit = 500
[guard."code.*".hot_keys]
limit = 5
overrides = { vip = 50, banned = 0 }
[guard."code.*".bulkhead]
limit = 32
shares = [0.5, 0.25]
order = "lifo_under_overload"
[guard."code.*".timeout]
timeout = "250ms"
[guard."code.*".retry]
attempts = 4
safe = true
[guard."code.*".hedge]
delay = "20ms"
[guard."*".adaptive]
ceiling = 100
[guard."*".throttle]
k = 1.5
[guard."*".pacing]
limit = 10
[guard."*".warm_up]
limit = 10
[shadow."code.issue".rate]
limit = 5
)",
                                 "rules.toml");
  ASSERT_TRUE(rules) << rules.error().detail();
  ASSERT_EQ(rules->rules.size(), 3u);
  const RuleIndex index(*rules);
  const Rule* code = index.find("code.issue", false);
  ASSERT_NE(code, nullptr);
  EXPECT_EQ(code->pattern, "code.*");
  EXPECT_EQ(code->breaker->options.window, BreakerWindow::count);
  EXPECT_EQ(code->breaker->options.isolation, seconds(2));
  EXPECT_EQ(code->rate->mode, Mode::observe);
  EXPECT_EQ(code->hot_keys->options.overrides.size(), 2u);
  EXPECT_EQ(code->bulkhead->options.shares[1], 0.25);
  EXPECT_EQ(code->bulkhead->options.order, QueueOrder::lifo_under_overload);
  EXPECT_EQ(code->timeout->options.timeout, milliseconds(250));
  EXPECT_TRUE(code->retry->options.safe);
  EXPECT_EQ(index.find("user.get", false)->pattern, "*");
  EXPECT_EQ(index.find("code.issue", true)->rate->options.limit, 5u);
  EXPECT_EQ(index.find("code.void", true), nullptr);
}

TEST(Rules, RES_2_exact_names_win_over_the_longest_prefix_over_all) {
  RuleSet set;
  for (const auto* pattern : {"*", "a.*", "a.b.*", "a.b.c"}) {
    Rule rule;
    rule.pattern = pattern;
    set.rules.push_back(rule);
  }
  const RuleIndex index(set);
  EXPECT_EQ(index.find("a.b.c", false)->pattern, "a.b.c");
  EXPECT_EQ(index.find("a.b.d", false)->pattern, "a.b.*");
  EXPECT_EQ(index.find("a.x", false)->pattern, "a.*");
  EXPECT_EQ(index.find("b", false)->pattern, "*");
}

TEST(Rules, RES_40_mistakes_are_told_with_line_and_reason) {
  EXPECT_EQ(error_of("[guard.x.breaker]\nfailure_ratio = 3\n"),
            "rules.toml:2:17: [guard.\"x\".breaker]: failure_ratio: expected a number from 0 to 1, "
            "got 3");
  EXPECT_NE(error_of("[guard.x.rate]\n\nlimit = -1\n").find("rules.toml:3:9"), std::string::npos);
  EXPECT_NE(error_of("[guard.x.rate]\nlimit = 1.5\n").find("expected a whole number"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.rate]\nperiod = 5\n").find("expected a duration from"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.rate]\nperiod = \"5 parsecs\"\n").find("got \"5 parsecs\""),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.rate]\nlimits = 5\n").find("unknown field 'limits'; known: burst"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.brake]\n").find("unknown policy 'brake'"), std::string::npos);
  EXPECT_NE(error_of("[guards.x.rate]\n").find("unknown table 'guards'"), std::string::npos);
  EXPECT_NE(error_of("[guard.\"a*b\".rate]\n").find("at most one '*', at its end"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.rate]\nmode = \"on\"\n").find("one of \"off\", \"observe\""),
            std::string::npos);
  EXPECT_NE(error_of("guard = 5").find("expected tables"), std::string::npos);
  EXPECT_NE(error_of("[guard.x]\nrate = 5").find("expected a table, got 5"), std::string::npos);
  EXPECT_NE(error_of("[guard.x.bulkhead]\nshares = [1, nan]").find("numbers from 0 to 1"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.rate\nlimit = 1").find("rules.toml:1:"), std::string::npos);
  EXPECT_NE(error_of("[guard.x.rate]\nlimit = 1\nlimit = 2").find("rules.toml:3"),
            std::string::npos);
}

// The TOML library asserts this much instead of refusing it; a server that reads its rules anew must
// not end over it.
TEST(Rules, RES_40_a_table_that_begins_with_no_key_is_told_with_its_line) {
  for (const char* name : {"[.a]", "[#a]", "[[=]]", "[guard.a]\n[ `x]"}) {
    const std::string text = std::string("# rules\n[guard.b]\n") + name + "\n[guard.c]\n[.d]\n";
    const auto rules = parse_rules(text, "rules.toml");
    ASSERT_FALSE(rules) << text;
    EXPECT_THAT(rules.error().to_string(),
                testing::HasSubstr(std::string(name).find('\n') == std::string::npos ? "rules.toml:3"
                                                                                     : "rules.toml:4"));
  }
}

TEST(Rules, RES_40_fields_that_contradict_each_other_are_refused) {
  EXPECT_NE(error_of("[guard.x.breaker]\nfailure_ratio = 0\n").find("nothing trips it"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.breaker]\nisolation = \"2m\"\n").find("above isolation_max"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.adaptive]\n[guard.x.bulkhead]\n").find("keep one"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.adaptive]\nfloor = 50\nceiling = 20").find("above ceiling"),
            std::string::npos);
  EXPECT_NE(error_of("[guard.x.bulkhead]\nshares = [0.6, 0.6]").find("over 1"), std::string::npos);
}

TEST(Rules, RES_40_a_count_window_that_cannot_hold_its_failures_is_refused) {
  EXPECT_NE(error_of("[guard.x.breaker]\nwindow = \"count\"\nwindow_calls = 10\nfailures = 50\n").find("above window_calls"),
            std::string::npos);
}

TEST(Rules, RES_40_rules_made_in_code_are_checked_like_a_files) {
  const auto refused = [](const auto& change, const char* says) {
    Rule rule;
    rule.pattern = "x";
    rule.breaker.emplace();
    rule.rate.emplace();
    rule.hot_keys.emplace();
    rule.bulkhead.emplace();
    EXPECT_TRUE(check_rule(rule)) << check_rule(rule).error().to_string();
    change(rule);
    const Status status = check_rule(rule);
    ASSERT_FALSE(status) << says;
    EXPECT_NE(status.error().detail().find(says), std::string::npos) << status.error().to_string();
  };
  refused([](Rule& r) { r.pattern = "a*b"; }, "pattern 'a*b'");
  refused([](Rule& r) { r.pattern.clear(); }, "pattern ''");
  refused([](Rule& r) { r.breaker->options.failure_ratio = 2; }, "breaker.failure_ratio: expected");
  refused([](Rule& r) { r.breaker->options.slow_ratio = std::nan(""); }, "breaker.slow_ratio: expected");
  refused([](Rule& r) { r.breaker->options.isolation = seconds(-1); }, "breaker.isolation: expected");
  refused([](Rule& r) { r.breaker->options.window = static_cast<BreakerWindow>(9); }, "breaker.window: expected");
  refused([](Rule& r) { r.rate->mode = static_cast<Mode>(9); }, "rate.mode: expected");
  refused([](Rule& r) { r.rate->options.period = Duration(0); }, "rate.period: expected");
  refused([](Rule& r) { r.hot_keys->options.max_keys = 0; }, "hot_keys.max_keys: expected");
  refused([](Rule& r) { r.hot_keys->options.overrides = {{"v", 2'000'000'000}}; }, "hot_keys.overrides: expected");
  refused([](Rule& r) { r.bulkhead->options.shares[0] = -1; }, "bulkhead.shares: expected");
}

}  // namespace
}  // namespace sluice::resilience
