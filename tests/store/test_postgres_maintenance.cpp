// What whoever runs the database does in the middle of the work: rows that move, tables and rows that are locked, waits
// for a standby that are cut short.
#include "store/postgres/connection.hpp"
#include "store/postgres_fixture.hpp"
#include "support/tcp_peer.hpp"

namespace sluice::store {
namespace {

// Called between fetching rows and writing them. Once: a group that is evaluated again has the table.
class Meanwhile final : public Expander {
 public:
  explicit Meanwhile(std::function<void()> what) : what_(std::move(what)) {}
  Status expand(const std::vector<Mutation>&, std::vector<Mutation>&) override {
    if (what_) std::exchange(what_, nullptr)();
    return {};
  }

 private:
  std::function<void()> what_;
};

class PostgresMaintenance : public Postgres {
 protected:
  std::unique_ptr<PgConnection> session(const PostgresOptions& o, const char* begun) {
    auto connection = PgConnection::open(o);
    if (!connection) throw std::runtime_error(connection.error().to_string());
    EXPECT_TRUE((*connection)->script(begun));
    return std::move(*connection);
  }
  static Bytes scope(int i) { return "scope" + std::to_string(1000 + i); }
  static KeyPut key(int i, const char* reply) {
    KeyPut put;
    put.row.exchange = {static_cast<std::uint64_t>(i) + 1};
    put.row.scope = scope(i);
    put.row.state = KeyState::completed;
    put.row.reply = reply;
    put.ttl = std::chrono::hours(1);
    return put;
  }
  /// Rows of one transaction, of which the first by place is gone: what is moved together takes its neighbour's place.
  void fill(Store& store) {
    Commit many;
    for (int i = 0; i < 100; ++i) {
      many.then.push_back(KvPut{at("k" + std::to_string(1000 + i)), "v", i});
      many.then.push_back(key(i, "old"));
    }
    ASSERT_TRUE(commit_and_wait(store, std::move(many)));
    for (const char* table : {"kv", "keys"}) {
      const std::string name = std::string("sluice.") + table;
      sql("DELETE FROM " + name + " WHERE ctid = (SELECT min(ctid) FROM " + name + ")");
    }
  }
};

TEST_F(PostgresMaintenance, G1_a_row_that_was_moved_is_not_taken_for_its_neighbour) {
  for (const char* maintenance : {"VACUUM FULL", "CLUSTER"}) {
    SCOPED_TRACE(maintenance);
    const bool cluster = std::string_view(maintenance) == "CLUSTER";
    const auto move = [&](const char* table, const char* index) {
      sql(std::string(maintenance) + " sluice." + table + (cluster ? std::string(" USING ") + index : ""));
    };
    const auto o = options();
    sql("DROP SCHEMA IF EXISTS sluice CASCADE");
    auto store = must_open(o);
    fill(*store);
    Meanwhile meanwhile([&] {
      move("kv", "kv_pkey");
      move("keys", "keys_pkey");
    });
    store->set_expander(&meanwhile);
    ASSERT_TRUE(commit_and_wait(*store, {.then = {KvPut{at("k1050"), "changed", 7777}, KvDelete{at("k1060")}, key(50, "changed"),
                                                  KeyDelete{scope(60)}}}));
    store->set_expander(nullptr);
    EXPECT_EQ(sql("SELECT string_agg(encode(key, 'escape'), ',') FROM sluice.kv WHERE number = 7777 OR value = 'changed'"), "k1050");
    EXPECT_EQ(sql("SELECT count(*) FROM sluice.kv WHERE number <> 7777 AND 'k' || (1000 + number) <> encode(key, 'escape')"), "0");
    EXPECT_EQ(sql("SELECT count(*) FROM sluice.kv"), "98");
    EXPECT_FALSE(there(*store, "k1060"));
    EXPECT_EQ(sql("SELECT string_agg(encode(scope, 'escape'), ',') FROM sluice.keys WHERE reply = 'changed'"), "scope1050");
    EXPECT_EQ(sql("SELECT count(*) FROM sluice.keys"), "98");
    EXPECT_EQ(sql("SELECT count(*) FROM sluice.keys WHERE scope = 'scope1060'"), "0");
    EXPECT_GT(store->stats().repeated, 0u) << "it has been evaluated again";
  }
}

TEST_F(PostgresMaintenance, G7_a_row_that_somebody_holds_keeps_only_those_who_want_it) {
  auto store = must_open(options());
  ASSERT_TRUE(commit_and_wait(*store, put("held")));
  auto holder = session(options(), "BEGIN; SELECT 1 FROM sluice.kv FOR UPDATE");
  for (int round = 0; round < 3; ++round) {
    Burst burst;
    burst.submit(*store, put("held"));
    for (int i = 0; i < 6; ++i) burst.submit(*store, put(std::to_string(round) + "-" + std::to_string(i)));
    burst.done();
    EXPECT_EQ(burst.applied(), 6u);
    ASSERT_FALSE(burst.all[0].outcome);
    EXPECT_EQ(burst.all[0].outcome.error().code(), "database_busy") << burst.all[0].outcome.error().to_string();
    EXPECT_TRUE(burst.all[0].outcome.error().retry_after());
  }
  EXPECT_TRUE(store->health()) << "it writes";
  ASSERT_TRUE(holder->script("ROLLBACK"));
  EXPECT_TRUE(commit_and_wait(*store, put("held")));
}

// Written one after the other, they meet a database that is away for longer than a lost COMMIT is asked after, and
// back before the last of them.
TEST_F(PostgresMaintenance, G1_what_is_written_apart_while_the_database_goes_and_comes_is_told_as_it_is) {
  auto watcher = must_open(options());
  ASSERT_TRUE(commit_and_wait(*watcher, put("held")));
  auto holder = session(options(), "BEGIN; SELECT 1 FROM sluice.kv FOR UPDATE");
  slow_inserts("0.02");
  test::TcpPeer wire({}, server.port());
  auto o = options();
  o.url = server.tcp_url(rig.database, wire.port());
  o.io_timeout = milliseconds(600);
  o.connect_timeout = milliseconds(200);
  o.settle_timeout = milliseconds(300);
  auto store = must_open(o);
  const auto written = [&] { return std::stoi(sql("SELECT count(*) FROM sluice.kv")); };
  const int before = written();
  Burst burst, first;
  first.submit(*store, put("first"));  // while it is written the others come together: one group
  burst.submit(*store, put("held"));
  for (int i = 0; i < 40; ++i) burst.submit(*store, put("k" + std::to_string(i)));
  for (int i = 0; i < 1000 && written() < before + 6; ++i) Parker().park(milliseconds(5));
  wire.hold(true);
  Parker().park(milliseconds(1800));  // asked after in vain, and some connections tried
  wire.cut(true);
  first.done();
  burst.done();
  std::size_t told = 0;
  for (int i = 0; i < 40; ++i) {
    const auto& outcome = burst.all[static_cast<std::size_t>(i) + 1].outcome;
    told += outcome ? 1 : 0;
    if (!outcome && outcome.error().kind() == FailureKind::unknown_outcome) continue;
    EXPECT_EQ(outcome.has_value(), there(*watcher, "k" + std::to_string(i))) << i << (outcome ? "" : outcome.error().to_string());
  }
  EXPECT_GE(told, 5u);
  EXPECT_LT(told, 40u) << "the wire was cut too late";
}

TEST_F(PostgresMaintenance, NODE_6_a_locked_table_keeps_no_sessions_that_nobody_waits_for) {
  auto o = options();
  o.io_timeout = seconds(5);
  o.max_readers = 1;
  auto store = must_open(o);
  ASSERT_TRUE(commit_and_wait(*store, {.then = {key(1, "r")}}));
  ASSERT_TRUE(ask_now(*store, FindKey{scope(1)}));
  auto holder = session(options(), "BEGIN; LOCK TABLE sluice.keys IN ACCESS EXCLUSIVE MODE");
  const auto sessions = [&] { return sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); };
  const std::string before = sessions();
  Burst burst;
  burst.submit(*store, {.then = {key(1, "s")}});
  const auto found = ask_now(*store, FindKey{scope(1)});
  burst.done();
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code(), "database_busy") << found.error().to_string();
  ASSERT_FALSE(burst.all[0].outcome);
  EXPECT_EQ(burst.all[0].outcome.error().code(), "database_busy") << burst.all[0].outcome.error().to_string();
  EXPECT_EQ(sessions(), before);
  ASSERT_TRUE(holder->script("ROLLBACK"));
  EXPECT_TRUE(ask_now(*store, FindKey{scope(1)}));
  EXPECT_TRUE(commit_and_wait(*store, {.then = {key(1, "t")}}));
}

TEST_F(PostgresMaintenance, NODE_3_a_locked_table_costs_a_living_node_no_lease) {
  auto o = options();
  o.lease = milliseconds(1500);
  auto store = must_open(o), other = must_open(o);
  const auto epochs = [&] { return sql("SELECT string_agg(writer || ' ' || epoch, ',' ORDER BY writer) FROM sluice.writers"); };
  const std::string before = epochs();
  auto holder = session(options(), "BEGIN; LOCK TABLE sluice.keys IN SHARE MODE");  // as CREATE INDEX takes
  for (int round = 0; round < 4; ++round) {
    Burst burst;
    for (int i = 0; i < 8; ++i) burst.submit(*store, {.then = {key(round * 8 + i, "r")}});
    burst.done();
    EXPECT_EQ(burst.applied(), 0u);
  }
  EXPECT_EQ(epochs(), before) << "it never stood still";
  ASSERT_TRUE(holder->script("ROLLBACK"));
  EXPECT_TRUE(commit_and_wait(*store, {.then = {key(1, "r")}}));
}

class PostgresGhost : public PostgresMaintenance {
 protected:
  testing_support::PrivatePostgres own;
  PostgresOptions o = [this] {
    auto made = options_on(own);
    made.io_timeout = milliseconds(700);
    made.settle_timeout = milliseconds(700);
    made.connect_timeout = milliseconds(700);
    return made;
  }();
  std::unique_ptr<PostgresStore> store = must_open(o);
  void lose_the_standby() {
    own.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'", "template1");
    own.sql("SELECT pg_reload_conf()", "template1");
    for (int i = 0; i < 400 && own.sql("SHOW synchronous_standby_names", "d") != "gone"; ++i) Parker().park(milliseconds(10));
  }
  /// Ends, with this function, whatever waits for the standby inside COMMIT, until it is over.
  void cut_waits(Burst& burst, const std::string& function) {
    for (int i = 0; i < 400 && burst.left.load() != 0; ++i, Parker().park(milliseconds(10)))
      (void)own.sql("SELECT count(" + function + "(pid)) FROM pg_stat_activity WHERE datname = 'd' AND wait_event = 'SyncRep'", "template1");
    burst.done();
  }
};

TEST_F(PostgresGhost, NODE_5_G1_what_no_standby_has_is_not_said_to_be_durable_whoever_ends_the_wait) {
  // As quiet as a role may have made it.
  own.sql("ALTER ROLE sluice SET client_min_messages = error", "template1");
  own.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'd'", "template1");
  for (int i = 0; i < 200 && !commit_and_wait(*store, put("before")); ++i) Parker().park(milliseconds(50));
  for (const char* function : {"pg_cancel_backend", "pg_terminate_backend"}) {
    SCOPED_TRACE(function);
    // Of new sessions alone: settling must wait for the standby whatever the default is.
    own.sql("ALTER DATABASE d SET synchronous_commit = local", "template1");
    lose_the_standby();
    Burst burst;
    burst.submit(*store, put(function));
    cut_waits(burst, function);
    EXPECT_FALSE(burst.all[0].outcome) << "a failover would take it back";
    if (!burst.all[0].outcome) EXPECT_EQ(burst.all[0].outcome.error().kind(), FailureKind::unknown_outcome);
    const Status health = store->health();
    ASSERT_FALSE(health);
    EXPECT_EQ(health.error().kind(), FailureKind::unavailable) << "no restart mends it: " << health.error().to_string();
    EXPECT_TRUE(health.error().retry_after());
    own.sql("ALTER SYSTEM RESET synchronous_standby_names", "template1");
    own.sql("SELECT pg_reload_conf()", "template1");
    for (int i = 0; i < 200 && !commit_and_wait(*store, put("after")); ++i) Parker().park(milliseconds(50));
    EXPECT_TRUE(there(*store, function));
  }
}

TEST_F(PostgresGhost, NODE_6_readers_that_wait_for_a_lost_standby_keep_no_sessions) {
  lose_the_standby();
  const auto sessions = [&] { return std::stoi(own.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = 'd' AND pid <> pg_backend_pid()", "template1")); };
  own.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'd'", "template1");
  for (int i = 0; i < 8; ++i) {
    EXPECT_FALSE(ask_now(*store, GetRows{{at("a")}})) << "it may be what no standby has";
    Parker().park(milliseconds(260));  // so that it connects anew
  }
  EXPECT_LE(sessions(), 5) << own.sql("SELECT string_agg(coalesce(wait_event, '') || ' ' || query, '; ') FROM pg_stat_activity WHERE datname = 'd'", "template1");
}

}  // namespace
}  // namespace sluice::store
