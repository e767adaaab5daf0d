// The rules of outbound calls on a running server: read, refused, compared, replaced, forced.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "server/guard_rules.hpp"
#include "server/running.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "support/temp_folder.hpp"

namespace sluice::server {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

constexpr const char* kGood = "[guard.\"code.*\".breaker]\nminimum_calls = 2\nfailure_ratio = 0.5\n";

class GuardRulesOnServer : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  std::string path = folder.file("rules.toml");
  void write(const std::string& text) { std::ofstream(path, std::ios::trunc) << text; }
  Config config(milliseconds watch = std::chrono::hours(1)) const {
    Config c;
    c.guard_rules = path;
    c.guard_watch = watch;
    return c;
  }
  static Json ask(RunningServer& running, const char* command, const Json& payload, int expected = 200) {
    const auto response = running.ask(test::post(command, payload.dump(), running.bearer()));
    EXPECT_EQ(response.status, expected) << command << ": " << response.body;
    return Json::parse(response.body, nullptr, false);
  }
};

class Lines final : public LogSink {
 public:
  void write(LogLevel, std::string_view line) override { text.append(line).append("\n"); }
  std::string text;
};

// Rules beside a file in virtual time, looked at each second.
struct Looked {
  explicit Looked(const std::string& path) : rules(guards, path, *logger) {
    EXPECT_TRUE(rules.load());
    rules.watch(lane, seconds(1));
  }
  void look() {
    clock.advance(seconds(1));
    while (lane.run_ready() != 0) {
    }
  }
  const std::string& lines() const { return sink->text; }
  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  resilience::Guards guards{clock, random};
  std::shared_ptr<Lines> sink = std::make_shared<Lines>();
  std::unique_ptr<Logger> logger = make_logger(clock, sink);
  GuardRules rules;
};

TEST_F(GuardRulesOnServer, RES_40_a_bad_file_keeps_the_server_from_starting_with_file_line_and_reason) {
  write("[guard.\"code.*\".breaker]\nfailure_ratio = 7\n");
  ServerParts parts;
  parts.logger = &null_logger();
  auto c = config();
  c.store_kind = "memory";
  const auto opened = Server::open(std::move(c), std::move(parts));
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().to_string(), HasSubstr("rules.toml"));
  EXPECT_THAT(opened.error().to_string(), HasSubstr("failure_ratio"));
}

TEST_F(GuardRulesOnServer, RES_40_a_dry_run_changes_nothing_and_a_bad_reload_keeps_the_old_rules) {
  write(kGood);
  RunningServer running(config());
  auto& guards = running.server->context().guards;
  auto& protector = guards.find("code.get");
  const std::string wider = std::string(kGood) + "[guard.\"code.*\".rate]\nlimit = 5\n";
  const Json plan = ask(running, "sluice.rules.diff", {{"rules", wider}});
  EXPECT_EQ(plan["rules_changed"], 1);
  EXPECT_EQ(protector.mode(resilience::Policy::rate), resilience::Mode::off) << "a dry run must not act";
  const Json refused = ask(running, "sluice.rules.reload", {{"rules", "[guard.x.nonsense]\n"}}, 400);
  EXPECT_THAT(refused.dump(), HasSubstr("nonsense"));
  EXPECT_NE(protector.breaker(), nullptr) << "the old rules stay";
  ask(running, "sluice.rules.reload", {{"rules", wider}});
  EXPECT_EQ(protector.mode(resilience::Policy::rate), resilience::Mode::enforce);
  write("[guard.\"code.*\".timeout]\nafter_ms = 50\n");
  (void)ask(running, "sluice.rules.reload", Json::object(), 400);  // the file is bad now: no such field
  EXPECT_EQ(protector.mode(resilience::Policy::rate), resilience::Mode::enforce);
  write(kGood);
  ask(running, "sluice.rules.reload", Json::object());
  EXPECT_EQ(protector.mode(resilience::Policy::rate), resilience::Mode::off) << "the file's rules are back";
}

TEST_F(GuardRulesOnServer, RES_40_no_rules_at_all_are_rules_too) {
  write(kGood);
  RunningServer running(config());
  auto& protector = running.server->context().guards.find("code.get");
  EXPECT_EQ(ask(running, "sluice.rules.diff", {{"rules", ""}})["rules_removed"], 1) << "not the file's rules";
  EXPECT_EQ(ask(running, "sluice.rules.reload", {{"rules", ""}})["rules_removed"], 1);
  EXPECT_EQ(protector.breaker(), nullptr);
}

TEST_F(GuardRulesOnServer, RES_6_what_becomes_of_shadow_traffic_without_a_rule_is_configured) {
  write(kGood);
  for (const char* word : {"inherit", "pass", "deny"}) {
    auto c = config();
    c.guard_missing_shadow = word;
    RunningServer running(std::move(c));
    auto& guards = running.server->context().guards;
    auto& shadow = guards.find("code.get", true);
    EXPECT_EQ(shadow.breaker() != nullptr, word == std::string("inherit")) << word;
    const auto entered = shadow.try_enter({.now = Instant{}});
    EXPECT_EQ(entered.has_value(), word != std::string("deny")) << word;
    EXPECT_TRUE(guards.find("code.get").try_enter({.now = Instant{}})) << "live traffic has its rule";
  }
}

TEST_F(GuardRulesOnServer, RES_2_how_many_protectors_there_are_and_what_comes_after_is_configured) {
  write(kGood);
  auto c = config();
  c.guard_max_protectors = 1;
  c.guard_overflow = "deny";
  RunningServer running(std::move(c));
  auto& guards = running.server->context().guards;
  EXPECT_TRUE(guards.find("code.get").try_enter({.now = Instant{}}));
  const auto refused = guards.find("code.other").try_enter({.now = Instant{}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().policy, resilience::Policy::overflow);
}

TEST_F(GuardRulesOnServer, RES_40_a_changed_file_is_read_again_by_itself) {
  write(kGood);
  RunningServer running(config(milliseconds(5)));
  auto& protector = running.server->context().guards.find("code.get");
  ASSERT_EQ(protector.mode(resilience::Policy::rate), resilience::Mode::off);
  write(std::string(kGood) + "[guard.\"code.*\".rate]\nlimit = 5\n");
  EXPECT_TRUE(wait_until([&] { return protector.mode(resilience::Policy::rate) == resilience::Mode::enforce; }));
}

TEST_F(GuardRulesOnServer, RES_40_an_empty_file_is_one_that_is_being_written) {
  write(kGood);
  Looked looked(path);
  auto& protector = looked.guards.find("code.get");
  write("");
  looked.look();
  EXPECT_NE(protector.breaker(), nullptr) << "the old rules stay";
  write(std::string(kGood) + "[guard.\"code.*\".rate]\nlimit = 5\n");
  looked.look();
  EXPECT_EQ(protector.mode(resilience::Policy::rate), resilience::Mode::enforce);
  write("# none\n");
  looked.look();
  EXPECT_EQ(protector.breaker(), nullptr) << "a file that says so has no rules";
}

TEST_F(GuardRulesOnServer, RES_40_a_file_of_the_same_size_and_time_is_read_again) {
  write("[guard.\"code.*\".rate]\nlimit = 5\n");
  Looked looked(path);
  const auto written = std::filesystem::last_write_time(path);
  const auto limit = [&] { return *looked.guards.show("code.get")->tokens; };
  looked.guards.find("code.get");
  ASSERT_EQ(limit(), 5u);
  std::filesystem::rename(path, path + ".old");
  write("[guard.\"code.*\".rate]\nlimit = 3\n");
  std::filesystem::last_write_time(path, written);
  looked.look();
  EXPECT_EQ(limit(), 3u) << "another file";
}

TEST_F(GuardRulesOnServer, RES_40_that_a_bad_file_was_put_right_is_told_also_when_nothing_changes) {
  write(kGood);
  Looked looked(path);
  write("[guard.x.nonsense]\n");
  looked.look();
  EXPECT_THAT(looked.lines(), HasSubstr("is not good"));
  write(kGood);
  looked.look();
  EXPECT_THAT(looked.lines(), HasSubstr("is good again"));
  std::filesystem::remove(path);
  looked.look();
  EXPECT_THAT(looked.lines(), HasSubstr("there is no such file"));
}

// By command and by SIGHUP as well, which is Server::reload_rules().
TEST_F(GuardRulesOnServer, RES_40_an_empty_file_keeps_the_old_rules_whoever_says_to_read_it) {
  write(kGood);
  RunningServer running(config());
  auto& protector = running.server->context().guards.find("code.get");
  write("");
  const Json refused = ask(running, "sluice.rules.reload", Json::object(), 400);
  EXPECT_EQ(refused["code"], "rules_file_empty");
  EXPECT_NE(protector.breaker(), nullptr);
  const auto hup = running.server->reload_rules();
  ASSERT_FALSE(hup);
  EXPECT_EQ(hup.error().code(), "rules_file_empty");
  EXPECT_NE(protector.breaker(), nullptr);
  write("# none\n");
  EXPECT_TRUE(running.server->reload_rules());
  EXPECT_EQ(protector.breaker(), nullptr) << "a comment says that there are none";
}

TEST_F(GuardRulesOnServer, RES_41_a_breaker_is_forced_before_its_first_call) {
  write(kGood);
  RunningServer running(config());
  const Json forced = ask(running, "sluice.breakers.force", {{"name", "code.get"}, {"state", "forced_open"}, {"reason", "not today"}});
  EXPECT_EQ(forced["called"], false) << "what a misspelt name looks like";
  auto& protector = running.server->context().guards.find("code.get");
  EXPECT_EQ(protector.breaker()->state(), resilience::BreakerState::forced_open);
}

TEST_F(GuardRulesOnServer, RES_41_an_operator_names_the_app_whose_breaker_is_meant) {
  write(kGood);
  RunningServer running(config());
  auto& guards = running.server->context().guards;
  auto& shop = guards.find("code.get", Namespace("shop"));
  auto& bank = guards.find("code.get", Namespace("bank"));
  EXPECT_EQ(ask(running, "sluice.breakers.show", {{"name", "code.get"}}, 400)["code"], "which_app");
  EXPECT_EQ(ask(running, "sluice.breakers.show", {{"name", "code.get"}, {"app", "bank"}})["app"], "bank");
  ask(running, "sluice.breakers.force", {{"name", "code.get"}, {"app", "no app"}, {"state", "disabled"}, {"reason", "x"}}, 400);
  const Json forced = ask(running, "sluice.breakers.force", {{"name", "code.get"}, {"app", "shop"}, {"state", "forced_open"}, {"reason", "x"}});
  EXPECT_EQ(forced["called"], true);
  const Json slip = ask(running, "sluice.breakers.force", {{"name", "code.get"}, {"app", "shopp"}, {"state", "forced_open"}, {"reason", "x"}});
  EXPECT_EQ(slip["called"], false);
  EXPECT_EQ(slip["callers"], Json::array({"bank", "shop"}));
  EXPECT_EQ(shop.breaker()->state(), resilience::BreakerState::forced_open);
  EXPECT_EQ(bank.breaker()->state(), resilience::BreakerState::closed);
  EXPECT_EQ(ask(running, "sluice.breakers.force", {{"name", "code.get"}, {"state", "forced_open"}, {"reason", "x"}})["app"], "*");
  EXPECT_EQ(bank.breaker()->state(), resilience::BreakerState::forced_open);
}

TEST_F(GuardRulesOnServer, RES_41_an_operator_sees_and_forces_a_breaker_and_it_is_audited) {
  write(kGood);
  RunningServer running(config());
  auto& protector = running.server->context().guards.find("code.get");
  const Json force{{"name", "code.get"}, {"state", "forced_open"}, {"reason", "maintenance"}};
  ask(running, "sluice.breakers.force", {{"name", "other.get"}, {"state", "forced_open"}, {"reason", "x"}}, 404);
  ask(running, "sluice.breakers.force", {{"name", "code.get"}, {"state", "ajar"}, {"reason", "x"}}, 400);
  ask(running, "sluice.breakers.force", force);
  EXPECT_EQ(protector.breaker()->state(), resilience::BreakerState::forced_open);
  const Json shown = ask(running, "sluice.breakers.show", {{"name", "code.get"}});
  EXPECT_EQ(shown["state"], "forced_open");
  EXPECT_EQ(shown["transitions"].back()["reason"], "operator_order");
  EXPECT_THAT(ask(running, "sluice.breakers.list", Json::object()).dump(), HasSubstr("forced_open"));
  EXPECT_TRUE(wait_until([&] {
    const auto rows = store::ask_now(running.server->context().store, store::ListAudit{});
    return rows && std::ranges::any_of(*rows, [](const store::AuditRow& row) {
             return row.command == "sluice.guards" && row.detail.find("maintenance") != std::string::npos;
           });
  })) << "who forced it, and why, is not in the audit trail";
  ask(running, "sluice.breakers.force", force, 409);
  EXPECT_TRUE(wait_until([&] {
    const auto rows = store::ask_now(running.server->context().store, store::ListAudit{});
    return rows && std::ranges::any_of(*rows, [](const store::AuditRow& row) {
             return row.command == "sluice.guards" && row.detail.find("(refused)") != std::string::npos &&
                    row.outcome == store::AuditOutcome::error;
           });
  })) << "a refused order is audited as one";
  EXPECT_TRUE(running.metric("sluice_guard_breaker_state{app=\"default\",command=\"code.get\""));
}

}  // namespace
}  // namespace sluice::server
