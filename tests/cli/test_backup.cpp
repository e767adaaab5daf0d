// A backup of a server that works, and what a server started on it knows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

class Backup : public testing::Test {
 protected:
  testing_support::TempFolder folder, callers_folder;
  Ran sluice(const Arguments& arguments) { return run(folder.path(), arguments); }
  // From a folder of its own: run() puts its output beside.
  static Ran add(const std::string& from, const Serving& server, int n) {
    return run(from, {"send", "kv.add", R"({"collection":"c","key":"sum","delta":1})", "--key", "k" + std::to_string(n)}, server.settings());
  }
};

TEST_F(Backup, G1_G2_a_copy_taken_under_load_has_all_that_was_acknowledged_before_it) {
  std::string token;
  std::vector<std::string> replies;  // of k0, k1, …
  std::size_t before = 0;
  {
    Serving server(folder.path());
    ASSERT_FALSE(server.address().empty()) << read_file(folder.file("server.err"));
    token = server.token();
    std::atomic<bool> enough{false}, ended{false};
    std::atomic<std::size_t> acknowledged{0};
    std::thread load([&] {
      for (int n = 0; !enough; ++n) {
        const Ran ran = add(callers_folder.path(), server, n);
        if (ran.status != 0) break;
        replies.push_back(ran.out);
        acknowledged = replies.size();
      }
      ended = true;
    });
    while (acknowledged < 5 && !ended) {
    }
    before = acknowledged;
    const Ran copied = sluice({"backup", "--store", "sluice.db", "--to", "copy.db", "--json"});
    EXPECT_EQ(copied.status, 0) << copied.err;
    while (acknowledged < before + 5 && !ended) {
    }
    enough = true;
    load.join();
    EXPECT_EQ(nlohmann::json::parse(copied.out)["bytes"], std::filesystem::file_size(folder.file("copy.db")));
  }
  ASSERT_GE(replies.size(), before + 5) << "callers went on";
  struct stat made{};
  ASSERT_EQ(::stat(folder.file("copy.db").c_str(), &made), 0);
  EXPECT_EQ(made.st_mode & 0777, 0600u);
  std::filesystem::create_directory(folder.file("damaged"));
  for (const char* name : {"sluice.db", "sluice.db-wal", "sluice.db-shm"})
    if (std::filesystem::exists(folder.file(name))) std::filesystem::rename(folder.file(name), folder.file("damaged/") + name);
  std::filesystem::rename(folder.file("copy.db"), folder.file("sluice.db"));
  Serving server(folder.path());
  ASSERT_FALSE(server.address().empty()) << read_file(folder.file("server.err"));
  server.use_token(token);
  const auto sum = nlohmann::json::parse(server.ask({"send", "kv.get", R"({"collection":"c","key":"sum"})"}).out);
  EXPECT_GE(sum["number"].get<std::size_t>(), before);
  EXPECT_LT(sum["number"].get<std::size_t>(), replies.size()) << "it was taken before the end";
  for (std::size_t n = 0; n < before; ++n) {
    const Ran again = add(callers_folder.path(), server, static_cast<int>(n));
    EXPECT_EQ(again.out, replies[n]) << "key " << n;
  }
  EXPECT_EQ(nlohmann::json::parse(server.ask({"send", "kv.get", R"({"collection":"c","key":"sum"})"}).out)["number"], sum["number"]);
}

TEST_F(Backup, CONSOLE_9_what_cannot_be_backed_up_or_would_be_overwritten_is_told) {
  const Ran none = sluice({"backup", "--store", "typo.db", "--to", "copy.db"});
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.err, HasSubstr("there is no store at typo.db"));
  const Ran elsewhere = sluice({"backup", "--store", "postgres://sluice@db.internal/orders", "--to", "copy.db"});
  EXPECT_EQ(elsewhere.status, 2);
  for (const char* const word : {"pg_dump", "pg_basebackup", "docs/how-to/postgres.md"}) EXPECT_THAT(elsewhere.err, HasSubstr(word));
  ASSERT_EQ(sluice({"migrate", "--store", "sluice.db"}).status, 0);
  const Ran first = sluice({"backup", "--store", "sluice.db", "--to", "copy.db"});
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("copy.db"));
  const Ran second = sluice({"backup", "--store", "sluice.db", "--to", "copy.db"});
  EXPECT_EQ(second.status, 1);
  EXPECT_THAT(second.err, HasSubstr("the file exists"));
  EXPECT_EQ(sluice({"backup", "--store", "sluice.db", "--to", "none/copy.db"}).status, 1);
  std::ofstream(folder.file("notes.db")) << "no database";
  EXPECT_THAT(sluice({"backup", "--store", "notes.db", "--to", "notes.copy"}).err, HasSubstr("not a Sluice database"));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    EXPECT_THAT(entry.path().string(), testing::Not(HasSubstr("partial")));
}

// A copy made by other means keeps the incarnation.
TEST_F(Backup, NODE_8_a_file_put_back_from_an_earlier_time_gets_a_new_incarnation_when_that_is_said) {
  ASSERT_EQ(sluice({"migrate", "--store", "sluice.db"}).status, 0);
  const auto said = [&](Arguments more) {
    Arguments arguments{"migrate", "--store", "sluice.db"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return sluice(arguments);
  };
  EXPECT_THAT(said({}).out, testing::Not(HasSubstr("incarnation")));
  EXPECT_THAT(said({"--restored"}).out, HasSubstr("A new incarnation was drawn"));
  EXPECT_EQ(nlohmann::json::parse(said({"--restored", "--json"}).out)["new_incarnation"], true);
  EXPECT_EQ(nlohmann::json::parse(said({"--json"}).out)["new_incarnation"], false);
  const Ran typo = sluice({"migrate", "--store", "typo.db", "--restored"});
  EXPECT_EQ(typo.status, 2) << "a new store was not restored";
  EXPECT_FALSE(std::filesystem::exists(folder.file("typo.db")));
}

}  // namespace
}  // namespace sluice::cli_test
