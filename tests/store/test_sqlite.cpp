// What only the embedded database can get wrong: owners, reopening, growth, keys.
#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "store/sqlite/key_index.hpp"
#include "store/store_fixture.hpp"

namespace sluice::store {
namespace {

class Sqlite : public SqliteFixture {};

TEST_F(Sqlite, keys_are_found_again_after_reopening_sealed_or_not) {
  constexpr int kKeys = 10'000;  // two sealed segments and a tail
  {
    auto store = open();
    ASSERT_TRUE(store) << store.error().to_string();
    std::vector<PendingCommit> waiting(kKeys);
    std::atomic<int> left{kKeys};
    static std::atomic<int>* counter;
    static Parker* done;
    Parker parker;
    counter = &left;
    done = &parker;
    for (int i = 0; i < kKeys; ++i) {
      auto& pending = waiting[static_cast<std::size_t>(i)];
      pending.commit = keyed(i);
      pending.run = [](Job*) noexcept {
        if (--*counter == 0) done->wake();
      };
      (*store)->submit(pending);
    }
    parker.park();
    EXPECT_LT((*store)->stats().groups, 1000u) << "waiting commits share groups";
  }
  auto store = open();
  ASSERT_TRUE(store) << store.error().to_string();
  EXPECT_EQ((*store)->stats().live_keys, static_cast<std::uint64_t>(kKeys));
  for (int i = 0; i < kKeys; i += 97)
    EXPECT_EQ((*ask_now(**store, FindKey{"scope" + std::to_string(i)}))->reply, "reply" + std::to_string(i));
  EXPECT_FALSE(commit_and_wait(**store, keyed(5))->applied);
  EXPECT_FALSE(ask_now(**store, FindKey{"scope-none"})->has_value());
  EXPECT_TRUE((*store)->integrity_check());
}

TEST_F(Sqlite, the_incarnation_stays_and_the_lease_tokens_with_it) {
  std::uint64_t first = 0;
  {
    auto store = open();
    first = (*store)->incarnation();
    (void)commit_and_wait(**store, {.then = {LeaseTake{"l", "me", seconds(10)}}});
  }
  auto store = open();
  EXPECT_EQ((*store)->incarnation(), first);
  EXPECT_TRUE(commit_and_wait(**store, {.requires_ = {needs(Fence{"l", 1}, "f")}})->applied);
}

TEST_F(Sqlite, a_second_owner_is_refused_until_the_first_is_gone) {
  auto first = open();
  ASSERT_TRUE(first);
  auto second = open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), "store_locked");
  first->reset();
  EXPECT_TRUE(open());
}

TEST_F(Sqlite, CONSOLE_2_a_name_that_is_no_file_is_refused_with_what_is_expected) {
  for (const char* path : {"", ":memory:", "file:x?mode=memory"}) {
    SqliteOptions options;
    options.path = path;
    const auto store = open_sqlite_store(std::move(options), rig.clock, rig.random, rig.executor);
    ASSERT_FALSE(store) << path;
    EXPECT_EQ(store.error().kind(), FailureKind::invalid_argument);
    EXPECT_NE(store.error().detail().find("expected the path of a database file"), std::string_view::npos);
  }
}

TEST_F(Sqlite, G1_a_link_to_a_store_is_that_store_and_has_its_owner) {
  namespace fs = std::filesystem;
  const std::string link = rig.folder.file("link.db");
  fs::create_directory(rig.folder.file("elsewhere"));
  const std::string chained = rig.folder.file("elsewhere/again.db");
  fs::create_symlink("store.db", link);  // of what is not there yet
  fs::create_symlink("../link.db", chained);
  {
    auto first = open({.path = link});
    ASSERT_TRUE(first) << first.error().to_string();
    EXPECT_TRUE(commit_and_wait(**first, keyed(1))->applied);
    for (const std::string& path : {rig.folder.file("store.db"), link, chained}) {
      auto second = open({.path = path});
      ASSERT_FALSE(second) << path << ": two writers of one file do not see each other's keys";
      EXPECT_EQ(second.error().code(), "store_locked");
    }
  }
  auto again = open({.path = chained});
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_FALSE(commit_and_wait(**again, keyed(1))->applied);
}

TEST_F(Sqlite, a_file_that_is_no_database_is_named_and_left_alone) {
  const auto path = rig.folder.file("store.db");
  std::ofstream(path) << std::string(8192, 'x');
  auto store = open();
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().kind(), FailureKind::corrupt);
  EXPECT_NE(store.error().detail().find(path), std::string_view::npos);
  EXPECT_NE(store.error().detail().find("restore a backup"), std::string_view::npos);
}

TEST_F(Sqlite, another_programs_database_is_refused) {
  sqlite3* other = nullptr;
  sqlite3_open(rig.folder.file("store.db").c_str(), &other);
  sqlite3_exec(other, "CREATE TABLE theirs (x)", nullptr, nullptr, nullptr);
  sqlite3_close(other);
  auto store = open();
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code(), "not_a_database");
}

TEST_F(Sqlite, a_newer_schema_is_refused_with_both_versions) {
  { ASSERT_TRUE(open()); }
  sqlite3* newer = nullptr;
  sqlite3_open(rig.folder.file("store.db").c_str(), &newer);
  sqlite3_exec(newer, "PRAGMA user_version=99", nullptr, nullptr, nullptr);
  sqlite3_close(newer);
  auto store = open();
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code(), "schema_too_new");
  EXPECT_NE(store.error().detail().find("got 99"), std::string_view::npos);
}

TEST_F(Sqlite, a_folder_that_does_not_exist_is_named_with_what_to_do) {
  auto store = open({.path = rig.folder.file("none/store.db")});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code(), "store_cannot_open");
  EXPECT_NE(store.error().detail().find("folder exists"), std::string_view::npos);
}

TEST_F(Sqlite, damage_is_found_by_the_integrity_check) {
  {
    auto store = open();
    for (int i = 0; i < 200; ++i) (void)commit_and_wait(**store, keyed(i));
  }
  {
    std::fstream file(rig.folder.file("store.db"), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(0, std::ios::end);
    const auto size = file.tellp();
    file.seekp(static_cast<std::streamoff>(size) - 4096);
    file << std::string(4000, '\x5a');
  }
  auto store = open({.path = rig.folder.file("store.db"), .verify = true});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().kind(), FailureKind::corrupt);
}

TEST_F(Sqlite, CONSOLE_5_files_and_backups_are_for_their_owner_alone) {
  const mode_t before = umask(0022);
  auto store = open();
  ASSERT_TRUE(store) << store.error().to_string();
  ASSERT_TRUE(commit_and_wait(**store, keyed(1)));
  ASSERT_TRUE((*store)->backup(rig.folder.file("copy.db")));
  umask(before);
  for (const char* name : {"store.db", "store.db-wal", "store.db-shm", "store.db.lock", "copy.db"}) {
    struct stat status{};
    ASSERT_EQ(::stat(rig.folder.file(name).c_str(), &status), 0) << name;
    EXPECT_EQ(status.st_mode & 0777, 0600u) << name;
  }
}

TEST_F(Sqlite, the_bound_on_live_keys_refuses_as_overloaded) {
  SqliteOptions options;
  options.max_live_keys = 2;
  auto store = open(std::move(options));
  EXPECT_TRUE(commit_and_wait(**store, keyed(0))->applied);
  EXPECT_TRUE(commit_and_wait(**store, keyed(1))->applied);
  auto third = commit_and_wait(**store, keyed(2));
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().kind(), FailureKind::overloaded);
  EXPECT_FALSE(commit_and_wait(**store, keyed(1))->applied) << "known keys still answer";
}

// Puts or releases so many keys in one Commit.
Commit together(int from, int count, bool put) {
  Commit all;
  for (int i = from; i < from + count; ++i) {
    const std::string scope = "scope" + std::to_string(i);
    if (put)
      all.then.emplace_back(KeyPut{{.exchange = {static_cast<std::uint64_t>(i) + 1}, .scope = scope,
                                    .state = KeyState::completed, .reply = "reply" + std::to_string(i)},
                                   std::chrono::hours(1)});
    else
      all.then.emplace_back(KeyDelete{scope});
  }
  return all;
}

// A segment names keys that were released after it was sealed; they must not fill the store for ever.
TEST_F(Sqlite, IDEM_9_keys_released_from_a_sealed_segment_do_not_count_towards_the_bound) {
  constexpr int kKeys = 4200, kReleased = 200;  // more than one segment holds
  {
    auto store = open();
    ASSERT_TRUE(commit_and_wait(**store, together(0, kKeys, true))->applied);
    ASSERT_TRUE(commit_and_wait(**store, together(1000, kReleased, false))->applied);
    EXPECT_EQ((*store)->stats().live_keys, static_cast<std::uint64_t>(kKeys - kReleased));
  }
  SqliteOptions options;
  options.max_live_keys = kKeys;
  auto store = open(std::move(options));
  ASSERT_TRUE(store) << store.error().to_string();
  for (int i = 0; i < kReleased; ++i) {
    const auto outcome = commit_and_wait(**store, keyed(10'000 + i));
    // One group looks at a part of the index: a refusal may be repeated until it has been round.
    for (int more = 0; !outcome && more < 8 && !commit_and_wait(**store, keyed(10'000 + i)); ++more) {
    }
    ASSERT_TRUE((*ask_now(**store, FindKey{"scope" + std::to_string(10'000 + i)}))) << "key " << i;
  }
  const auto past = commit_and_wait(**store, keyed(20'000));
  ASSERT_FALSE(past) << "the bound itself still holds";
  EXPECT_EQ(past.error().code(), kTooManyKeys);
  EXPECT_NE(past.error().detail().find("store.max_live_keys"), std::string::npos) << past.error().to_string();
  EXPECT_TRUE(past.error().retry_after());
  for (const int live : {0, 999, 1200, 4199})
    EXPECT_TRUE((*ask_now(**store, FindKey{"scope" + std::to_string(live)}))) << live << " was forgotten";
}

TEST_F(Sqlite, IDEM_9_keys_released_before_their_segment_is_sealed_are_not_in_it) {
  {
    auto store = open();
    ASSERT_TRUE(commit_and_wait(**store, together(0, 3000, true))->applied);
    ASSERT_TRUE(commit_and_wait(**store, together(1000, 1000, false))->applied);
    ASSERT_TRUE(commit_and_wait(**store, together(3000, 3000, true))->applied);
  }
  auto store = open();
  EXPECT_EQ((*store)->stats().live_keys, 5000u);
  EXPECT_TRUE((*ask_now(**store, FindKey{"scope2500"})));
}

TEST(KeyIndexTest, every_row_of_a_hash_is_found_the_newest_first) {
  KeyIndex index;
  for (std::uint64_t seq = 1; seq <= 30; ++seq) index.insert({77, seq});
  std::vector<std::uint64_t> found;
  index.find(77, found);
  ASSERT_EQ(found.size(), 30u);
  EXPECT_EQ(found.front(), 30u);
  EXPECT_EQ(found.back(), 1u);
}

// The hash has no secret: whoever may choose keys can make many of one hash.
TEST_F(Sqlite, IDEM_1_keys_forged_to_share_a_hash_hide_no_other) {
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ull;
  const auto forged = [](std::uint64_t first) {
    const Uint128 wide = static_cast<Uint128>((16 * kMultiplier) ^ first) * kMultiplier;
    const std::uint64_t second = static_cast<std::uint64_t>(wide) ^ static_cast<std::uint64_t>(wide >> 64);
    Bytes scope(16, '\0');
    std::memcpy(scope.data(), &first, 8);
    std::memcpy(scope.data() + 8, &second, 8);
    return scope;
  };
  const auto put = [&](std::uint64_t which) {
    Commit commit;
    commit.requires_.push_back({KeyFree{forged(which)}, "free"});
    commit.then.emplace_back(KeyPut{{.exchange = {which}, .scope = forged(which), .state = KeyState::completed,
                                     .reply = "reply" + std::to_string(which)},
                                    std::chrono::hours(1)});
    return commit;
  };
  ASSERT_EQ(KeyIndex::hash_of(forged(1)), KeyIndex::hash_of(forged(2))) << "the hash has changed: forge it otherwise";
  auto store = open();
  for (std::uint64_t i = 1; i <= 40; ++i) ASSERT_TRUE(commit_and_wait(**store, put(i))->applied) << i;
  for (std::uint64_t i = 1; i <= 40; ++i) {
    EXPECT_FALSE(commit_and_wait(**store, put(i))->applied) << "key " << i << " would run twice";
    const auto found = ask_now(**store, FindKey{forged(i)});
    ASSERT_TRUE(found && *found) << i;
    EXPECT_EQ((*found)->reply, "reply" + std::to_string(i));
  }
}

TEST(KeyIndexTest, agrees_with_a_naive_model_under_random_inserts_and_erases) {
  KeyIndex index;
  sim::SimRandom random(7);
  std::multimap<std::uint64_t, std::uint64_t> model;
  std::vector<std::uint64_t> seqs;
  for (std::uint64_t step = 1; step <= 200'000; ++step) {
    const std::uint64_t hash = (random.below(5000) * 0x9E3779B97F4A7C15ull) | 1;
    if (model.count(hash) < 3 && random.one_in(2)) {
      index.insert({hash, step});
      model.emplace(hash, step);
    } else if (const auto found = model.find(hash); found != model.end()) {
      index.erase({hash, found->second});
      model.erase(found);
    }
    index.find(hash, seqs);
    ASSERT_EQ(seqs.size(), model.count(hash)) << "step " << step;
  }
  EXPECT_EQ(index.size(), model.size());
}

// Found by the crash campaign, as a SIGSEGV of a server that was asked to stop.
TEST_F(Sqlite, what_is_submitted_or_asked_while_it_closes_is_answered_exactly_once) {
  for (int round = 0; round < 40; ++round) {
    auto store = open({.path = rig.folder.file("race" + std::to_string(round % 4) + ".db")});
    ASSERT_TRUE(store) << store.error().to_string();
    struct Counted : PendingCommit {
      std::atomic<int> answers{0};
    };
    constexpr int kThreads = 3, kEach = 300;
    std::vector<Counted> commits(kThreads * kEach);
    std::atomic<int> answered{0}, asked{0};
    static std::atomic<int>* count;
    count = &answered;
    {
      std::vector<Thread> threads;
      for (int t = 0; t < kThreads; ++t)
        threads.emplace_back("poster", [&, t] {
          for (int i = 0; i < kEach; ++i) {
            auto& one = commits[static_cast<std::size_t>(t * kEach + i)];
            one.commit.then = {KvAdd{{"app", "c", "row"}, 1}};
            one.run = [](Job* job) noexcept {
              ++static_cast<Counted*>(static_cast<PendingCommit*>(job))->answers;
              ++*count;
            };
            (*store)->submit(one);
            PendingQuery query;
            query.query = GetRows{{{"app", "c", "row"}}};
            query.run = [](Job*) noexcept {};
            if ((*store)->ask(query)) ++asked;
          }
        });
      while (answered < round * 10) {
      }
      (*store)->close();
    }  // the threads have ended
    EXPECT_EQ(answered, kThreads * kEach);
    EXPECT_EQ(asked, kThreads * kEach);
    int applied = 0;
    for (const auto& one : commits) {
      ASSERT_EQ(one.answers, 1);
      if (one.outcome && one.outcome->applied)
        ++applied;
      else
        EXPECT_EQ(one.outcome.error().code(), "store_closed");
    }
    (*store).reset();
    auto again = open({.path = rig.folder.file("race" + std::to_string(round % 4) + ".db")});
    const auto rows = ask_now(**again, GetRows{{{"app", "c", "row"}}});
    static std::array<int, 4> total;
    total[static_cast<std::size_t>(round % 4)] += applied;
    EXPECT_EQ(rows->at(0) ? rows->at(0)->number : 0, total[static_cast<std::size_t>(round % 4)]);
  }
}

}  // namespace
}  // namespace sluice::store
