// A database whose commits wait for a standby: what the standby does not have yet is nobody's answer.
#include "store/store_fixture.hpp"

namespace sluice::store {
namespace {

using testing_support::PrivatePostgres;

TEST(PostgresStandby, NODE_5_G1_what_a_crash_left_without_its_standby_is_not_read_before_it_has_one) {
  StoreRig rig;
  PrivatePostgres server;
  server.sql("CREATE DATABASE d", "template1");
  PostgresOptions o;
  o.url = server.socket_url("d");
  o.io_timeout = milliseconds(700);
  o.settle_timeout = milliseconds(700);
  auto store = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_TRUE(store) << store.error().to_string();
  ASSERT_TRUE(commit_and_wait(**store, {.then = {KvPut{at("a"), "v", 1}}}));
  ASSERT_TRUE(ask_now(**store, GetRows{{at("a")}})->at(0));
  // Its standby is lost, and a commit waits for it in vain; then the primary crashes and comes back alone.
  server.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'", "template1");
  server.sql("SELECT pg_reload_conf()", "template1");
  Parker().park(milliseconds(200));
  const auto waiting = commit_and_wait(**store, {.then = {KvPut{at("b"), "v", 1}}});
  ASSERT_FALSE(waiting);
  EXPECT_EQ(waiting.error().kind(), FailureKind::unknown_outcome) << waiting.error().to_string();
  server.crash_and_restart();
  EXPECT_EQ(server.sql("SELECT count(*) FROM sluice.kv WHERE key = 'b'", "d"), "1") << "there, and lost with this machine";
  for (int i = 0; i < 3; ++i) {
    const auto rows = ask_now(**store, GetRows{{at("b")}});
    EXPECT_FALSE(rows) << "told what a failover would take back";
    if (!rows) EXPECT_TRUE(rows.error().retry_after()) << rows.error().to_string();
  }
  server.sql("ALTER SYSTEM RESET synchronous_standby_names", "template1");
  server.sql("SELECT pg_reload_conf()", "template1");
  Result<GetRows::Answer> rows = fail(FailureKind::unavailable, "", "");
  for (int i = 0; i < 50 && !rows; ++i) {
    rows = ask_now(**store, GetRows{{at("b")}});
    if (!rows) Parker().park(milliseconds(100));
  }
  ASSERT_TRUE(rows) << rows.error().to_string();
  EXPECT_TRUE(rows->at(0));
}

}  // namespace
}  // namespace sluice::store
