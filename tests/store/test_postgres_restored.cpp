// A database that is another one than its tables were in before: restored from a dump, or moved.
#include <array>

#include "store/postgres_fixture.hpp"

namespace sluice::store {
namespace {

class PostgresRestored : public Postgres {
 protected:
  const std::string copy = server.new_database();
  PostgresOptions of_copy() {
    auto o = options();
    o.url = server.socket_url(copy);
    return o;
  }
  void copy_it() {
    server.sql("DROP DATABASE " + copy, "template1");
    server.sql("CREATE DATABASE " + copy + " TEMPLATE " + rig.database, "template1");
  }
};

TEST_F(PostgresRestored, NODE_8_tables_in_another_database_have_an_incarnation_of_their_own_from_then_on) {
  const auto first = must_open(options())->incarnation();
  {
    auto same = must_open(options());
    EXPECT_EQ(same->incarnation(), first);
    EXPECT_FALSE(same->of_another_database());
  }
  sql("UPDATE sluice.writers SET expires_at = sluice.now_ms() + 100000");  // as a dump of running nodes has it
  copy_it();
  std::uint64_t drawn = 0;
  {
    auto restored = must_open(of_copy());
    drawn = restored->incarnation();
    EXPECT_NE(drawn, first) << "codes and tokens given after the dump must not fit";
    EXPECT_TRUE(restored->of_another_database());
    EXPECT_EQ(restored->living(), 1u) << "the nodes of the other database do not live here";
  }
  auto again = must_open(of_copy());
  EXPECT_EQ(again->incarnation(), drawn);
  EXPECT_FALSE(again->of_another_database());
  EXPECT_EQ(must_open(options())->incarnation(), first) << "and the original keeps its own";
}

TEST_F(PostgresRestored, NODE_8_tables_made_anew_in_the_same_database_are_noticed) {
  const auto first = must_open(options())->incarnation();
  // As pg_restore --clean does it.
  sql("ALTER TABLE sluice.meta RENAME TO old; CREATE TABLE sluice.meta (name text PRIMARY KEY, value bigint NOT NULL);"
      "INSERT INTO sluice.meta SELECT * FROM sluice.old; DROP TABLE sluice.old");
  EXPECT_NE(must_open(options())->incarnation(), first);
}

TEST_F(PostgresRestored, NODE_8_the_same_numbers_in_another_cluster_are_another_database) {
  const auto first = must_open(options())->incarnation();
  sql("UPDATE sluice.meta SET value = value + 1 WHERE name = 'cluster'");
  const auto drawn = must_open(options())->incarnation();
  EXPECT_NE(drawn, first);
  // A role that may not ask for the cluster goes by the rest, and draws nothing in vain.
  sql("CREATE ROLE r" + rig.database + " LOGIN; GRANT ALL ON SCHEMA sluice TO r" + rig.database +
      "; GRANT ALL ON ALL TABLES IN SCHEMA sluice TO r" + rig.database + "; GRANT ALL ON ALL SEQUENCES IN SCHEMA sluice TO r" + rig.database);
  sql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
  auto o = options();
  o.url.replace(o.url.find("sluice@"), 7, "r" + rig.database + "@");
  EXPECT_EQ(must_open(o)->incarnation(), drawn);
  sql("UPDATE sluice.meta SET value = value + 1 WHERE name = 'database_name'");
  const auto renamed = must_open(o)->incarnation();
  EXPECT_NE(renamed, drawn);
  EXPECT_EQ(must_open(o)->incarnation(), renamed);
  EXPECT_EQ(must_open(options())->incarnation(), renamed);
}

TEST_F(PostgresRestored, NODE_8_nodes_that_start_together_on_a_restored_database_draw_once) {
  (void)must_open(options());
  copy_it();
  std::array<std::unique_ptr<PostgresStore>, 4> nodes;
  {
    std::vector<Thread> starts;
    for (auto& node : nodes)
      starts.emplace_back("start", [&] {
        RealRandom random;
        if (auto opened = open_postgres_store(of_copy(), rig.real, random, rig.executor)) node = std::move(*opened);
      });
  }
  for (const auto& node : nodes) ASSERT_TRUE(node);
  EXPECT_EQ(std::ranges::count_if(nodes, [](const auto& node) { return node->of_another_database(); }), 1);
  for (auto& node : nodes) {
    EXPECT_EQ(node->incarnation(), nodes[0]->incarnation());
    EXPECT_TRUE(commit_and_wait(*node, put("k" + std::to_string(node->node()))));
  }
}

// Of the version before this was kept: there is nothing to compare with.
TEST_F(PostgresRestored, NODE_8_an_older_database_keeps_its_incarnation) {
  const auto first = must_open(options())->incarnation();
  sql("DELETE FROM sluice.meta WHERE name NOT IN ('schema', 'suits', 'incarnation')");
  EXPECT_EQ(must_open(options())->incarnation(), first);
  copy_it();
  EXPECT_NE(must_open(of_copy())->incarnation(), first) << "from the first opening on it is known";
}

TEST_F(Postgres, NODE_8_a_restore_under_a_running_node_is_noticed_at_the_first_commit) {
  // The row of a node that joined after the dump, and of one that the dump has with its epoch.
  for (const char* restored : {"DELETE FROM sluice.writers", "UPDATE sluice.writers SET last = last - 1"}) {
    SCOPED_TRACE(restored);
    auto store = must_open(options());
    ASSERT_TRUE(commit_and_wait(*store, put("a")));
    ASSERT_TRUE(commit_and_wait(*store, put("b")));
    sql(restored);
    EXPECT_FALSE(commit_and_wait(*store, put("lost"))) << "not one is told to be done";
    const auto after = commit_and_wait(*store, put("c"));
    ASSERT_FALSE(after);
    EXPECT_EQ(after.error().code(), "database_went_back");
    EXPECT_NE(after.error().detail().find("do not start the server again before you know"), std::string_view::npos) << after.error().detail();
    EXPECT_FALSE(there(*must_open(options()), "lost"));
  }
}

TEST_F(Postgres, NODE_8_a_restore_under_a_running_node_is_noticed_by_its_heartbeat) {
  for (const char* restored : {"DELETE FROM sluice.writers", "UPDATE sluice.writers SET last = last - 1"}) {
    SCOPED_TRACE(restored);
    auto o = options();
    o.lease = milliseconds(500);
    auto store = must_open(o);
    ASSERT_TRUE(commit_and_wait(*store, put("a")));
    sql(restored);
    for (int i = 0; i < 200 && store->health(); ++i) Parker().park(milliseconds(50));
    const auto health = store->health();
    ASSERT_FALSE(health);
    EXPECT_EQ(health.error().code(), "database_went_back");
  }
}

}  // namespace
}  // namespace sluice::store
