// Sessions that the server ends with a FATAL of its own: by an administrator, or because they were idle.
#include "store/postgres_fixture.hpp"

namespace sluice::store {
namespace {

// Commits take a tenth of a second before they are synced. A signal that comes meanwhile finds the COMMIT done:
// the server says so, then that it ends the session.
class PostgresTerminated : public Postgres {
 protected:
  void slow_commits() {
    sql("ALTER DATABASE " + rig.database + " SET commit_delay = 100000");
    sql("ALTER DATABASE " + rig.database + " SET commit_siblings = 0");
  }
  bool ended(const std::string& which) {
    return sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND "
               "pid <> pg_backend_pid() AND " + which) != "0";
  }
};

TEST_F(PostgresTerminated, G3_a_session_ended_inside_its_commit_is_settled_by_asking) {
  auto watcher = must_open(options());
  slow_commits();
  auto store = must_open(options());
  for (int i = 0; i < 5; ++i) {
    const std::string key = "k" + std::to_string(i);
    Burst one;
    one.submit(*store, put(key));
    for (int turn = 0; turn < 400 && one.left.load() != 0 && !ended("query = 'COMMIT' AND state = 'active'"); ++turn)
      Parker().park(milliseconds(5));
    one.done();
    ASSERT_TRUE(one.all[0].outcome) << one.all[0].outcome.error().to_string();
    EXPECT_TRUE(there(*watcher, key));
  }
}

// No keys, which would hide a lie: what is told and what is applied are counted.
TEST_F(PostgresTerminated, G3_under_load_whoever_is_told_that_nothing_took_effect_is_told_the_truth) {
  auto watcher = must_open(options());
  auto store = must_open(options());
  ASSERT_TRUE(commit_and_wait(*watcher, {.then = {KvPut{at("sum"), "", 0}}}));
  Burst burst;
  for (int round = 0; round < 40; ++round) {
    for (int i = 0; i < 10; ++i) {
      burst.submit(*store, {.then = {KvAdd{at("sum"), 1}, KvPut{at(std::to_string(round * 10 + i)), "", 1}}});
      Parker().park(microseconds(static_cast<std::int64_t>(rig.random.next() % 2000)));
    }
    (void)ended("query = 'COMMIT'");
  }
  burst.done();
  std::size_t lies = 0, unknown = 0;
  for (std::size_t i = 0; i < burst.all.size(); ++i) {
    const auto& outcome = burst.all[i].outcome;
    if (!outcome && outcome.error().kind() == FailureKind::unknown_outcome)
      ++unknown;
    else
      lies += outcome.has_value() != there(*watcher, std::to_string(i));
  }
  EXPECT_EQ(lies, 0u);
  EXPECT_EQ(unknown, 0u) << "the server was there all the time";
  const auto sum = ask_now(*watcher, GetRows{{at("sum")}})->at(0)->number;
  EXPECT_EQ(sum, static_cast<std::int64_t>(burst.applied()));
}

TEST_F(PostgresTerminated, NODE_6_a_session_that_was_ended_for_being_idle_costs_nobody_anything) {
  auto o = options();
  o.lease = seconds(60);  // no heartbeat meanwhile
  auto store = must_open(o);
  // Longer than a laden machine takes between opening a session and using it.
  sql("ALTER DATABASE " + rig.database + " SET idle_session_timeout = '1s'");
  const auto idle = [&] { return sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); };
  ASSERT_TRUE(ended("true"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(there(*store, "none"));
    const auto written = commit_and_wait(*store, {.then = {AuditAppend{{.ns = "app"}}}});
    EXPECT_TRUE(written) << written.error().to_string();
    EXPECT_TRUE(store->purge(std::chrono::hours(1), 10)) << i;
    bool all_ended = false;
    for (int turn = 0; turn < 2000 && !all_ended; ++turn) {
      Parker().park(milliseconds(5));
      all_ended = idle() == "0";
    }
    EXPECT_TRUE(all_ended);
  }
}

}  // namespace
}  // namespace sluice::store
