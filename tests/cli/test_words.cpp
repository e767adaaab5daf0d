// What the command line says to particular mistakes, and that what its help shows as an example works.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class Words : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  Ran sluice(const Arguments& arguments, const Settings& settings = {}) { return run(folder.path(), arguments, settings); }
  void write(const std::string& name, const std::string& text) { std::ofstream(folder.file(name), std::ios::binary) << text; }
};

TEST_F(Words, CONSOLE_9_an_address_that_is_none_is_told_with_its_flag) {
  for (const char* bad : {"foo", "99999", "127.0.0.1:80999", "nix:80", "127.0.0.1:", ":80", "::1:80x"}) {
    const Ran ran = sluice({"serve", "--store", "a.db", "--listen", bad});
    EXPECT_EQ(ran.status, 2) << bad << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("--listen"));
    EXPECT_THAT(ran.err, HasSubstr(bad));
    EXPECT_THAT(ran.err, Not(HasSubstr("SLUICE_"))) << "no variable was set";
  }
  for (const char* bad : {"nix", "127.0.0.1:99999", "9090"}) {
    const Ran ran = sluice({"serve", "--store", "a.db", "--grpc-listen", bad});
    EXPECT_EQ(ran.status, 2) << bad << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("--grpc-listen"));
    EXPECT_THAT(ran.err, HasSubstr("HOST:PORT"));
    EXPECT_THAT(ran.err, Not(HasSubstr("TLS")));
  }
  for (const char* good : {"0", "127.0.0.1:0", "[::1]:0"}) {
    const Ran ran = sluice({"serve", "--store", "no/such/folder.db", "--listen", good});
    EXPECT_THAT(ran.err, HasSubstr("folder exists")) << good << ": " << ran.err;
  }
}

TEST_F(Words, CONSOLE_9_what_is_wrong_of_the_voucher_apps_is_told_with_its_flag) {
  const auto refused = [&](Arguments more) {
    Arguments all{"serve", "--store", "a.db", "--listen", "127.0.0.1:0"};
    all.insert(all.end(), more.begin(), more.end());
    const Ran ran = sluice(all);
    EXPECT_NE(ran.status, 0) << ran.out;
    EXPECT_THAT(ran.err, HasSubstr(more[more.size() - 2])) << "the flag";
    EXPECT_THAT(ran.err, Not(HasSubstr("defect")));
    return ran.err;
  };
  for (const char* bad : {"nix", ":9081", ":abc", "host:", "host:abc", "host:0", "host:70000", "a host:9081"}) {
    EXPECT_THAT(refused({"--code-service", bad}), HasSubstr("HOST:PORT")) << bad;
    EXPECT_THAT(refused({"--user-service", bad}), HasSubstr("HOST:PORT")) << bad;
  }
  refused({"--caller-rate", "-1"});
  refused({"--keep-requests-hours", "0"});
  EXPECT_THAT(refused({"--regions", "SG,sg"}), HasSubstr("'sg'"));
  for (const char* bad : {"SG,,TH", ",SG", "SG,", ","}) EXPECT_THAT(refused({"--regions", bad}), HasSubstr("got ''")) << bad;
  write("broken.json", "{\"rules\": [\n  {\"region\": \"SG\",}\n]}");
  write("wrong.json", R"({"rules":[{"error_rate":2}]})");
  EXPECT_THAT(refused({"--apps", "codes", "--fault-plan", "."}), HasSubstr("expected a file of JSON"));
  EXPECT_THAT(refused({"--apps", "codes", "--fault-plan", "absent.json"}), HasSubstr("cannot read absent.json"));
  EXPECT_THAT(refused({"--apps", "codes", "--fault-plan", "broken.json"}), HasSubstr("broken.json: line 2, column 19"));
  EXPECT_THAT(refused({"--apps", "codes", "--fault-plan", "wrong.json"}), HasSubstr("wrong.json: rules[0].error_rate: expected a number from 0 to 1"));
  EXPECT_THAT(refused({"--apps", "codes", "--fault-plan", R"({"rules":7})"}), HasSubstr("rules: expected"));
}

TEST_F(Words, CONSOLE_9_a_file_that_is_not_there_is_a_mistake_of_the_command_line) {
  const Ran absent = sluice({"voucher", "import", "users", "nofile.csv"});
  EXPECT_EQ(absent.status, 2) << absent.err;
  EXPECT_THAT(absent.err, HasSubstr("nofile.csv"));
}

TEST_F(Words, VOUCHER_6_a_catalogue_is_written_over_another_only_when_told) {
  const Arguments generate{"voucher", "generate", "catalogue", "--vouchers", "5", "--codes", "2", "--users", "3"};
  ASSERT_EQ(sluice(generate).status, 0);
  ASSERT_EQ(std::remove(folder.file("catalogue/vouchers.csv").c_str()), 0);
  write("catalogue/codes.csv", "mine\n");
  const Ran refused = sluice(generate);
  EXPECT_EQ(refused.status, 2) << refused.err;
  EXPECT_THAT(refused.err, AllOf(HasSubstr("catalogue/codes.csv is there already"), HasSubstr("--force")));
  EXPECT_EQ(read_file(folder.file("catalogue/codes.csv")), "mine\n");
  EXPECT_FALSE(std::ifstream(folder.file("catalogue/vouchers.csv"))) << "nothing was written";
  Arguments forced = generate;
  forced.push_back("--force");
  EXPECT_EQ(sluice(forced).status, 0);
  EXPECT_THAT(read_file(folder.file("catalogue/codes.csv")), HasSubstr("voucher,code"));
}

TEST_F(Words, RES_40_rules_check_names_every_mistake_with_its_line) {
  write("rules.toml",
        "[guard.\"code.*\".breaker]\nfailure_ratio = 7\nminimum_calls = \"many\"\n[guard.x.nonsense]\n"
        "[guard.y.rate]\nlimit = 5\n[shadw.x.rate]\nlimit = 5\n");
  const Ran checked = sluice({"rules", "check", "rules.toml"});
  EXPECT_EQ(checked.status, 2);
  const auto at = [&](const char* what) {
    EXPECT_THAT(checked.err, HasSubstr(what));
    return checked.err.find(what);
  };
  EXPECT_LT(at("rules.toml:2:"), at("rules.toml:3:"));
  EXPECT_LT(at("rules.toml:3:"), at("rules.toml:4:"));
  EXPECT_LT(at("nonsense"), at("shadw"));
  EXPECT_THAT(checked.err, Not(HasSubstr("[guard.\"y\""))) << "what is good is not told";
}

TEST_F(Words, RES_40_rules_that_are_no_text_are_a_mistake_of_the_file_not_a_defect) {
  write("binary.toml", "\xff\xfe[guard");
  write("empty.toml", "");
  const Ran where = sluice({"rules", "check", "."});
  EXPECT_EQ(where.status, 2) << where.err;
  EXPECT_THAT(where.err, HasSubstr("expected a file of rules"));
  const Ran sent = sluice({"rules", "reload", "binary.toml", "--token", "t"});
  EXPECT_EQ(sent.status, 2) << sent.err;
  EXPECT_THAT(sent.err, HasSubstr("binary.toml:1:1:"));
  EXPECT_EQ(sluice({"rules", "check", "empty.toml"}).status, 2) << "as the server would";
}

TEST_F(Words, CONSOLE_1_the_version_is_an_option_too) {
  const Ran option = sluice({"--version"});
  EXPECT_EQ(option.status, 0) << option.err;
  EXPECT_EQ(option.out, sluice({"version"}).out);
}

TEST_F(Words, CONSOLE_1_examples_of_the_help_work) {
  EXPECT_THAT(sluice({"tx", "graph", "--help"}).out, HasSubstr("tx graph voucher.distribute --dot"));
  EXPECT_THAT(sluice({"breakers", "force", "--help"}).out, HasSubstr("voucher.code.batch_get_code_using_cache.SG"));
  EXPECT_THAT(sluice({"idempotency", "show", "--help"}).out, HasSubstr("Name of the token"));
  Serving serving(folder.path());
  const Ran graph = serving.ask({"tx", "graph", "voucher.distribute", "--dot"});
  EXPECT_EQ(graph.status, 0) << graph.err;
  EXPECT_THAT(graph.out, HasSubstr("digraph"));
  const Ran added = serving.ask({"send", "kv.add", R"({"collection":"c","key":"k","delta":1})", "--key", "order-17"});
  ASSERT_EQ(added.status, 0) << added.err;
  const Ran shown = serving.ask({"idempotency", "show", "order-17", "--command", "kv.add", "--principal", "admin"});
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("completed"));

  // A plain command is over: there is nothing to settle, and it is there.
  const auto id = added.err.substr(added.err.find("transaction ") + 12, 13);
  const Ran settled = serving.ask({"tx", "settle", id, "committed", "--reason", "a test"});
  EXPECT_EQ(settled.status, 1);
  EXPECT_THAT(settled.err, HasSubstr("not_in_doubt"));
  EXPECT_THAT(settled.err, HasSubstr("committed"));
}

TEST_F(Words, CONSOLE_6_the_audit_trail_is_a_table_for_people) {
  Serving serving(folder.path());
  ASSERT_EQ(serving.ask({"send", "kv.add", R"({"collection":"c","key":"k","delta":1})", "--key", "a"}).status, 0);
  EXPECT_EQ(serving.ask({"send", "kv.add", R"({"collection":"c","key":"k"})", "--key", "b"}).status, 1);
  const Ran table = serving.ask({"audit", "--command", "kv.add"});
  EXPECT_EQ(table.status, 0) << table.err;
  for (const char* word : {"AT (UTC)", "PRINCIPAL", "admin", "kv.add", "error", "bad_payload"}) EXPECT_THAT(table.out, HasSubstr(word));
  const Ran json = serving.ask({"audit", "--outcome", "ok", "--command", "kv.add", "--json"});
  EXPECT_EQ(nlohmann::json::parse(json.out)["rows"].size(), 1u) << json.out;
  EXPECT_EQ(serving.ask({"audit", "--outcome", "good"}).status, 2);
}

TEST_F(Words, CONSOLE_9_a_file_that_the_configuration_names_is_told_with_its_place) {
  write("sluice.toml", "[http]\nport = 0\n[guards]\nrules = \"none.toml\"\n");
  const Ran rules = sluice({"config", "check", "sluice.toml"});
  EXPECT_EQ(rules.status, 2);
  EXPECT_THAT(rules.err, HasSubstr("sluice.toml:4: guards.rules: reading none.toml"));
  write("sluice.toml", "[grpc]\nlisten = \"127.0.0.1:0\"\ntls_cert = \"none.pem\"\ntls_key = \"none.key\"\n");
  const Ran certificate = sluice({"config", "check", "sluice.toml"});
  EXPECT_EQ(certificate.status, 2);
  EXPECT_THAT(certificate.err, HasSubstr("sluice.toml:3: grpc.tls_cert: none.pem cannot be read"));
  write("sluice.toml", "[channels.codes]\ntarget = \"codes:1\"\ntls_ca = \"none.pem\"\n");
  EXPECT_THAT(sluice({"config", "check", "sluice.toml"}).err, HasSubstr("sluice.toml:3: channels.codes: tls_ca: none.pem cannot be read"));
  write("sluice.toml", "[guards]\nrules = \"none.toml\"\n[channels.codes]\ntarget = \"codes:1\"\ntls_ca = \"none.pem\"\n"
                       "[channels.users]\ntarget = \"users:1\"\ntoken_file = \"none.token\"\n");
  const Ran several = sluice({"config", "check", "sluice.toml"});
  EXPECT_EQ(several.status, 2);
  EXPECT_THAT(several.err, HasSubstr("sluice.toml:2: guards.rules: reading none.toml"));
  EXPECT_THAT(several.err, HasSubstr("sluice.toml:5: channels.codes: tls_ca: none.pem cannot be read"));
  EXPECT_THAT(several.err, HasSubstr("sluice.toml:8: channels.users.token_file: none.token cannot be read")) << "all of them at once";
  const Ran variable = sluice({"config", "check"}, {{"SLUICE_GUARDS_RULES", "none.toml"}});
  EXPECT_THAT(variable.err, HasSubstr("environment: SLUICE_GUARDS_RULES: guards.rules: reading none.toml"));
}

TEST_F(Words, CONSOLE_9_particular_mistakes_are_told_with_what_is_expected) {
  const Ran before = sluice({"tx", "list", "--before", "x"});
  EXPECT_EQ(before.status, 2);
  EXPECT_THAT(before.err, HasSubstr("expected the id of a transaction, 13 characters"));
  const Ran row = sluice({"audit", "--before", "x"});
  EXPECT_EQ(row.status, 2);
  EXPECT_THAT(row.err, HasSubstr("expected the sequence of a row, a whole number"));
  const Ran store = sluice({"serve", "--listen", "0", "--store", "."});
  EXPECT_EQ(store.status, 2);
  EXPECT_THAT(store.err, HasSubstr("this is a folder; expected the path of a database file, as ./sluice.db"));
  write("users.csv", "name,id\n");
  const Ran csv = sluice({"voucher", "import", "users", "users.csv"});
  EXPECT_EQ(csv.status, 1);
  EXPECT_THAT(csv.err, HasSubstr("users.csv: line 1: expected the columns "));
  EXPECT_THAT(csv.err, HasSubstr("got \"name,id\""));
  const Ran powerless = sluice({"token", "create", "till"});
  EXPECT_EQ(powerless.status, 0);
  EXPECT_THAT(powerless.err, HasSubstr("without --grant this token may do nothing"));
  EXPECT_THAT(sluice({"token", "create", "desk", "--grant", "voucher:*"}).err, Not(HasSubstr("warning")));

  Serving serving(folder.path(), {"--store", "other.db"});
  const Ran delta = serving.ask({"send", "kv.add", R"({"collection":"c","key":"k","delta":1.5})", "--key", "a"});
  EXPECT_THAT(delta.err, HasSubstr("delta: expected a whole number, got 1.5"));
  const Ran token = run(folder.path(), {"send", "sluice.echo"}, {{"SLUICE_SERVER", serving.address()}, {"SLUICE_TOKEN", "slc_12"}});
  EXPECT_THAT(token.err, HasSubstr("look whether it is whole"));
  EXPECT_THAT(token.err, HasSubstr("on SQLite while the server is stopped, on PostgreSQL at any time"));
  EXPECT_THAT(sluice({"token", "--help"}).out, HasSubstr("on PostgreSQL also while nodes run"));
}

TEST_F(Words, FLOW_27_what_is_said_of_a_transaction_is_true_of_its_reply) {
  Serving serving(folder.path());
  const Ran batch = serving.ask({"send", "voucher.ss.distribution.batch_distribute_voucher",
                                 R"({"request_id":"r","region":"DE","items":[{"user":"nobody","voucher":"none"}]})", "--key", "b"});
  ASSERT_EQ(batch.status, 0) << batch.err << batch.out;
  EXPECT_THAT(batch.out, Not(HasSubstr("issued"))) << "its only item is refused";
  const Ran shown = serving.ask({"tx", "show", batch.err.substr(batch.err.find("transaction ") + 12, 13)});
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, Not(HasSubstr("everything took effect"))) << shown.out;
  EXPECT_THAT(shown.out, HasSubstr("what its reply says"));
}

TEST_F(Words, CONSOLE_1_every_help_teaches_by_an_example_and_tells_defaults) {
  for (const Arguments& page : {Arguments{"config"}, Arguments{"bench"}, Arguments{"version"}, Arguments{"token", "list"}, Arguments{"token", "revoke"}}) {
    Arguments arguments = page;
    arguments.push_back("--help");
    EXPECT_THAT(sluice(arguments).out, HasSubstr("sluice " + page[0])) << page[0];
    EXPECT_THAT(sluice(arguments).out, HasSubstr("Example")) << page[0];
  }
  EXPECT_THAT(sluice({"demo", "--help"}).out, HasSubstr("=12000"));
}

TEST_F(Words, IDEM_6_a_key_for_a_command_that_uses_none_is_refused) {
  Serving serving(folder.path());
  const Ran read = serving.ask({"send", "kv.get", R"({"collection":"c","key":"k"})", "--key", "a"});
  EXPECT_EQ(read.status, 1);
  EXPECT_THAT(read.err, HasSubstr("key_not_used"));
}

TEST_F(Words, IDEM_1_a_name_that_is_taken_is_refused_and_may_be_renewed) {
  const Ran first = sluice({"token", "create", "till", "--grant", "default:kv.*", "--json"});
  ASSERT_EQ(first.status, 0) << first.err;
  const Ran second = sluice({"token", "create", "till", "--grant", "default:kv.*"});
  EXPECT_EQ(second.status, 1);
  EXPECT_THAT(second.err, HasSubstr("token_name_taken"));
  const std::string id = nlohmann::json::parse(first.out)["id"];
  EXPECT_EQ(sluice({"token", "create", "till", "--grant", "default:kv.*", "--replaces", id}).status, 0);
  EXPECT_THAT(sluice({"token", "list"}).out, HasSubstr("revoked"));
}

}  // namespace
}  // namespace sluice::cli_test
