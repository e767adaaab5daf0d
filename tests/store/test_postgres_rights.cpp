// Rights, a schema or a login that are taken away while the store is open: its callers cannot mend that.
#include "store/postgres/failures.hpp"
#include "store/postgres_fixture.hpp"

namespace sluice::store {
namespace {

class PostgresRights : public Postgres {
 protected:
  std::string role;
  PostgresOptions as_a_role_of_its_own() {
    auto o = options();
    role = "plain_" + rig.database;
    sql("CREATE ROLE " + role + " LOGIN; GRANT CREATE ON DATABASE " + rig.database + " TO " + role);
    o.url.replace(o.url.find("sluice@"), 7, role + "@");
    o.lease = milliseconds(500);
    return o;
  }
  static bool becomes(PostgresStore& store, bool healthy) {
    for (int i = 0; i < 200 && store.health().has_value() != healthy; ++i) Parker().park(milliseconds(25));
    return store.health().has_value() == healthy;
  }
  static void is_unavailable(const Failure& failure, std::string_view code) {
    EXPECT_EQ(failure.kind(), FailureKind::unavailable) << failure.to_string();
    EXPECT_EQ(failure.code(), code) << failure.to_string();
    EXPECT_TRUE(failure.retry_after());
  }
};

TEST_F(PostgresRights, NODE_6_a_right_to_write_that_was_revoked_is_no_fault_of_the_callers) {
  auto store = must_open(as_a_role_of_its_own());
  ASSERT_TRUE(commit_and_wait(*store, put("a")));
  sql("REVOKE INSERT ON sluice.kv FROM " + role);
  is_unavailable(commit_and_wait(*store, put("b")).error(), "database_rights");
  // Neither heartbeats nor what can still be written say that all is well.
  const auto renewed = [&] { return sql("SELECT max(at) FROM sluice.writers"); };
  for (int turn = 0; turn < 3; ++turn) {
    const std::string before = renewed();
    for (int i = 0; i < 200 && renewed() == before; ++i) Parker().park(milliseconds(10));
    EXPECT_TRUE(commit_and_wait(*store, {.then = {AuditAppend{{.ns = "app"}}}}));
    ASSERT_FALSE(store->health());
    EXPECT_EQ(store->health().error().code(), "database_rights");
  }
  EXPECT_NE(store->health().error().detail().find("INSERT on sluice.kv"), std::string::npos) << store->health().error().to_string();
  sql("GRANT INSERT ON sluice.kv TO " + role);
  EXPECT_TRUE(becomes(*store, true)) << store->health().error().to_string();
  EXPECT_TRUE(commit_and_wait(*store, put("b")));
}

TEST_F(PostgresRights, NODE_6_a_right_to_read_that_was_revoked_is_seen_by_health_too) {
  auto store = must_open(as_a_role_of_its_own());
  sql("REVOKE SELECT ON sluice.keys FROM " + role);
  is_unavailable(ask_now(*store, FindKey{"scope"}).error(), "database_rights");
  EXPECT_FALSE(store->health());
  sql("GRANT SELECT ON sluice.keys TO " + role);
  EXPECT_TRUE(becomes(*store, true));
  EXPECT_TRUE(ask_now(*store, FindKey{"scope"}));
}

TEST_F(PostgresRights, NODE_6_a_login_or_a_database_that_is_gone_is_unavailable_until_it_is_back) {
  auto o = as_a_role_of_its_own();
  auto store = must_open(o);
  const std::string database = rig.database;
  const auto outside = [&](const std::string& text) { return server.sql(text, "template1"); };
  const auto cut = [&] { outside("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '" + database + "'"); };
  const auto code = [&] {
    auto outcome = commit_and_wait(*store, put("x"));
    EXPECT_FALSE(outcome);
    if (!outcome) is_unavailable(outcome.error(), outcome.error().code());
    return outcome ? std::string() : std::string(outcome.error().code());
  };
  outside("ALTER ROLE " + role + " NOLOGIN");
  cut();
  EXPECT_EQ(code(), "database_login");
  EXPECT_FALSE(store->health());
  const auto refused = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), FailureKind::forbidden) << "whoever opens it can do something: " << refused.error().to_string();
  outside("ALTER ROLE " + role + " LOGIN");
  EXPECT_TRUE(becomes(*store, true));
  cut();
  outside("ALTER DATABASE " + database + " RENAME TO " + database + "_away");
  EXPECT_EQ(code(), "no_such_database");
  EXPECT_EQ(open_postgres_store(o, rig.real, rig.random, rig.executor).error().kind(), FailureKind::not_found);
  outside("ALTER DATABASE " + database + "_away RENAME TO " + database);
  EXPECT_TRUE(becomes(*store, true));
  sql("ALTER SCHEMA sluice RENAME TO away");
  EXPECT_EQ(code(), "schema_missing");
  EXPECT_FALSE(store->health());
  sql("ALTER SCHEMA away RENAME TO sluice");
  EXPECT_TRUE(becomes(*store, true));
  EXPECT_TRUE(commit_and_wait(*store, put("y")));
}

TEST(PostgresFailures, NODE_6_prepared_statements_that_a_pooler_mixed_up_name_the_setting) {
  for (const char* state : {"42P05", "26000"}) {
    const Failure failure = postgres_failure(state, "prepared statement \"get_rows\" does not exist", "h:1/d");
    EXPECT_EQ(failure.kind(), FailureKind::unavailable);
    EXPECT_NE(failure.detail().find("a pooler in transaction mode? set store.pooled"), std::string::npos) << failure.to_string();
  }
}

}  // namespace
}  // namespace sluice::store
