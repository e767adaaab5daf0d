// One suite for every backend: a store over a clock that tests move by hand.
#pragma once
#include <gtest/gtest.h>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/store.hpp"
#include "sluice/store/memory.hpp"
#include "sluice/store/postgres.hpp"
#include "sluice/store/sqlite.hpp"
#include "support/private_postgres.hpp"
#include "support/temp_folder.hpp"

namespace sluice::store {

enum class Backend { memory, sqlite, postgres };

inline std::string backend_name(const testing::TestParamInfo<Backend>& info) {
  constexpr const char* kNames[] = {"memory", "sqlite", "postgres"};
  return kNames[static_cast<int>(info.param)];
}

/// Threads and parks in real time; the store's own time is the virtual clock's.
struct StoreRig {
  sim::SimClock clock;
  RealClock real;
  RealExecutor executor{real};
  sim::SimRandom random{1};
  testing_support::TempFolder folder;
  std::string database;  // of PostgreSQL, once one was needed

  PostgresOptions postgres() {
    auto& server = testing_support::PrivatePostgres::shared();
    if (database.empty()) database = server.new_database();
    PostgresOptions options;
    options.url = server.socket_url(database);
    options.lazy_delay = milliseconds(0);
    options.clock = &clock;
    return options;
  }

  std::unique_ptr<Store> open(Backend backend) {
    if (backend == Backend::memory) return make_memory_store(clock, random);
    if (backend == Backend::postgres) {
      auto store = open_postgres_store(postgres(), real, random, executor);
      if (!store) throw std::runtime_error(store.error().to_string());
      return std::move(*store);
    }
    SqliteOptions options;
    options.path = folder.file("store.db");
    options.lazy_delay = milliseconds(0);
    auto store = open_sqlite_store(std::move(options), clock, random, executor);
    if (!store) throw std::runtime_error(store.error().to_string());
    return std::move(*store);
  }
};

inline KvKey at(std::string key) { return {"app", "things", std::move(key)}; }
inline Requirement needs(Precondition what, std::string name, int otherwise = -1) {
  return {std::move(what), std::move(name), otherwise};
}

class StoreConformance : public testing::TestWithParam<Backend> {
 protected:
  StoreRig rig;
  std::unique_ptr<Store> store = rig.open(GetParam());

  CommitOutcome must(Commit commit) {
    auto outcome = commit_and_wait(*store, std::move(commit));
    EXPECT_TRUE(outcome) << (outcome ? "" : outcome.error().to_string());
    return outcome.value_or(CommitOutcome{.applied = false});
  }
  std::optional<KvRow> row(const std::string& key) {
    auto rows = ask_now(*store, GetRows{{at(key)}});
    EXPECT_TRUE(rows) << rows.error().to_string();
    return rows->at(0);
  }
};

/// One embedded database in a folder of its own, opened as often as a test likes.
class SqliteFixture : public testing::Test {
 protected:
  StoreRig rig;
  Result<std::unique_ptr<SqliteStore>> open(SqliteOptions options = {}) {
    if (options.path.empty()) options.path = rig.folder.file("store.db");
    return open_sqlite_store(std::move(options), rig.clock, rig.random, rig.executor);
  }
  static Commit keyed(int n) {
    const auto id = static_cast<std::uint64_t>(n) + 1;
    return {.requires_ = {needs(KeyFree{"scope" + std::to_string(n)}, "key")},
            .then = {KeyPut{{.exchange = {id}, .scope = "scope" + std::to_string(n), .state = KeyState::completed,
                             .reply = "reply" + std::to_string(n)}, std::chrono::hours(1)}}};
  }
};

}  // namespace sluice::store
