// A connection that is lost at the worst instant; a server that stops, refuses, restarts, fills, goes back in time.
#include "store/postgres_fixture.hpp"
#include "support/tcp_peer.hpp"

namespace sluice::store {
namespace {

using testing_support::PrivatePostgres;
using namespace std::string_literals;

// A trigger that runs inside COMMIT holds it open for as long as the test wants.
TEST_F(Postgres, NODE_6_a_commit_whose_answer_was_lost_is_settled_by_asking) {
  auto watcher = must_open(options());
  sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;"
      "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON sluice.kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
      "WHEN (NEW.key LIKE 'slow%'::bytea) EXECUTE FUNCTION slow()");
  test::TcpPeer wire({}, server.port());
  auto o = options();
  o.url = server.tcp_url(rig.database, wire.port());
  auto store = must_open(o);
  const auto in_commit = [&] {
    while (sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'") == "0")
      Parker().park(milliseconds(10));
  };
  {  // The server goes on and commits; only the answer is lost.
    Burst lost;
    lost.submit(*store, put("slow one"));
    in_commit();
    wire.cut();
    lost.done();
    EXPECT_EQ(lost.applied(), 1u) << lost.all[0].outcome.error().to_string();
    EXPECT_TRUE(there(*watcher, "slow one"));
  }
  {  // The server ends the session instead: nothing is there, for certain, so it is written again.
    Burst lost;
    lost.submit(*store, put("slow two"));
    in_commit();
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    lost.done();
    ASSERT_TRUE(lost.all[0].outcome) << lost.all[0].outcome.error().to_string();
    const auto row = ask_now(*watcher, GetRows{{at("slow two")}})->at(0);
    ASSERT_TRUE(row);
    EXPECT_EQ(row->version, 1u) << "once";
  }
  ASSERT_TRUE(commit_and_wait(*store, put("after")));
}

TEST_F(Postgres, NODE_6_a_commit_that_cannot_be_settled_is_unknown_and_never_said_to_be_refused) {
  auto watcher = must_open(options());
  slow_inserts("0.5");
  test::TcpPeer wire({}, server.port());
  auto o = options();
  o.url = server.tcp_url(rig.database, wire.port());
  o.io_timeout = milliseconds(200);
  o.connect_timeout = milliseconds(200);
  o.settle_timeout = milliseconds(300);
  auto store = must_open(o);
  Burst lost;
  lost.submit(*store, put("a"));
  while (sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "0") Parker().park(milliseconds(10));
  wire.hold(true);  // half open: nothing comes, nothing breaks
  lost.done();
  ASSERT_FALSE(lost.all[0].outcome);
  EXPECT_EQ(lost.all[0].outcome.error().kind(), FailureKind::unknown_outcome);
  ASSERT_FALSE(store->health());
  EXPECT_EQ(store->health().error().kind(), FailureKind::unavailable) << "no restart mends it";
  // Another Commit meets the same wire, but nothing of it was sent.
  auto second = commit_and_wait(*store, put("b"));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind(), FailureKind::unavailable) << second.error().to_string();
  sql("DROP TRIGGER slow ON sluice.kv");
  wire.hold(false);
  wire.cut();
  while (!wire.has_cut()) Parker().park(milliseconds(5));
  auto third = commit_and_wait(*store, put("c"));
  for (int i = 0; i < 50 && !third; ++i) {
    Parker().park(milliseconds(100));
    third = commit_and_wait(*store, put("c"));
  }
  EXPECT_TRUE(third) << third.error().to_string();
  EXPECT_FALSE(there(*watcher, "b"));
}

TEST_F(Postgres, NODE_6_cut_at_any_instant_every_answer_is_true) {
  auto watcher = must_open(options());
  test::TcpPeer wire({}, server.port());
  auto o = options();
  o.url = server.tcp_url(rig.database, wire.port());
  auto store = must_open(o);
  Burst burst;
  for (int i = 0; i < 400; ++i) {
    burst.submit(*store, put("k" + std::to_string(i)));
    if (i % 20 == 7) wire.cut();
    if (i % 5 == 0) Parker().park(microseconds(static_cast<std::int64_t>(rig.random.next() % 3000)));
  }
  burst.done();
  std::size_t refused = 0;
  for (std::size_t i = 0; i < burst.all.size(); ++i) {
    const auto& outcome = burst.all[i].outcome;
    if (!outcome && outcome.error().kind() == FailureKind::unknown_outcome) continue;
    refused += outcome ? 0 : 1;
    EXPECT_EQ(outcome.has_value(), there(*watcher, "k" + std::to_string(i))) << i;
  }
  EXPECT_LT(refused, 400u);
}

TEST_F(Postgres, NODE_6_a_restarted_server_is_found_again_and_callers_are_told_meanwhile) {
  PrivatePostgres own;
  auto o = options_on(own);
  auto store = must_open(o);
  ASSERT_TRUE(commit_and_wait(*store, put("before")));
  own.stop(SIGQUIT);
  auto outcome = commit_and_wait(*store, put("during"));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind(), FailureKind::unavailable) << outcome.error().to_string();
  EXPECT_TRUE(outcome.error().retry_after());
  EXPECT_FALSE(store->health());
  EXPECT_FALSE(ask_now(*store, GetRows{{at("before")}}));
  own.restart();
  for (int i = 0; i < 100 && !store->health(); ++i) Parker().park(milliseconds(50));
  EXPECT_TRUE(store->health()) << "an idle store finds out by itself";
  EXPECT_TRUE(commit_and_wait(*store, put("after")));
  EXPECT_TRUE(there(*store, "before"));
  EXPECT_FALSE(there(*store, "during"));
}

TEST_F(Postgres, NODE_6_a_stopped_session_costs_its_callers_a_bounded_time) {
  auto o = options();
  o.io_timeout = milliseconds(300);
  o.settle_timeout = milliseconds(700);
  auto store = must_open(o);
  auto other = must_open(options());
  ASSERT_TRUE(commit_and_wait(*store, put("a")));
  const auto pid = static_cast<pid_t>(std::stol(sql("SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' ORDER BY query_start LIMIT 1")));
  ::kill(pid, SIGSTOP);
  const Instant begun = rig.real.now();
  auto outcome = commit_and_wait(*store, put("b"));
  EXPECT_LT(rig.real.now() - begun, seconds(5));
  EXPECT_TRUE(commit_and_wait(*other, put("c"))) << "another node goes on";
  ::kill(pid, SIGCONT);
  if (!outcome && outcome.error().kind() == FailureKind::unavailable) EXPECT_FALSE(there(*other, "b"));
  for (int i = 0; i < 50 && !commit_and_wait(*store, put("d")); ++i) Parker().park(milliseconds(100));
  EXPECT_TRUE(there(*store, "d"));
}

TEST_F(Postgres, NODE_6_a_full_disk_refuses_tells_health_and_goes_on_when_there_is_room) {
  auto store = must_open(options());
  sql("CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100', "
      "MESSAGE = 'could not extend file: No space left on device'; END $$;"
      "CREATE TRIGGER full_disk BEFORE INSERT ON sluice.kv EXECUTE FUNCTION full_disk()");
  auto outcome = commit_and_wait(*store, put("a"));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind(), FailureKind::unavailable);
  EXPECT_EQ(outcome.error().code(), "disk_full");
  ASSERT_FALSE(store->health());
  sql("DROP TRIGGER full_disk ON sluice.kv");
  EXPECT_TRUE(commit_and_wait(*store, put("a")));
  EXPECT_TRUE(store->health());
}

TEST_F(Postgres, NODE_6_health_stays_bad_while_the_database_is_gone_however_long_an_attempt_takes) {
  PrivatePostgres own;
  auto store = open_postgres_store(options_on(own), rig.clock, rig.random, rig.executor);
  ASSERT_TRUE(store) << store.error().to_string();
  own.stop(SIGQUIT);
  EXPECT_FALSE(commit_and_wait(**store, put("during")));
  for (int i = 0; i < 20; ++i) {
    ASSERT_FALSE((*store)->health()) << i;
    rig.clock.advance(seconds(6));  // nothing has been answered meanwhile
  }
  own.restart();
  for (int i = 0; i < 200 && !(*store)->health(); ++i) {
    rig.clock.advance(milliseconds(250));
    Parker().park(milliseconds(25));
  }
  EXPECT_TRUE((*store)->health());
}

TEST_F(Postgres, NODE_6_a_disk_stays_full_until_something_is_written_and_health_tries_that_itself) {
  auto opened = open_postgres_store(options(), rig.clock, rig.random, rig.executor);
  ASSERT_TRUE(opened) << opened.error().to_string();
  PostgresStore& store = **opened;
  sql("CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100', "
      "MESSAGE = 'could not extend file: No space left on device'; END $$;"
      "CREATE TRIGGER full_disk BEFORE INSERT ON sluice.kv EXECUTE FUNCTION full_disk()");
  EXPECT_EQ(commit_and_wait(store, put("a")).error().code(), "disk_full");
  EXPECT_TRUE(commit_and_wait(store, {})) << "it has nothing to write";
  // The lease is renewed meanwhile: its row is there already.
  const auto renewed = [&] { return sql("SELECT max(at) FROM sluice.writers"); };
  const std::string before = renewed();
  for (int i = 0; i < 200 && renewed() == before; ++i) {
    rig.clock.advance(milliseconds(250));
    Parker().park(milliseconds(10));
  }
  EXPECT_NE(renewed(), before);
  EXPECT_FALSE(store.health());
  sql("DROP TRIGGER full_disk ON sluice.kv");
  for (int i = 0; i < 200 && !store.health(); ++i) {
    rig.clock.advance(milliseconds(500));
    Parker().park(milliseconds(10));
  }
  EXPECT_TRUE(store.health()) << "nobody else has written";
}

TEST_F(Postgres, a_row_that_cannot_be_stored_is_refused_alone) {
  auto store = must_open(options());
  Burst burst;
  burst.submit(*store, put("good"));
  burst.submit(*store, put(std::string(5000, 'x')));
  burst.submit(*store, put("nul\0and \xff byte"s));
  burst.submit(*store, put("better"));
  burst.done();
  EXPECT_EQ(burst.applied(), 3u);
  EXPECT_EQ(burst.all[1].outcome.error().code(), "key_too_long");
  EXPECT_TRUE(there(*store, "nul\0and \xff byte"s));
  // And what only the database finds out.
  sql("ALTER TABLE sluice.kv ADD CONSTRAINT odd CHECK (key <> 'odd'::bytea)");
  Burst second;
  for (const char* key : {"one", "odd", "two"}) second.submit(*store, put(key));
  second.done();
  EXPECT_EQ(second.applied(), 2u);
  EXPECT_FALSE(second.all[1].outcome);
}

TEST_F(Postgres, NODE_8_a_database_that_went_back_in_time_is_noticed_and_not_written_to) {
  PrivatePostgres own;
  auto o = options_on(own);
  auto store = must_open(o);
  ASSERT_TRUE(commit_and_wait(*store, put("a")));
  const std::string last = own.sql("SELECT last FROM sluice.writers", "d");
  ASSERT_TRUE(commit_and_wait(*store, put("b")));
  // As a restore to the point before b would leave it.
  own.sql("UPDATE sluice.writers SET last = " + last + "; DELETE FROM sluice.kv WHERE key = 'b'", "d");
  own.crash_and_restart();
  Result<CommitOutcome> outcome = CommitOutcome{};
  for (int i = 0; i < 50 && (outcome || outcome.error().code() != "database_went_back"); ++i) outcome = commit_and_wait(*store, put("c"));
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code(), "database_went_back");
  EXPECT_FALSE(store->health());
  const auto before = must_open(o)->incarnation();
  const std::string live = "UPDATE sluice.writers SET expires_at = sluice.now_ms() + 100000 WHERE node = 1";
  own.sql(live, "d");
  const auto alive = migrate_postgres_database(o, rig.random, true);
  ASSERT_FALSE(alive);
  EXPECT_EQ(alive.error().code(), "nodes_alive");
  EXPECT_NE(alive.error().detail().find("nodes 1 live"), std::string_view::npos) << alive.error().to_string();
  EXPECT_EQ(must_open(o)->incarnation(), before);
  own.sql("UPDATE sluice.writers SET expires_at = 0", "d");
  ASSERT_TRUE(migrate_postgres_database(o, rig.random, true));
  EXPECT_NE(must_open(o)->incarnation(), before) << "tokens of the lost time do not fit the new one";
}

TEST(PostgresAddress, NODE_6_a_password_is_in_no_message) {
  EXPECT_EQ(without_password("postgres://u:p@ss@h:5432/d?sslmode=require"), "postgres://u:***@h:5432/d?sslmode=require");
  EXPECT_EQ(without_password("postgres://u@h/d?password=secret&x=1"), "postgres://u@h/d?password=***&x=1");
  EXPECT_EQ(without_password("postgres://u:a/b@h/d"), "postgres://u:***@h/d");
  EXPECT_EQ(without_password("host=h password='a b' user=u"), "host=h password=*** user=u");
  EXPECT_EQ(without_password("postgres://u@h:1/d"), "postgres://u@h:1/d");
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  PostgresOptions o;
  for (const char* url : {"postgres://u:hunter2@127.0.0.1:1/d", "postgres://u:hunter2@127.0.0.1:x1/d", "postgres://u:hunter2@[::1/d"}) {
    o.url = url;
    const auto opened = open_postgres_store(o, clock, random, executor);
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().to_string().find("hunter2"), std::string::npos) << opened.error().to_string();
    EXPECT_EQ(opened.error().to_string().find("it will be tried again"), std::string::npos) << "nobody does";
  }
}

}  // namespace
}  // namespace sluice::store
