// What looks at a store makes none, and says what it did.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

class Stores : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  Ran sluice(const Arguments& arguments) { return run(folder.path(), arguments); }
};

TEST_F(Stores, CONSOLE_9_a_misspelt_store_is_told_and_not_made) {
  for (const Arguments& look : {Arguments{"doctor"}, Arguments{"token", "list"}, Arguments{"token", "revoke", "496aa0d146439988"}}) {
    Arguments arguments = look;
    arguments.insert(arguments.end(), {"--store", "typo.db"});
    const Ran ran = sluice(arguments);
    EXPECT_EQ(ran.status, 2) << look[0] << ran.out << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("there is no store at typo.db"));
    EXPECT_FALSE(std::filesystem::exists(folder.file("typo.db"))) << look[0];
  }
  EXPECT_THAT(sluice({"migrate", "--store", "new.db"}).out, HasSubstr("an empty one was made"));
  EXPECT_THAT(sluice({"migrate", "--store", "new.db"}).out, HasSubstr("of this version"));
  EXPECT_EQ(sluice({"doctor", "--store", "new.db"}).status, 0);
}

TEST_F(Stores, NODE_8_doctor_tells_of_a_copy_and_migrate_restored_is_for_one_written_over_in_place) {
  ASSERT_EQ(sluice({"migrate", "--store", "data.db"}).status, 0);
  EXPECT_THAT(sluice({"doctor", "--store", "data.db"}).out, testing::Not(HasSubstr("a copy")));
  std::filesystem::copy_file(folder.file("data.db"), folder.file("backup.db"));
  const Ran told = sluice({"doctor", "--store", "backup.db"});
  EXPECT_EQ(told.status, 0) << told.err;
  EXPECT_THAT(told.out, HasSubstr("a new incarnation was drawn"));
  EXPECT_THAT(sluice({"doctor", "--store", "backup.db"}).out, testing::Not(HasSubstr("a copy"))) << "once";
  std::filesystem::copy_file(folder.file("data.db"), folder.file("other.db"));
  EXPECT_THAT(sluice({"token", "create", "till", "--grant", "kv:*", "--store", "other.db"}).err, HasSubstr("a new incarnation was drawn"));
  EXPECT_THAT(sluice({"token", "create", "desk", "--grant", "kv:*", "--store", "other.db"}).err, testing::Not(HasSubstr("incarnation"))) << "once";
  EXPECT_THAT(sluice({"migrate", "--restored", "--store", "data.db"}).out, HasSubstr("A new incarnation was drawn"));
  EXPECT_EQ(nlohmann::json::parse(sluice({"migrate", "--json", "--store", "data.db"}).out)["new_incarnation"], false);
  EXPECT_EQ(sluice({"migrate", "--restored", "--store", "typo.db"}).status, 2);
}

TEST_F(Stores, G2_a_server_whose_database_was_moved_away_after_a_crash_does_not_start_over_its_log) {
  namespace fs = std::filesystem;
  std::string token;
  {
    Serving server(folder.path());
    token = server.token();
    ASSERT_EQ(server.ask({"send", "kv.put", R"({"collection":"c","key":"k","value":1})", "--key", "a"}).status, 0);
    server.crash();
  }
  const auto log = fs::file_size(folder.file("sluice.db-wal"));
  ASSERT_GT(log, 0u);
  fs::rename(folder.file("sluice.db"), folder.file("elsewhere.db"));
  const Ran refused = sluice({"serve", "--listen", "127.0.0.1:0"});
  EXPECT_EQ(refused.status, 1);
  for (const char* const word : {"sluice.db-wal holds commits that were acknowledged", "put the database file back", "move the log away"})
    EXPECT_THAT(refused.err, HasSubstr(word));
  EXPECT_EQ(fs::file_size(folder.file("sluice.db-wal")), log);
  EXPECT_EQ(sluice({"backup", "--store", "elsewhere.db", "--to", "sluice.db"}).status, 1) << "it would be read with that log";
  EXPECT_EQ(fs::file_size(folder.file("sluice.db-wal")), log);
  fs::rename(folder.file("elsewhere.db"), folder.file("sluice.db"));
  Serving again(folder.path());
  ASSERT_FALSE(again.address().empty()) << read_file(folder.file("server.err"));
  again.use_token(token);
  EXPECT_THAT(again.ask({"send", "kv.get", R"({"collection":"c","key":"k"})"}).out, HasSubstr("\"value\":1"));
}

TEST_F(Stores, CONSOLE_9_a_new_store_in_an_empty_file_is_told) {
  std::ofstream{folder.file("sluice.db")};
  Serving server(folder.path());
  ASSERT_FALSE(server.address().empty()) << "a first start that was killed leaves such a file";
  server.stop();
  EXPECT_THAT(read_file(folder.file("server.err")), HasSubstr("the database file was empty"));
}

TEST_F(Stores, CONSOLE_4_tokens_are_told_with_what_they_may_do_and_until_when) {
  const Ran made = sluice({"token", "create", "till", "--grant", "default:kv.*", "--ttl", "86400"});
  ASSERT_EQ(made.status, 0) << made.err;
  ASSERT_EQ(sluice({"token", "create", "desk", "--grant", "voucher:*", "--grant", "default:kv.get"}).status, 0);
  const auto listed = nlohmann::json::parse(sluice({"token", "list", "--json"}).out);
  ASSERT_EQ(listed.size(), 2u);
  const auto& till = listed[0]["name"] == "till" ? listed[0] : listed[1];
  const std::string id = till["id"];
  EXPECT_TRUE(till.contains("expires_ms"));
  EXPECT_THAT(made.err, HasSubstr(id)) << "what --replaces needs";
  EXPECT_THAT(made.out, testing::StartsWith("slc_"));
  EXPECT_EQ(made.out.find('\n'), made.out.size() - 1) << "the token alone, for scripts";
  const Ran table = sluice({"token", "list"});
  for (const char* const word : {"UNTIL (UTC)", "default:kv.*", "voucher:* default:kv.get", "no end"}) EXPECT_THAT(table.out, HasSubstr(word));
  EXPECT_THAT(sluice({"token", "revoke", id}).out, HasSubstr("Token " + id + " is revoked."));
}

TEST_F(Stores, CONSOLE_9_a_folder_of_a_bench_that_is_not_there_is_no_defect) {
  const Ran ran = sluice({"bench", "durable", "--directory", "/nope"});
  EXPECT_EQ(ran.status, 2) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("--directory /nope"));
  EXPECT_THAT(ran.err, testing::Not(HasSubstr("defect")));
}

TEST_F(Stores, CONSOLE_9_a_file_as_the_store_of_the_demo_is_refused) {
  const Ran ran = sluice({"demo", "--store", "foo.db"});
  EXPECT_EQ(ran.status, 2) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("expected postgres://"));
  EXPECT_THAT(ran.err, HasSubstr("'foo.db'"));
  EXPECT_FALSE(std::filesystem::exists(folder.file("foo.db")));
}

TEST_F(Stores, CONSOLE_9_a_service_that_is_sent_no_token_is_told_at_the_start) {
  Serving server(folder.path(), {"--code-service", "127.0.0.1:1"});
  ASSERT_FALSE(server.address().empty());
  server.stop();
  EXPECT_THAT(read_file(folder.file("server.err")), HasSubstr("SLUICE_CODE_TOKEN or channels.codes.token_file"));
}

TEST_F(Stores, IDEM_1_a_key_is_looked_for_in_the_commands_own_app) {
  const Serving server(folder.path());
  const Ran sent = server.ask({"send", "voucher.catalogue.restock", R"({"voucher":"v","stock":1})", "--key", "a"});
  EXPECT_THAT(sent.err, HasSubstr("unknown_voucher"));
  const Ran shown = server.ask({"idempotency", "show", "a", "--command", "voucher.catalogue.restock", "--principal", "admin"});
  EXPECT_THAT(shown.err, HasSubstr("app voucher"));
  EXPECT_THAT(shown.err, HasSubstr("command voucher.catalogue.restock"));
  EXPECT_EQ(shown.status, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("unknown_voucher"));
}

}  // namespace
}  // namespace sluice::cli_test
