// A store on a PostgreSQL of the test's own, and many Commits at once.
#pragma once
#include <algorithm>
#include <atomic>
#include <deque>

#include "store/store_fixture.hpp"

namespace sluice::store {

class Postgres : public testing::Test {
 protected:
  StoreRig rig;
  testing_support::PrivatePostgres& server = testing_support::PrivatePostgres::shared();

  PostgresOptions options() {
    auto o = rig.postgres();
    o.clock = nullptr;
    o.io_timeout = milliseconds(2000);
    return o;
  }
  /// On a server that is this test's to stop, or to set back.
  PostgresOptions options_on(testing_support::PrivatePostgres& own) {
    own.sql("CREATE DATABASE d", "template1");
    auto o = options();
    o.url = own.socket_url("d");
    return o;
  }
  std::unique_ptr<PostgresStore> must_open(PostgresOptions o) {
    auto store = open_postgres_store(std::move(o), rig.real, rig.random, rig.executor);
    if (!store) throw std::runtime_error(store.error().to_string());
    return std::move(*store);
  }
  std::string sql(const std::string& text) { return server.sql(text, rig.database); }
  /// From now on a COMMIT takes so long for each row that it inserted.
  void slow_inserts(const std::string& seconds) {
    sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(" + seconds + "); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON sluice.kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()");
  }
  static Commit put(const std::string& key) { return {.then = {KvPut{at(key), "v", 1}}}; }
  static bool there(Store& store, const std::string& key) {
    const auto rows = ask_now(store, GetRows{{at(key)}});
    EXPECT_TRUE(rows) << (rows ? "" : rows.error().to_string());
    return rows && rows->at(0).has_value();
  }
};

// Submits many Commits without waiting in between; done() waits for all.
struct Burst {
  struct One : PendingCommit {
    Burst* burst = nullptr;
  };
  std::deque<One> all;
  std::atomic<std::size_t> left{0};
  Parker parker;
  void submit(Store& store, Commit commit) {
    One& one = all.emplace_back();
    one.burst = this;
    one.commit = std::move(commit);
    one.run = [](Job* job) noexcept {
      Burst* burst = static_cast<One*>(static_cast<PendingCommit*>(job))->burst;
      if (burst->left.fetch_sub(1) == 1) burst->parker.wake();
    };
    left.fetch_add(1);
    store.submit(one);
  }
  void done() {
    while (left.load() != 0) parker.park(milliseconds(100));
  }
  std::size_t applied() const {
    return static_cast<std::size_t>(std::ranges::count_if(all, [](const One& o) { return o.outcome && o.outcome->applied; }));
  }
};

}  // namespace sluice::store
