// The command line as people meet it: what it says when all is well, and when it is not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;
using testing::Not;

class Cli : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  Ran sluice(const Arguments& arguments, const Settings& settings = {}) { return run(folder.path(), arguments, settings); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder.file(name), std::ios::binary) << text; }
  /// A message for people: it says something, and it is no stack trace or terminate().
  static void expect_message(const Ran& ran, int status) {
    EXPECT_EQ(ran.status, status) << ran.err;
    EXPECT_FALSE(ran.err.empty());
    for (const char* trace : {"terminate called", "Aborted", "#0 ", "std::", "assert"})
      EXPECT_THAT(ran.err, Not(HasSubstr(trace)));
  }
};

TEST_F(Cli, CONSOLE_1_every_subcommand_helps_and_completion_knows_it) {
  const Ran completion = sluice({"completion"});
  ASSERT_EQ(completion.status, 0);
  std::istringstream lines(completion.out);
  int commands = 0;
  for (std::string line; std::getline(lines, line); ++commands) {
    Arguments arguments;
    std::istringstream words(line);
    for (std::string word; words >> word;) arguments.push_back(word);
    arguments.push_back("--help");
    const Ran help = sluice(arguments);
    EXPECT_EQ(help.status, 0) << line;
    EXPECT_THAT(help.out, HasSubstr("--help")) << line;
  }
  EXPECT_GT(commands, 20);
}

// The script is run by the shell it is for, when that is there.
TEST_F(Cli, CONSOLE_1_completion_completes) {
  const Ran bash = sluice({"completion", "bash"});
  ASSERT_EQ(bash.status, 0);
  write("complete.bash", bash.out + R"(
at() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _sluice; echo "${COMPREPLY[@]}"; }
at sluice tx l
at sluice tx list --lim
at sluice --server x comp
at sluice send good.to
)");
  write("good.toml", "");
  const std::string run = "cd '" + folder.path() + "' && bash complete.bash > said";
  ASSERT_EQ(std::system(run.c_str()), 0);
  EXPECT_EQ(read_file(folder.file("said")), "list\n--limit\ncompletion\ngood.toml\n");
  EXPECT_THAT(sluice({"completion", "zsh"}).out, HasSubstr("bashcompinit"));
  EXPECT_THAT(sluice({"completion", "fish"}).out, HasSubstr("-l limit"));
  expect_message(sluice({"completion", "tcsh"}), 2);
}

TEST_F(Cli, CONSOLE_1_what_is_not_there_is_named_with_what_is_near) {
  const Ran unknown = sluice({"tx", "shwo"});
  expect_message(unknown, 2);
  EXPECT_THAT(unknown.err, HasSubstr("there is no 'shwo'. Did you mean 'show'?"));
  EXPECT_THAT(unknown.err, HasSubstr("sluice tx --help"));
  const Ran none = sluice({});
  expect_message(none, 2);
  EXPECT_THAT(none.err, HasSubstr("serve"));
  const Ran option = sluice({"serve", "--prot", "1"});
  expect_message(option, 2);
  EXPECT_THAT(option.err, HasSubstr("--prot"));
  const Ran near = sluice({"tx", "list", "--limt", "3"});
  expect_message(near, 2);
  EXPECT_THAT(near.err, HasSubstr("Did you mean '--limit' instead of '--limt'?"));
  const Ran missing = sluice({"send"});
  expect_message(missing, 2);
  EXPECT_THAT(missing.err, HasSubstr("name"));
}

TEST_F(Cli, CONSOLE_9_a_bad_configuration_names_file_line_and_key) {
  write("sluice.toml", "[http]\nport = \"many\"\n");
  for (const char* verb : {"check", "show"}) {
    const Ran checked = sluice({"config", verb, "--config", "sluice.toml"});
    expect_message(checked, 2);
    EXPECT_THAT(checked.err, HasSubstr("sluice.toml:2"));
    EXPECT_THAT(checked.err, HasSubstr("http.port"));
  }
  const Ran served = sluice({"serve", "--config", "sluice.toml"});
  expect_message(served, 2);
  EXPECT_THAT(served.err, HasSubstr("http.port"));
  const Ran absent = sluice({"serve", "--config", "none.toml"});
  EXPECT_EQ(absent.status, 2) << "as for one that is not valid";
  EXPECT_THAT(absent.err, HasSubstr("none.toml"));
  EXPECT_EQ(sluice({"token", "list", "--config", "none.toml"}).status, 2);
  write("good.toml", "[http]\nport = 9\n");
  EXPECT_EQ(sluice({"config", "check", "good.toml"}).status, 0);
  EXPECT_EQ(sluice({"config", "check", "sluice.toml"}, {{"SLUICE_CONFIG", "good.toml"}}).status, 2);
  const Ran json = sluice({"config", "show", "good.toml", "--json"});
  EXPECT_EQ(nlohmann::json::parse(json.out)["http"]["port"], 9) << json.out;
}

TEST_F(Cli, CONSOLE_9_a_store_that_cannot_be_opened_says_what_to_do) {
  const Ran missing = sluice({"serve", "--listen", "0", "--store", "no/such/folder.db"});
  expect_message(missing, 1);
  EXPECT_THAT(missing.err, HasSubstr("folder exists"));
  write("junk.db", std::string(8192, 'j'));
  const Ran junk = sluice({"serve", "--listen", "0", "--store", "junk.db"});
  expect_message(junk, 1);
  EXPECT_THAT(junk.err, HasSubstr("not a Sluice database"));
  EXPECT_EQ(read_file(folder.file("junk.db")), std::string(8192, 'j')) << "it is left as it was";
  if (geteuid() != 0) {
    mkdir(folder.file("locked").c_str(), 0500);
    const Ran locked = sluice({"serve", "--listen", "0", "--store", "locked/s.db"});
    expect_message(locked, 1);
    EXPECT_THAT(locked.err, HasSubstr("may write"));
  }
}

TEST_F(Cli, the_clients_own_variables_do_not_disturb_the_server) {
  const Ran checked = sluice({"config", "check"}, {{"SLUICE_SERVER", "http://127.0.0.1:1"}, {"SLUICE_TOKEN", "t"}});
  EXPECT_EQ(checked.status, 0) << checked.err;
  const Ran made = sluice({"token", "create", "x", "--store", "a.db"}, {{"SLUICE_SERVER", "http://127.0.0.1:1"}});
  EXPECT_EQ(made.status, 0) << made.err;
}

TEST_F(Cli, CONSOLE_9_a_second_owner_and_a_taken_port_are_refused) {
  Serving serving(folder.path());
  ASSERT_FALSE(serving.address().empty()) << read_file(folder.file("server.err"));
  const Ran second = sluice({"serve", "--listen", "0"});
  expect_message(second, 1);
  EXPECT_THAT(second.err, HasSubstr("another process has the database"));
  const std::string port = serving.address().substr(serving.address().rfind(':') + 1);
  const Ran taken = sluice({"serve", "--listen", port, "--store", "other.db"});
  expect_message(taken, 1);
  EXPECT_THAT(taken.err, HasSubstr(port));
  EXPECT_THAT(taken.out, Not(HasSubstr("slc_"))) << "a start that fails shows no token";
  Serving later(folder.path(), {"--store", "other.db"});
  EXPECT_FALSE(later.token().empty()) << "the first start that listens does";
  EXPECT_EQ(later.stop(), 0);
  EXPECT_EQ(serving.stop(), 0);
}

TEST_F(Cli, FLOW_28_the_same_key_is_answered_again_and_nothing_runs_twice) {
  Serving serving(folder.path());
  const Arguments add{"send", "kv.add", R"({"collection":"c","key":"k","delta":5})", "--key", "once"};
  const Ran first = serving.ask(add), second = serving.ask(add);
  ASSERT_EQ(first.status, 0) << first.err;
  EXPECT_EQ(second.status, 0);
  EXPECT_EQ(first.out, second.out);
  EXPECT_THAT(first.err, HasSubstr("done"));
  EXPECT_THAT(second.err, HasSubstr("replayed"));
  const Ran read = serving.ask({"send", "kv.get", R"({"collection":"c","key":"k"})", "--json"});
  EXPECT_EQ(nlohmann::json::parse(read.out)["number"], 5);
  write("body.json", R"({"collection":"c","key":"k","delta":6})");
  const Ran other = serving.ask({"send", "kv.add", "@body.json", "--key", "once"});
  expect_message(other, 1);
  EXPECT_THAT(other.err, HasSubstr("fingerprint_mismatch"));
  const Ran nobody = run(folder.path(), add, {{"SLUICE_SERVER", serving.address()}});
  expect_message(nobody, 1);
  EXPECT_THAT(nobody.err, HasSubstr("SLUICE_TOKEN"));
  const Ran wrong = run(folder.path(), add, {{"SLUICE_SERVER", serving.address()}, {"SLUICE_TOKEN", "slc_wrong"}});
  expect_message(wrong, 1);
  EXPECT_THAT(wrong.err, HasSubstr("not accepted"));
  EXPECT_EQ(serving.stop(), 0);
  const Ran gone = run(folder.path(), add, {{"SLUICE_SERVER", serving.address()}});
  expect_message(gone, 1);
  EXPECT_THAT(gone.err, HasSubstr("sluice serve"));
}

TEST_F(Cli, FLOW_27_transactions_are_listed_shown_and_drawn) {
  ASSERT_EQ(sluice({"voucher", "generate", "catalogue", "--vouchers", "30", "--codes", "5", "--users", "50"}).status, 0);
  for (const char* what : {"vouchers", "codes", "users"}) {
    const Ran imported = sluice({"voucher", "import", what, std::string("catalogue/") + what + ".csv", "--json"});
    ASSERT_EQ(imported.status, 0) << imported.err;
    EXPECT_GT(nlohmann::json::parse(imported.out)["imported"], 0);
  }
  const Ran again = sluice({"voucher", "import", "users", "catalogue/users.csv"});
  EXPECT_EQ(again.status, 0);
  EXPECT_THAT(again.out, HasSubstr("0 new, 50 there already"));
  const std::string csv = read_file(folder.file("catalogue/users.csv"));
  write("broken.csv", csv + "\"unclosed\n");
  const Ran broken = sluice({"voucher", "import", "users", "broken.csv"});
  expect_message(broken, 1);
  EXPECT_THAT(broken.err, HasSubstr("broken.csv"));
  EXPECT_THAT(broken.err, HasSubstr("line"));

  Serving serving(folder.path());
  const std::string users = csv.substr(csv.find('\n') + 1), user = users.substr(0, users.find(','));
  const std::string catalogue = read_file(folder.file("catalogue/vouchers.csv"));
  const std::string rows = catalogue.substr(catalogue.find('\n') + 1), voucher = rows.substr(0, rows.find(','));
  const Ran sent = serving.ask({"send", "voucher.ss.distribution.batch_distribute_voucher",
                                R"({"request_id":"r1","region":"DE","items":[{"user":")" + user + R"(","voucher":")" +
                                    voucher + "\"}]}",
                                "--key", "batch-1"});
  ASSERT_EQ(sent.status, 0) << sent.err;
  const Ran listed = serving.ask({"tx", "list"});
  EXPECT_EQ(listed.status, 0) << listed.err;
  EXPECT_THAT(listed.out, HasSubstr("OUTCOME"));
  const auto json = nlohmann::json::parse(serving.ask({"tx", "list", "--json"}).out);
  ASSERT_FALSE(json["transactions"].empty());
  const std::string id = json["transactions"][0]["id"];
  const Ran shown = serving.ask({"tx", "show", id});
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("It is over"));
  EXPECT_EQ(nlohmann::json::parse(serving.ask({"tx", "show", id, "--json"}).out)["id"], id);
  for (const char* state : {"open", "in_doubt", "paused"})
    EXPECT_THAT(serving.ask({"tx", "list", "--state", state}).out, HasSubstr("No ")) << state;
  const Ran settled = serving.ask({"tx", "settle", id, "aborted", "--reason", "a test"});
  expect_message(settled, 1);
  EXPECT_THAT(settled.err, HasSubstr("only one in doubt can be settled"));
  const Ran unknown = serving.ask({"tx", "show", "0000000000001"});
  expect_message(unknown, 1);
  EXPECT_THAT(unknown.err, HasSubstr("no transaction"));
  EXPECT_THAT(serving.ask({"tx", "graph"}).out, HasSubstr("flowchart"));
  EXPECT_THAT(serving.ask({"tx", "graph", "--dot"}).out, HasSubstr("digraph"));
  const Ran no_flow = serving.ask({"tx", "graph", "nothing"});
  expect_message(no_flow, 1);
  const Ran no_key = serving.ask({"idempotency", "show", "unheard", "--command", "kv.add", "--principal", "p"});
  expect_message(no_key, 1);
  const Ran wake = serving.ask({"send", "sluice.tx.wake", R"({"token":"none"})"});
  expect_message(wake, 1);
  EXPECT_THAT(wake.err, HasSubstr("nothing waits"));
}

TEST_F(Cli, tokens_are_made_listed_and_revoked_while_the_server_is_stopped) {
  const Ran made = sluice({"token", "create", "till", "--grant", "default:kv.*", "--json"});
  ASSERT_EQ(made.status, 0) << made.err;
  const auto json = nlohmann::json::parse(made.out);
  const std::string token = json["token"], id = json["id"];
  const Settings as_till{{"SLUICE_TOKEN", token}};
  const auto ask = [&](const Serving& serving, const Arguments& arguments) {
    Settings settings = as_till;
    settings.emplace_back("SLUICE_SERVER", serving.address());
    return run(folder.path(), arguments, settings);
  };
  {
    Serving serving(folder.path());
    EXPECT_EQ(ask(serving, {"send", "kv.put", R"({"collection":"c","key":"k","value":1})", "--key", "a"}).status, 0);
    const Ran denied = ask(serving, {"send", "sluice.token.list"});
    expect_message(denied, 1);
    EXPECT_THAT(denied.err, HasSubstr("forbidden"));
  }
  EXPECT_THAT(sluice({"token", "list"}).out, HasSubstr("till"));
  EXPECT_EQ(sluice({"token", "revoke", id}).status, 0);
  Serving serving(folder.path());
  const Ran revoked = ask(serving, {"send", "kv.get", R"({"collection":"c","key":"k"})"});
  expect_message(revoked, 1);
  EXPECT_THAT(revoked.err, HasSubstr("not accepted"));
}

}  // namespace
}  // namespace sluice::cli_test
