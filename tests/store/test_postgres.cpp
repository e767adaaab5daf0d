// What only a shared database can do to a store: other nodes on the same rows, a connection that is
// lost at the worst instant, a server that stops, refuses, restarts.
#include <algorithm>
#include <deque>
#include <set>

#include "store/store_fixture.hpp"
#include "support/tcp_peer.hpp"

namespace sluice::store {
namespace {

using testing_support::PrivatePostgres;
using namespace std::string_literals;

class Postgres : public testing::Test {
 protected:
  StoreRig rig;
  PrivatePostgres& server = PrivatePostgres::shared();

  PostgresOptions options() {
    auto o = rig.postgres();
    o.clock = nullptr;
    o.io_timeout = milliseconds(2000);
    return o;
  }
  std::unique_ptr<PostgresStore> must_open(PostgresOptions o) {
    auto store = open_postgres_store(std::move(o), rig.real, rig.random, rig.executor);
    if (!store) throw std::runtime_error(store.error().to_string());
    return std::move(*store);
  }
  std::string sql(const std::string& text) { return server.sql(text, rig.database); }
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

// A planner that has seen young tables reads them whole for each group, and goes on so while they grow:
// ten times slower.
TEST_F(Postgres, NODE_1_groups_go_by_index_whatever_the_planner_has_seen) {
  const auto scans = [&] {
    return std::stol(sql("SELECT sum(seq_scan) FROM pg_stat_user_tables WHERE schemaname = 'sluice' AND "
                         "relname IN ('kv', 'keys', 'leases', 'open_exchanges', 'journal')"));
  };
  constexpr int kCommits = 50;
  const auto life = [&](bool work) {
    auto store = must_open(options());
    for (int i = 0; work && i < kCommits; ++i) {
      const std::string name = "k" + std::to_string(i);
      Commit commit{.requires_ = {needs(KvAtLeast{at("stock"), 1}, "sold_out"), needs(KeyFree{name}, "held")},
                    .then = {KvAdd{at("stock"), -1}, KvPut{at(name), "sold", {}}}};
      ASSERT_TRUE(commit_and_wait(*store, std::move(commit)));
    }
  };
  { auto store = must_open(options()); ASSERT_TRUE(commit_and_wait(*store, {.then = {KvPut{at("stock"), "", 2 * kCommits}}})); }
  sql("ANALYZE sluice.kv, sluice.keys, sluice.leases, sluice.open_exchanges, sluice.journal");
  // What opening and closing cost is the same both times; the numbers come when a session ends.
  const long before = scans();
  life(false);
  const long idle = scans() - before;
  life(true);
  EXPECT_LT(scans() - before - 2 * idle, kCommits / 5);
}

TEST_F(Postgres, NODE_1_two_nodes_share_one_hot_row_exactly) {
  auto one = must_open(options()), two = must_open(options());
  ASSERT_TRUE(commit_and_wait(*one, {.then = {KvPut{at("stock"), "", 150}}}));
  Burst first, second;
  for (int i = 0; i < 200; ++i) {
    const auto buy = [&](const std::string& who) {
      return Commit{.requires_ = {needs(KvAtLeast{at("stock"), 1}, "sold_out")},
                    .then = {KvAdd{at("stock"), -1}, KvPut{at(who + std::to_string(i)), "sold", {}},
                             EventAppend{{.id = {1u + static_cast<unsigned>(i)}, .ns = "app", .topic = "sold"}}}};
    };
    first.submit(*one, buy("a"));
    second.submit(*two, buy("b"));
  }
  first.done();
  second.done();
  for (const auto* burst : {&first, &second})
    for (const auto& buyer : burst->all) EXPECT_TRUE(buyer.outcome) << buyer.outcome.error().to_string();
  EXPECT_EQ(first.applied() + second.applied(), 150u);
  EXPECT_EQ(ask_now(*two, GetRows{{at("stock")}})->at(0)->number, 0);
  const auto events = *ask_now(*one, ListEvents{"app", 0, 1000});
  ASSERT_EQ(events.size(), 150u);
  for (std::size_t i = 0; i < events.size(); ++i) ASSERT_EQ(events[i].sequence, i + 1) << "numbers have no gaps";
  EXPECT_TRUE(one->integrity_check());
}

TEST_F(Postgres, IDEM_3_of_one_key_on_two_nodes_one_runs_and_the_other_finds_its_reply) {
  auto one = must_open(options()), two = must_open(options());
  Burst first, second;
  const auto complete = [](int key, std::uint64_t exchange, const char* reply) {
    KeyPut row{{.exchange = {exchange}, .scope = "k" + std::to_string(key), .state = KeyState::completed, .reply = reply},
               std::chrono::hours(1)};
    return Commit{.requires_ = {needs(KeyFree{row.row.scope}, "key")}, .then = {std::move(row)}};
  };
  for (int i = 0; i < 100; ++i) {
    first.submit(*one, complete(i, 1000 + static_cast<std::uint64_t>(i), "one"));
    second.submit(*two, complete(i, 2000 + static_cast<std::uint64_t>(i), "two"));
  }
  first.done();
  second.done();
  for (std::size_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(first.all[i].outcome) << first.all[i].outcome.error().to_string();
    ASSERT_TRUE(second.all[i].outcome) << second.all[i].outcome.error().to_string();
    const bool first_won = first.all[i].outcome->applied;
    EXPECT_NE(first_won, second.all[i].outcome->applied) << "key " << i;
    const auto& loser = first_won ? *second.all[i].outcome : *first.all[i].outcome;
    ASSERT_TRUE(loser.key);
    EXPECT_EQ(loser.key->reply, first_won ? "one" : "two");
  }
}

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
  {  // The server ends the session instead: nothing is there, and that is what is said.
    Burst lost;
    lost.submit(*store, put("slow two"));
    in_commit();
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    lost.done();
    ASSERT_FALSE(lost.all[0].outcome);
    EXPECT_EQ(lost.all[0].outcome.error().kind(), FailureKind::unavailable);
    EXPECT_TRUE(lost.all[0].outcome.error().retry_after());
    EXPECT_FALSE(there(*watcher, "slow two"));
  }
  ASSERT_TRUE(commit_and_wait(*store, put("after")));
}

TEST_F(Postgres, NODE_6_a_commit_that_cannot_be_settled_is_unknown_and_never_said_to_be_refused) {
  auto watcher = must_open(options());
  sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;"
      "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON sluice.kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()");
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
  EXPECT_FALSE(store->health());
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
  own.sql("CREATE DATABASE d", "template1");
  auto o = options();
  o.url = own.socket_url("d");
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

TEST_F(Postgres, NODE_3_time_is_the_databases_whatever_the_nodes_clock_says) {
  auto ahead = must_open(options());
  const auto database = std::stoll(sql("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"));
  EXPECT_NEAR(static_cast<double>(ahead->now().time_since_epoch().count()), static_cast<double>(database), 1000.0);
  struct Wrong final : Clock {
    RealClock real;
    Instant now() noexcept override { return real.now() + std::chrono::hours(5); }
    WallTime wall() noexcept override { return real.wall() + std::chrono::hours(24 * 365); }
  } wrong;
  auto opened = open_postgres_store(options(), wrong, rig.random, rig.executor);
  ASSERT_TRUE(opened);
  EXPECT_NEAR(static_cast<double>((*opened)->now().time_since_epoch().count()), static_cast<double>(database), 5000.0);
  // A lease taken by one is seen as held by the other, for as long as the database says.
  const auto take = [](Store& store, const char* owner) {
    return commit_and_wait(store, {.requires_ = {needs(LeaseFree{"sweep", owner}, "lease")},
                                   .then = {LeaseTake{"sweep", owner, milliseconds(60'000)}}});
  };
  EXPECT_TRUE(take(**opened, "wrong")->applied);
  EXPECT_FALSE(take(*ahead, "right")->applied);
}

TEST_F(Postgres, NODE_3_a_node_that_stood_still_is_fenced_by_the_lease_another_took) {
  auto frozen = must_open(options()), awake = must_open(options());
  const auto take = [](Store& store, const char* owner, milliseconds ttl) {
    return commit_and_wait(store, {.requires_ = {needs(LeaseFree{"x", owner}, "lease")}, .then = {LeaseTake{"x", owner, ttl}}});
  };
  const auto mine = take(*frozen, "frozen", milliseconds(150));
  ASSERT_TRUE(mine && mine->applied);
  Parker().park(milliseconds(200));
  const auto theirs = take(*awake, "awake", seconds(60));
  ASSERT_TRUE(theirs && theirs->applied);
  EXPECT_EQ(theirs->lease->token, mine->lease->token + 1);
  const auto late = commit_and_wait(*frozen, {.requires_ = {needs(Fence{"x", mine->lease->token}, "fence")}, .then = {KvPut{at("late"), "", {}}}});
  ASSERT_TRUE(late);
  EXPECT_FALSE(late->applied);
  EXPECT_FALSE(there(*awake, "late"));
}

ExchangeId made_by(const PostgresStore& store) { return {std::uint64_t{5} << 22 | std::uint64_t{store.node()} << 12}; }

TEST_F(Postgres, NODE_4_FLOW_26_what_a_dead_node_left_is_exactly_one_others) {
  auto o = options();
  o.lease = milliseconds(600);
  test::TcpPeer wire({}, server.port());
  auto cut_off = o;
  cut_off.url = server.tcp_url(rig.database, wire.port());
  cut_off.io_timeout = milliseconds(300);
  cut_off.settle_timeout = milliseconds(300);
  cut_off.connect_timeout = milliseconds(200);
  auto one = must_open(cut_off), two = must_open(o), three = must_open(o);
  EXPECT_EQ(std::set({one->node(), two->node(), three->node()}).size(), 3u) << "numbers are unique among the living";
  const ExchangeId left = made_by(*one);
  EXPECT_TRUE(one->ours(left));
  EXPECT_FALSE(two->ours(left) || three->ours(left));
  ASSERT_TRUE(commit_and_wait(*one, put("before")));
  wire.hold(true);
  for (int i = 0; i < 200 && !(two->ours(left) || three->ours(left)); ++i) Parker().park(milliseconds(20));
  for (int i = 0; i < 20; ++i) {
    EXPECT_NE(two->ours(left), three->ours(left)) << "one has adopted it, and keeps it";
    Parker().park(milliseconds(20));
  }
  EXPECT_FALSE(one->ours(left)) << "who cannot renew the lease does not count on it";
  auto& adopter = two->ours(left) ? two : three;
  auto& other = two->ours(left) ? three : two;
  adopter->close();
  for (int i = 0; i < 200 && !other->ours(left); ++i) Parker().park(milliseconds(20));
  EXPECT_TRUE(other->ours(left)) << "and when that one goes too, the next";
  wire.hold(false);
  wire.cut();
  for (int i = 0; i < 200 && !one->ours(left); ++i) Parker().park(milliseconds(20));
  EXPECT_TRUE(one->ours(left)) << "back with its number, it has its own again";
  for (int i = 0; i < 100 && other->ours(left); ++i) Parker().park(milliseconds(20));
  EXPECT_FALSE(other->ours(left));
  EXPECT_TRUE(commit_and_wait(*one, put("after")));
}

// The group was on its way when another node took over: it must not be written.
TEST_F(Postgres, NODE_3_a_group_of_a_node_that_was_taken_over_is_not_written) {
  auto store = must_open(options());
  ASSERT_TRUE(commit_and_wait(*store, put("before")));
  sql("UPDATE sluice.writers SET epoch = epoch + 1, adopter = 7");
  auto late = commit_and_wait(*store, put("late"));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), "node_fenced") << late.error().to_string();
  EXPECT_TRUE(late.error().retryable());
  EXPECT_FALSE(there(*store, "late"));
  EXPECT_TRUE(commit_and_wait(*store, put("after"))) << "it has joined again";
}

TEST_F(Postgres, NODE_3_a_node_whose_number_is_anothers_closes_itself) {
  auto store = must_open(options());
  sql("UPDATE sluice.writers SET epoch = epoch + 1, node = NULL");
  sql("INSERT INTO sluice.writers SELECT 7, 1, 0, at, expires_at + 100000, ttl, " + std::to_string(store->node()) + ", NULL FROM sluice.writers");
  EXPECT_FALSE(commit_and_wait(*store, put("late")));
  const auto closed = commit_and_wait(*store, put("later"));
  ASSERT_FALSE(closed);
  EXPECT_EQ(closed.error().code(), "node_number_taken") << closed.error().to_string();
  EXPECT_FALSE(store->health());
}

TEST_F(Postgres, NODE_8_a_database_that_went_back_in_time_is_noticed_and_not_written_to) {
  PrivatePostgres own;
  own.sql("CREATE DATABASE d", "template1");
  auto o = options();
  o.url = own.socket_url("d");
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
  ASSERT_TRUE(migrate_postgres_database(o, rig.random, true));
  EXPECT_NE(must_open(o)->incarnation(), before) << "tokens of the lost time do not fit the new one";
}

TEST_F(Postgres, NODE_1_nodes_that_start_together_make_the_schema_once) {
  const auto o = options();
  std::vector<Thread> threads;
  std::atomic<int> opened{0};
  for (int i = 0; i < 4; ++i)
    threads.emplace_back("open", [&, o] {
      auto store = open_postgres_store(o, rig.real, rig.random, rig.executor);
      if (store) ++opened;
      EXPECT_TRUE(store) << store.error().to_string();
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(opened, 4);
}

TEST_F(Postgres, NODE_1_a_newer_schema_is_used_when_it_suits_and_refused_when_not) {
  must_open(options());
  sql("UPDATE sluice.meta SET value = 900 WHERE name = 'schema'");
  EXPECT_TRUE(open_postgres_store(options(), rig.real, rig.random, rig.executor));
  sql("UPDATE sluice.meta SET value = 899 WHERE name = 'suits'");
  const auto refused = open_postgres_store(options(), rig.real, rig.random, rig.executor);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "schema_too_new");
}

TEST_F(Postgres, works_without_prepared_statements_and_without_being_superuser) {
  (void)options();
  sql("CREATE ROLE plain" + rig.database + " LOGIN CONNECTION LIMIT 5");
  sql("GRANT CREATE ON DATABASE " + rig.database + " TO plain" + rig.database);
  auto o = options();
  o.pooled = true;
  o.url.replace(o.url.find("sluice@"), 7, "plain" + rig.database + "@");
  auto store = must_open(o);
  EXPECT_TRUE(commit_and_wait(*store, put("a")));
  EXPECT_TRUE(there(*store, "a"));
  EXPECT_TRUE(store->purge(std::chrono::hours(1), 10));
  const auto more = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_TRUE(more) << "readers connect when they are first needed";
  EXPECT_TRUE(commit_and_wait(**more, put("b")));
  const auto refused = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), "too_many_connections") << refused.error().to_string();
  EXPECT_TRUE(refused.error().retryable());
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
  }
}

}  // namespace
}  // namespace sluice::store
