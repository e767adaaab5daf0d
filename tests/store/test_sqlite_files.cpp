// The database's file: gone, empty, copied while it is written, put back.
#include <filesystem>
#include <fstream>

#include "sluice/store/backup.hpp"
#include "store/store_fixture.hpp"

namespace sluice::store {
namespace {

class SqliteFiles : public SqliteFixture {};

TEST_F(SqliteFiles, G2_a_log_whose_database_is_gone_is_kept_and_the_start_refused) {
  namespace fs = std::filesystem;
  const std::string left = rig.folder.file("left.db"), log = left + "-wal";
  {
    auto store = open();
    ASSERT_TRUE(commit_and_wait(**store, keyed(1))->applied);
    fs::copy_file(rig.folder.file("store.db"), rig.folder.file("elsewhere.db"));  // as a killed process leaves them
    fs::copy_file(rig.folder.file("store.db-wal"), log);
  }
  const auto size = fs::file_size(log);
  ASSERT_GT(size, 0u);
  for (const bool empty : {false, true}) {
    if (empty) std::ofstream{left};
    auto store = open({.path = left});
    ASSERT_FALSE(store) << "an acknowledged commit would be deleted";
    EXPECT_EQ(store.error().code(), "log_without_database");
    for (const std::string& word : {left, log, std::string("put the database file back")})
      EXPECT_NE(store.error().detail().find(word), std::string_view::npos) << word;
    EXPECT_EQ(fs::file_size(log), size);
    EXPECT_EQ(fs::exists(left), empty) << "nothing is made";
  }
  fs::rename(rig.folder.file("elsewhere.db"), left);
  auto again = open({.path = left});
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_FALSE(commit_and_wait(**again, keyed(1))->applied) << "what was acknowledged is there";
}

// A first start that was killed between the file and its first page.
TEST_F(SqliteFiles, G2_an_empty_file_without_a_log_holds_nothing_and_becomes_the_database) {
  const std::string path = rig.folder.file("store.db");
  std::ofstream{path};
  std::ofstream{path + "-wal"};
  auto store = open();
  ASSERT_TRUE(store) << store.error().to_string();
  EXPECT_TRUE(commit_and_wait(**store, keyed(1))->applied);
}

TEST_F(SqliteFiles, a_backup_taken_while_working_opens_and_holds_what_was_committed) {
  auto store = open();
  for (int i = 0; i < 50; ++i) (void)commit_and_wait(**store, keyed(i));
  const auto copy = rig.folder.file("copy.db");
  const auto done = (*store)->backup(copy);
  ASSERT_TRUE(done) << done.error().to_string();
  const auto again = (*store)->backup(copy);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), "backup_exists");
  auto restored = open({.path = copy});
  ASSERT_TRUE(restored) << restored.error().to_string();
  EXPECT_EQ((*ask_now(**restored, FindKey{"scope49"}))->reply, "reply49");
  EXPECT_NE((*restored)->incarnation(), (*store)->incarnation()) << "leases of the original mean nothing here";
  const auto drawn = (*restored)->incarnation();
  restored->reset();
  EXPECT_EQ((*open({.path = copy}))->incarnation(), drawn) << "and it keeps its own";
}

TEST_F(SqliteFiles, NODE_8_fencing_tokens_from_before_are_refused_by_a_copy_and_by_a_restored_file) {
  const auto copied = rig.folder.file("copied.db"), restored = rig.folder.file("restored.db");
  const Commit fenced{.requires_ = {needs(Fence{"l", 1}, "f")}, .then = {KvAdd{at("row"), 1}}};
  {
    auto store = open();
    ASSERT_TRUE(commit_and_wait(**store, {.then = {LeaseTake{"l", "me", seconds(10)}}})->applied);
    ASSERT_TRUE(commit_and_wait(**store, fenced)->applied) << "the token is good here";
    ASSERT_TRUE((*store)->backup(copied));
  }
  std::filesystem::copy_file(rig.folder.file("store.db"), restored);
  for (const std::string& path : {copied, restored}) {
    auto store = open({.path = path});
    ASSERT_TRUE(store) << store.error().to_string();
    EXPECT_FALSE(commit_and_wait(**store, fenced)->applied) << path;
  }
}

TEST_F(SqliteFiles, NODE_8_a_copy_that_was_put_in_its_place_is_noticed_and_has_an_incarnation_of_its_own) {
  const auto path = rig.folder.file("store.db"), copy = rig.folder.file("copy.db");
  std::uint64_t first = 0;
  {
    auto store = open();
    first = (*store)->incarnation();
    EXPECT_FALSE((*store)->of_another_file());
    (void)commit_and_wait(**store, {.then = {LeaseTake{"l", "me", seconds(10)}}});
    (*store)->close();
  }
  std::filesystem::copy_file(path, copy);
  {
    auto store = open();
    (void)commit_and_wait(**store, keyed(1));  // acknowledged, and lost by the restore
  }
  std::filesystem::remove(path);
  std::filesystem::rename(copy, path);
  {
    auto store = open();
    ASSERT_TRUE(store) << store.error().to_string();
    EXPECT_TRUE((*store)->of_another_file());
    EXPECT_NE((*store)->incarnation(), first);
    EXPECT_FALSE(commit_and_wait(**store, {.requires_ = {needs(Fence{"l", 1}, "f")}})->applied) << "a token of before";
    first = (*store)->incarnation();
  }
  auto again = open();
  EXPECT_FALSE((*again)->of_another_file()) << "it is known by now";
  EXPECT_EQ((*again)->incarnation(), first);
}

TEST_F(SqliteFiles, NODE_8_a_file_under_another_name_is_the_same_store_and_what_is_said_to_be_restored_is_not) {
  std::uint64_t first = 0;
  {
    auto store = open();
    first = (*store)->incarnation();
  }
  const auto moved = rig.folder.file("moved.db");
  std::filesystem::rename(rig.folder.file("store.db"), moved);
  EXPECT_EQ((*open({.path = moved}))->incarnation(), first);
  // Written over in place it is the same file: somebody has to say so.
  auto restored = open({.path = moved, .restored = true});
  EXPECT_TRUE((*restored)->of_another_file());
  EXPECT_NE((*restored)->incarnation(), first);
}

TEST_F(SqliteFiles, G2_a_damaged_database_is_not_taken_for_a_backup) {
  const std::string path = rig.folder.file("store.db"), copy = rig.folder.file("copy.db");
  {
    auto store = open();
    for (int i = 0; i < 500; ++i) (void)commit_and_wait(**store, keyed(i));
  }
  constexpr std::streamoff kPage = 4096;
  const auto pages = static_cast<std::streamoff>(std::filesystem::file_size(path)) / kPage;
  ASSERT_GT(pages, 10);
  {
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    const std::string junk(kPage, '\x5A');
    for (std::streamoff page = pages / 2; page < pages; ++page) file.seekp(page * kPage).write(junk.data(), kPage);
  }
  const auto done = backup_sqlite_store(path, copy);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().kind(), FailureKind::corrupt) << done.error().to_string();
  EXPECT_FALSE(std::filesystem::exists(copy));
  EXPECT_FALSE(std::filesystem::exists(copy + ".partial"));
}

TEST_F(SqliteFiles, G2_a_backup_is_whole_or_not_there) {
  auto store = open();
  for (int i = 0; i < 50; ++i) (void)commit_and_wait(**store, keyed(i));
  std::filesystem::create_directory(rig.folder.file("copy.db.partial"));
  const auto blocked = backup_sqlite_store(rig.folder.file("store.db"), rig.folder.file("copy.db"));
  ASSERT_FALSE(blocked);
  EXPECT_NE(blocked.error().detail().find("interrupted"), std::string_view::npos);
  EXPECT_FALSE(std::filesystem::exists(rig.folder.file("copy.db")));
  std::filesystem::remove(rig.folder.file("copy.db.partial"));
  std::uint64_t told = 0, all = 0;
  ASSERT_TRUE(backup_sqlite_store(rig.folder.file("store.db"), rig.folder.file("copy.db"), [&](std::uint64_t copied, std::uint64_t pages) {
    told = copied;
    all = pages;
  }));
  EXPECT_GT(all, 0u);
  EXPECT_EQ(told, all);
  for (const auto& entry : std::filesystem::directory_iterator(rig.folder.path()))
    EXPECT_FALSE(entry.path().filename().string().starts_with("copy.db") && entry.path().filename() != "copy.db")
        << entry.path() << ": the copy is one file";
}

}  // namespace
}  // namespace sluice::store
