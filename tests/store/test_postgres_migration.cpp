// Schemas of other versions: what a running node makes of a migration in the middle of its work.
#include <vector>

#include "store/postgres/schema.hpp"
#include "store/postgres_fixture.hpp"

namespace sluice::store {
namespace {

class PostgresMigration : public Postgres {
 protected:
  // What a release after this one would do.
  void migrate(PgMigration next) {
    std::vector<PgMigration> all(postgres_migrations().begin(), postgres_migrations().end());
    all.push_back(next);
    auto connection = PgConnection::open(options());
    ASSERT_TRUE(connection) << connection.error().to_string();
    (void)migrate_postgres(**connection, all);  // whether it suits this binary, the node is to say
    ASSERT_EQ(sql("SELECT value FROM sluice.meta WHERE name = 'schema'"), std::to_string(all.size()));
  }
};

TEST_F(PostgresMigration, NODE_1_a_running_node_goes_on_after_a_migration_that_suits_it) {
  auto store = must_open(options());
  ASSERT_TRUE(commit_and_wait(*store, put("before")));
  const std::string epoch = sql("SELECT epoch FROM sluice.writers");
  migrate({"ALTER TABLE sluice.kv ADD COLUMN of_next bigint;", postgres_schema_version()});
  EXPECT_TRUE(commit_and_wait(*store, put("after")));
  EXPECT_TRUE(there(*store, "after"));
  EXPECT_EQ(sql("SELECT epoch FROM sluice.writers"), epoch) << "nobody was shut out for it";
}

TEST_F(PostgresMigration, NODE_1_a_running_node_writes_and_reads_nothing_after_a_migration_that_does_not_suit_it) {
  auto store = must_open(options());
  ASSERT_TRUE(commit_and_wait(*store, put("before")));
  migrate({"ALTER TABLE sluice.kv ADD COLUMN of_next bigint;", postgres_schema_version() + 1});
  const auto late = commit_and_wait(*store, put("late"));
  ASSERT_FALSE(late);
  EXPECT_TRUE(late.error().retryable()) << late.error().to_string() << ": a node of the newer version does it";
  EXPECT_EQ(sql("SELECT count(*) FROM sluice.kv"), "1");
  const auto later = commit_and_wait(*store, put("later"));
  ASSERT_FALSE(later);
  EXPECT_EQ(later.error().code(), "schema_too_new") << later.error().to_string();
  EXPECT_EQ(later.error().kind(), FailureKind::unavailable);
  EXPECT_TRUE(later.error().retry_after());
  const auto read = ask_now(*store, GetRows{{at("before")}});
  ASSERT_FALSE(read) << "what the rows mean now, this binary does not know";
  EXPECT_EQ(read.error().code(), "schema_too_new");
  ASSERT_FALSE(store->health());
  EXPECT_EQ(store->health().error().code(), "schema_too_new");
}

TEST_F(PostgresMigration, NODE_1_a_node_at_rest_notices_it_by_its_heartbeat) {
  auto o = options();
  o.lease = milliseconds(500);
  auto store = must_open(o);
  migrate({"SELECT 1;", postgres_schema_version() + 1});
  Parker pause;
  for (int i = 0; i < 500 && store->health(); ++i) pause.park(milliseconds(20));
  ASSERT_FALSE(store->health());
  EXPECT_EQ(store->health().error().code(), "schema_too_new");
}

}  // namespace
}  // namespace sluice::store
