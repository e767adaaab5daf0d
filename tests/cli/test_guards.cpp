// `sluice breakers` and `sluice rules` beside a server whose code service is not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/canned_answers.hpp"
#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kName = "voucher.code.batch_get_code_using_cache.DE";
constexpr const char* kRules = R"([guard."voucher.code.*".breaker]
minimum_calls = 2
isolation = "60s"
isolation_jitter = 0.0
[guard."voucher.code.*".retry]
attempts = 2
base = "1ms"
budget_tokens = 4
)";

class Guards : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  std::unique_ptr<Serving> serving;

  void SetUp() override {
    write("rules.toml", kRules);
    write("vouchers.csv",
          "id,name,region,from,to,value_minor,currency,stock,user_quota,day_quota,budget_minor\n"
          "v,V,DE,2020-01-01T00:00:00Z,2120-01-01T00:00:00Z,1000,EUR,500,1,100,400000\n");
    write("users.csv", "id,region\nann,DE\n");
    for (const char* what : {"vouchers", "users"})
      ASSERT_EQ(run(folder.path(), {"voucher", "import", what, std::string(what) + ".csv"}).status, 0);
    // Nobody listens on port 1.
    serving = std::make_unique<Serving>(folder.path(), Arguments{"--code-service", "127.0.0.1:1"},
                                        Settings{{"SLUICE_GUARDS_RULES", "rules.toml"}});
    for (const char* id : {"r1", "r2"}) {
      const Json batch{{"request_id", id}, {"region", "DE"}, {"items", {{{"user", "ann"}, {"voucher", "v"}}}}};
      const Ran sent = ask({"send", "voucher.ss.distribution.batch_distribute_voucher", batch.dump(), "--key", id});
      ASSERT_THAT(sent.out, HasSubstr("code_service_unavailable")) << sent.err << read_file(folder.file("server.err"));
    }
  }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder.file(name), std::ios::binary) << text; }
  Ran ask(const Arguments& arguments) { return serving->ask(arguments); }
};

TEST_F(Guards, RES_41_a_breaker_that_opened_is_listed_and_shown_with_its_window) {
  const Ran list = ask({"breakers", "list"});
  EXPECT_EQ(list.status, 0) << list.err;
  EXPECT_THAT(list.out, HasSubstr(kName));
  EXPECT_THAT(list.out, HasSubstr("open"));
  EXPECT_THAT(list.out, HasSubstr("2/2 bad"));
  const Ran shown = ask({"breakers", "show", kName});
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("rule      voucher.code.* (rules version 1)"));
  EXPECT_THAT(shown.out, HasSubstr("breaker   open"));
  EXPECT_THAT(shown.out, HasSubstr("tries again in"));
  EXPECT_THAT(shown.out, HasSubstr("window    2 calls in the last 10000 ms; judged from 2 on"));
  EXPECT_THAT(shown.out, HasSubstr("2 failed: 1.00 of the 0.50 that open it"));
  EXPECT_THAT(shown.out, HasSubstr("0 slow, 1000 ms or more: 0.00, which opens nothing"));
  EXPECT_THAT(shown.out, HasSubstr("repeated  1 retries, 0 hedges; 2.0 tokens left: nothing is repeated until successes bring them above 2.0"));
  EXPECT_THAT(shown.out, HasSubstr("closed -> open: failure_ratio 1.00 (threshold 0.50)"));
  const Json json = Json::parse(ask({"breakers", "show", kName, "--json"}).out, nullptr, false);
  ASSERT_TRUE(json.is_object());
  EXPECT_EQ(json["window"]["failure_ratio"], 1.0);
  EXPECT_EQ(json["window"]["trips_at"]["failure_ratio"], 0.5);
  EXPECT_GT(json["opens_for_ms"], 0);
  EXPECT_EQ(json["retries"], 1);
  EXPECT_EQ(json["retry_spent_at"], 2.0);
  const Ran unknown = ask({"breakers", "show", "nothing"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.err, HasSubstr("no call of 'nothing' has been guarded yet"));
}

TEST_F(Guards, RES_41_a_breaker_is_forced_and_a_misspelt_name_is_told) {
  const Ran forced = ask({"breakers", "force", kName, "forced_open", "--reason", "drill"});
  EXPECT_EQ(forced.status, 0) << forced.err;
  EXPECT_THAT(forced.out, HasSubstr("is forced_open now"));
  EXPECT_THAT(forced.out, Not(HasSubstr("has been called yet")));
  EXPECT_THAT(ask({"breakers", "list"}).out, HasSubstr("forced_open"));
  const Ran again = ask({"breakers", "force", kName, "forced_open", "--reason", "drill"});
  EXPECT_EQ(again.status, 1) << again.out;
  EXPECT_THAT(again.err, HasSubstr("illegal_transition"));
  std::string slip = kName;
  slip.erase(slip.find("batch") + 1, 1);
  const Ran misspelt = ask({"breakers", "force", slip, "forced_open", "--reason", "drill"});
  EXPECT_EQ(misspelt.status, 0) << "a wildcard rule fits it, and it may be called yet: " << misspelt.err;
  EXPECT_THAT(misspelt.out, HasSubstr("Nothing of that name has been called yet"));
  EXPECT_THAT(misspelt.out, HasSubstr(std::string("Is ") + kName + " meant?"));
  const Ran pattern = ask({"breakers", "force", "voucher.code.*", "forced_open", "--reason", "drill"});
  EXPECT_EQ(pattern.status, 1) << "calls go on under their own names: " << pattern.out;
  EXPECT_THAT(pattern.err, HasSubstr(std::string("it fits ") + kName));
  EXPECT_THAT(ask({"breakers", "list"}).out, Not(HasSubstr("voucher.code.* ")));
  const Ran of_one = ask({"breakers", "force", kName, "forced_closed", "--app", "shop", "--reason", "drill"});
  EXPECT_THAT(of_one.out, HasSubstr(std::string("sluice breakers force ") + kName + " closed --app shop --reason"));
  const Ran unruled = ask({"breakers", "force", "bank.transfer", "forced_open", "--reason", "drill"});
  EXPECT_EQ(unruled.status, 1);
  EXPECT_THAT(unruled.err, HasSubstr("no rule that fits the name gives it one"));
  EXPECT_NE(ask({"breakers", "force", kName, "ajar", "--reason", "x"}).status, 0);
  EXPECT_NE(ask({"breakers", "force", kName, "closed"}).status, 0) << "without a reason";
  EXPECT_EQ(ask({"breakers", "force", kName, "closed", "--reason", "over"}).status, 0);
  EXPECT_THAT(ask({"breakers", "list"}).out, HasSubstr("0/0 bad"));
}

TEST_F(Guards, RES_40_rules_are_compared_and_replaced_and_an_order_outlives_them) {
  EXPECT_THAT(ask({"rules", "check", "rules.toml"}).out, HasSubstr("1 rule, all good"));
  write("none.toml", "# none\n");
  EXPECT_THAT(ask({"rules", "check", "none.toml"}).out, HasSubstr("no rules: nothing would be guarded"));
  write("empty.toml", "");
  const Ran empty = ask({"rules", "check", "empty.toml"});
  EXPECT_EQ(empty.status, 2) << empty.out;
  EXPECT_THAT(empty.err, HasSubstr("empty.toml is empty"));
  write("more.toml", std::string(kRules) + "[guard.\"voucher.code.*\".rate]\nlimit = 5\n[guard.\"vouchr.user\".rate]\nlimit = 1\n");
  const Ran diff = ask({"rules", "diff", "more.toml"});
  EXPECT_EQ(diff.status, 0) << diff.err;
  EXPECT_THAT(diff.out, HasSubstr("~ guard 'voucher.code.*' rate: added"));
  EXPECT_THAT(diff.out, HasSubstr("? guard 'vouchr.user': nothing it names has been called yet"));
  EXPECT_THAT(diff.out, HasSubstr("Nothing was changed."));
  write("narrow.toml", std::string(kRules) + "[guard.\"" + kName + "\".rate]\nlimit = 5\n");
  EXPECT_THAT(ask({"rules", "diff", "narrow.toml"}).out, HasSubstr(std::string("! '") + kName + "' loses breaker, retry of 'voucher.code.*'"));
  EXPECT_THAT(ask({"rules", "diff", "none.toml"}).out, HasSubstr("closes 1"));
  ASSERT_EQ(ask({"breakers", "force", kName, "forced_open", "--reason", "drill"}).status, 0);
  EXPECT_THAT(ask({"rules", "diff", "none.toml"}).out, HasSubstr("closes 0"));
  const Ran gone = ask({"rules", "reload", "none.toml"});
  EXPECT_EQ(gone.status, 0) << gone.err;
  EXPECT_THAT(gone.out, HasSubstr("These rules are in force until"));
  const Ran back = ask({"rules", "reload"});
  EXPECT_EQ(back.status, 0) << back.err;
  EXPECT_THAT(back.out, HasSubstr("The file's rules are in force."));
  EXPECT_THAT(ask({"breakers", "show", kName}).out, HasSubstr("breaker   forced_open"));
  const Ran bad = ask({"rules", "reload", "users.csv"});
  EXPECT_EQ(bad.status, 2);
  EXPECT_THAT(bad.err, HasSubstr("users.csv:1:"));
}

TEST(GuardsShown, RES_41_a_breaker_that_nobody_called_since_its_time_says_what_it_waits_for) {
  const testing_support::TempFolder folder;
  const Json open{{"name", "codes"}, {"app", "shop"}, {"rule", "codes"}, {"version", 1}, {"state", "open"}, {"opens_for_ms", 0.0},
                  {"retries", 1}, {"retry_budget", 9.0}, {"retry_spent_at", 5.0}};
  CannedAnswers quiet({open.dump()});
  const Ran shown = run(folder.path(), {"breakers", "show", "codes"}, {{"SLUICE_SERVER", quiet.server()}, {"SLUICE_TOKEN", "t"}});
  EXPECT_THAT(shown.out, HasSubstr("the next call tries"));
  EXPECT_THAT(shown.out, Not(HasSubstr("0 ms")));
  EXPECT_THAT(shown.out, HasSubstr("9.0 tokens left, at 5.0 nothing more is repeated"));
}

// A file that the server refuses is refused before, and nothing is read without end.
TEST(RulesCheck, RES_40_a_file_is_held_to_the_size_that_the_server_takes) {
  const testing_support::TempFolder folder;
  std::ofstream(folder.file("long.toml")) << "# " << std::string(5 << 20, 'x') << "\n[guard.a.rate]\n";
  for (const char* command : {"check", "diff", "reload"}) {
    const Ran longer = run(folder.path(), {"rules", command, "long.toml"}, {{"SLUICE_TOKEN", "t"}});
    EXPECT_EQ(longer.status, 2) << command << longer.out;
    EXPECT_THAT(longer.err, HasSubstr("expected at most 4194304 bytes, got 5242")) << command;
    const Ran endless = run(folder.path(), {"rules", command, "/dev/zero"}, {{"SLUICE_TOKEN", "t"}});
    EXPECT_EQ(endless.status, 2) << command << endless.out;
    EXPECT_THAT(endless.err, HasSubstr("expected a file of rules, it is none")) << command;
    EXPECT_EQ(run(folder.path(), {"rules", command, "absent.toml"}, {{"SLUICE_TOKEN", "t"}}).status, 2) << command;
  }
}

TEST(RulesCheck, RES_40_rules_come_through_a_pipe_and_not_without_end) {
  const testing_support::TempFolder folder;
  const std::string pipe = folder.file("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const auto checked = [&](const std::string& text) {
    std::thread writer([&] { std::ofstream(pipe, std::ios::binary) << text; });
    Ran ran = run(folder.path(), {"rules", "check", "pipe"});
    writer.join();
    return ran;
  };
  EXPECT_THAT(checked("[guard.a.rate]\nlimit = 1\n").out, HasSubstr("1 rule, all good"));
  const Ran longer = checked("#" + std::string(4 << 20, 'x'));
  EXPECT_EQ(longer.status, 2) << longer.out;
  EXPECT_THAT(longer.err, HasSubstr("expected at most 4194304 bytes, got more"));
}

}  // namespace
}  // namespace sluice::cli_test
