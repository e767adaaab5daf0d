// What only a shared database can do to a store: other nodes on the same rows, on its schema, in its time.
#include "store/postgres_fixture.hpp"
#include "support/tcp_peer.hpp"

namespace sluice::store {
namespace {

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

TEST_F(Postgres, NODE_4_FLOW_26_an_adopted_node_is_passed_on_to_one_other) {
  auto o = options();
  o.lease = milliseconds(600);
  auto dead = must_open(o);
  const ExchangeId left = made_by(*dead);
  const std::uint16_t number = dead->node();
  // Open, so that nobody else is given the number.
  ASSERT_TRUE(commit_and_wait(*dead, {.then = {OpenPut{{.exchange = left, .ns = "shop", .flow = "f"}}}}));
  auto one = must_open(o);
  dead->close();
  for (int i = 0; i < 200 && !one->ours(left); ++i) Parker().park(milliseconds(20));
  ASSERT_TRUE(one->ours(left));
  EXPECT_EQ(one->living(), 1u);
  one->pass_on(number);
  EXPECT_FALSE(one->ours(left)) << "nothing of it is worked on from here on";
  for (int i = 0; i < 200 && !one->ours(left); ++i) Parker().park(milliseconds(20));
  EXPECT_TRUE(one->ours(left)) << "there is no other";
  auto two = must_open(o);
  for (int i = 0; i < 200 && one->living() == 1; ++i) Parker().park(milliseconds(20));
  EXPECT_EQ(one->living(), 2u);
  const auto before = two->takeovers();
  one->pass_on(number);
  two->pass_on(number);  // not its own: nothing happens
  for (int i = 0; i < 200 && !two->ours(left); ++i) {
    EXPECT_FALSE(one->ours(left) && two->ours(left));
    Parker().park(milliseconds(20));
  }
  EXPECT_TRUE(two->ours(left));
  EXPECT_FALSE(one->ours(left));
  EXPECT_GT(two->takeovers(), before) << "its recovery looks at once";
  one->pass_on(one->node());
  EXPECT_TRUE(one->ours(made_by(*one))) << "its own is never given away";
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

TEST_F(Postgres, NODE_4_the_log_tells_who_took_a_node_over_and_that_it_joined_again) {
  struct Lines final : LogSink {
    std::mutex mutex;
    std::string all;
    void write(LogLevel, std::string_view line) override {
      const std::scoped_lock lock(mutex);
      all.append(line) += '\n';
    }
    bool has(std::string_view words) {
      const std::scoped_lock lock(mutex);
      return all.find(words) != std::string::npos;
    }
  };
  const auto first_lines = std::make_shared<Lines>(), second_lines = std::make_shared<Lines>();
  const auto first_log = make_logger(rig.real, first_lines, {}), second_log = make_logger(rig.real, second_lines, {});
  auto o = options();
  o.logger = first_log.get();
  auto first = must_open(o);
  o.logger = second_log.get();
  o.lease = milliseconds(1000);
  auto second = must_open(o);
  EXPECT_NE(sql("SELECT DISTINCT application_name FROM pg_stat_activity WHERE application_name LIKE 'sluice@%'").find(
                "/" + std::to_string(getpid())), std::string::npos) << "which node's a session is";
  ASSERT_FALSE(second_lines->has("what it left")) << second_lines->all;
  // As one that stood still: its lease is over, and it does not know.
  sql("UPDATE sluice.writers SET expires_at = 0 WHERE node = " + std::to_string(first->node()));
  Parker pause;
  for (int i = 0; i < 500 && !second_lines->has("what it left"); ++i) pause.park(milliseconds(20));
  EXPECT_TRUE(second_lines->has("left_by=" + std::to_string(first->node()))) << second_lines->all;
  for (int i = 0; i < 500 && !first_lines->has("has joined again"); ++i) {
    (void)commit_and_wait(*first, put("late"));
    pause.park(milliseconds(20));
  }
  EXPECT_TRUE(first_lines->has("has joined again")) << first_lines->all;
  EXPECT_FALSE(second_lines->has("has joined again")) << second_lines->all;
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

}  // namespace
}  // namespace sluice::store
