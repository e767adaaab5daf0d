// What the environment says against what the command line says: a flag wins, for every subcommand
// there is (the completion lists them), and every variable that a help page names is known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;
using testing::Not;

// What a subcommand needs besides its options.
const std::map<std::string, Arguments> kOperands{
    {"backup", {"--to", "copy.db"}},
    {"send", {"sluice.echo"}},
    {"tx show", {"0000000000001"}},
    {"tx settle", {"0000000000001", "committed", "--reason", "a test"}},
    {"idempotency show", {"k", "--command", "kv.add", "--principal", "p"}},
    {"breakers show", {"outside"}},
    {"breakers force", {"outside", "closed", "--reason", "a test"}},
    {"breakers watch", {"--count", "1"}},
    {"token create", {"till"}},
    {"token revoke", {"0123"}},
    {"voucher import", {"users", "users.csv"}},
};

class Environment : public testing::Test {
 protected:
  testing_support::TempFolder folder;

  /// Those with this option, with what else they need.
  std::map<std::string, Arguments> subcommands_with(const std::string& option) {
    static const auto helps = all_helps(folder.path());
    std::map<std::string, Arguments> found;
    for (const auto& [line, help] : helps) {
      if (help.find("\n  " + option + " ") == std::string::npos) continue;
      Arguments arguments = words_of(line);
      if (const auto more = kOperands.find(line); more != kOperands.end())
        arguments.insert(arguments.end(), more->second.begin(), more->second.end());
      found.emplace(line, arguments);
    }
    return found;
  }
  static Arguments words_of(const std::string& line) {
    Arguments words;
    std::istringstream text(line);
    for (std::string word; text >> word;) words.push_back(word);
    return words;
  }
  static std::map<std::string, std::string> all_helps(const std::string& folder) {
    std::map<std::string, std::string> helps;
    std::istringstream lines(run(folder, {"completion"}).out);
    for (std::string line; std::getline(lines, line);) helps[line] = run(folder, with(words_of(line), {"--help"})).out;
    return helps;
  }
  static Arguments with(Arguments arguments, const Arguments& more) {
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
};

TEST_F(Environment, CONSOLE_9_the_server_named_by_a_flag_wins_everywhere) {
  const auto all = subcommands_with("--server");
  EXPECT_GE(all.size(), 12u);
  const Settings elsewhere{{"SLUICE_SERVER", "http://127.0.0.1:1"}};
  for (const auto& [name, arguments] : all) {
    const Ran flagged = run(folder.path(), with(arguments, {"--server", "http://127.0.0.1:2"}), elsewhere);
    EXPECT_EQ(flagged.status, 1) << name << ": " << flagged.err;
    EXPECT_THAT(flagged.err, HasSubstr("http://127.0.0.1:2:")) << name;
    const Ran plain = run(folder.path(), arguments, elsewhere);
    EXPECT_THAT(plain.err, HasSubstr("http://127.0.0.1:1:")) << name;
  }
}

TEST_F(Environment, CONSOLE_9_the_token_given_by_a_flag_wins_everywhere) {
  Serving serving(folder.path());
  const Settings other{{"SLUICE_SERVER", serving.address()}, {"SLUICE_TOKEN", "slc_other"}};
  for (const auto& [name, arguments] : subcommands_with("--token")) {
    const Ran flagged = run(folder.path(), with(arguments, {"--token", serving.token()}), other);
    EXPECT_THAT(flagged.err, Not(HasSubstr("unauthenticated"))) << name;
    const Ran plain = run(folder.path(), arguments, other);
    EXPECT_THAT(plain.err, HasSubstr("unauthenticated")) << name;
  }
}

TEST_F(Environment, CONSOLE_9_the_file_named_by_a_flag_wins_everywhere) {
  std::ofstream(folder.file("good.toml")) << "[log]\nlevel = \"warn\"\n";
  const auto all = subcommands_with("--config");
  EXPECT_GE(all.size(), 7u);
  for (const auto& [name, arguments] : all) {
    const Ran flagged = run(folder.path(), with(arguments, {"--config", "none.toml"}), {{"SLUICE_CONFIG", "good.toml"}});
    EXPECT_EQ(flagged.status, 2) << name;
    EXPECT_THAT(flagged.err, HasSubstr("none.toml")) << name;
    const Ran plain = run(folder.path(), arguments, {{"SLUICE_CONFIG", "none.toml"}});
    EXPECT_EQ(plain.status, 2) << name;
    EXPECT_THAT(plain.err, HasSubstr("none.toml")) << name;
  }
}

// A value that stands for every kind; what the variable means is not this test's business.
TEST_F(Environment, CONSOLE_9_every_variable_that_help_names_is_known) {
  const std::string help = run(folder.path(), {"serve", "--help"}).out;
  const std::regex variable("SLUICE_[A-Z_]*[A-Z]");
  std::set<std::string> named;
  for (std::sregex_iterator at(help.begin(), help.end(), variable), end; at != end; ++at) named.insert(at->str());
  EXPECT_GE(named.size(), 8u) << help;
  std::ofstream(folder.file("one.toml")) << "";
  ASSERT_EQ(run(folder.path(), {"migrate"}).status, 0);
  for (const auto& name : named)
    for (const Arguments& verb : {Arguments{"config", "check", "one.toml"}, Arguments{"token", "list", "--config", "one.toml"}}) {
      const Ran checked = run(folder.path(), verb, {{name, name == "SLUICE_APPS" ? "codes" : "one.toml"}});
      EXPECT_EQ(checked.status, 0) << name << ": " << checked.err;
      EXPECT_THAT(checked.err, Not(HasSubstr("warning"))) << name;
    }
  const Ran unknown = run(folder.path(), {"config", "check"}, {{"SLUICE_HTTP_PROT", "1"}});
  EXPECT_EQ(unknown.status, 0) << "orchestrators set variables of their own";
  EXPECT_THAT(unknown.err, HasSubstr("warning: environment: unknown variable 'SLUICE_HTTP_PROT'"));
  EXPECT_THAT(unknown.err, HasSubstr("did you mean 'SLUICE_HTTP_PORT'?"));
}

TEST_F(Environment, CONSOLE_9_apps_and_their_services_may_be_named_by_the_environment) {
  Settings settings{{"SLUICE_APPS", "codes,users"}, {"SLUICE_OWNER", "node-7"}, {"SLUICE_CODE_TOKEN", "t"}};
  Serving serving(folder.path(), {}, settings);
  ASSERT_FALSE(serving.address().empty()) << read_file(folder.file("server.err"));
  const Ran listed = serving.ask({"tx", "graph"});
  EXPECT_EQ(listed.status, 0) << listed.err;
  EXPECT_THAT(listed.out, Not(HasSubstr("voucher"))) << "only what the environment names is installed";
  const Ran bad = run(folder.path(), {"serve", "--store", "b.db"}, {{"SLUICE_APPS", "coupons"}});
  EXPECT_EQ(bad.status, 2);
  EXPECT_THAT(bad.err, HasSubstr("SLUICE_APPS"));
  EXPECT_THAT(bad.err, HasSubstr("coupons"));
}

}  // namespace
}  // namespace sluice::cli_test
