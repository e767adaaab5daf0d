// An address with several hosts, of which some say nothing: as after the loss of a primary.
#include "store/store_fixture.hpp"
#include "support/chaos_proxy.hpp"

namespace sluice::store {
namespace {

using testing_support::PrivatePostgres;
using test::ChaosProxy;

class PostgresHosts : public testing::Test {
 protected:
  StoreRig rig;
  PrivatePostgres& server = PrivatePostgres::shared();

  PostgresOptions options(const std::vector<std::uint16_t>& ports) {
    auto o = rig.postgres();
    o.clock = nullptr;
    o.connect_timeout = milliseconds(2000);
    std::string hosts;
    for (const auto port : ports) hosts += (hosts.empty() ? "" : ",") + ("127.0.0.1:" + std::to_string(port));
    o.url = "postgres://sluice@" + hosts + "/" + rig.database;
    return o;
  }
  static Commit put(const std::string& key) { return {.then = {KvPut{at(key), "v", 1}}}; }
};

TEST_F(PostgresHosts, NODE_5_a_host_that_says_nothing_does_not_hide_the_one_that_takes_writes) {
  // Its kernel takes connections, its process is stopped: as a primary that froze.
  ChaosProxy frozen(server.port());
  frozen.set({.drop = true});
  const Instant begun = rig.real.now();
  auto store = open_postgres_store(options({frozen.port(), server.port()}), rig.real, rig.random, rig.executor);
  ASSERT_TRUE(store) << store.error().to_string();
  EXPECT_TRUE(commit_and_wait(**store, put("a")));
  EXPECT_TRUE(ask_now(**store, GetRows{{at("a")}}));
  EXPECT_LT(rig.real.now() - begun, seconds(2)) << "less than a single connect_timeout for all connections";
}

TEST_F(PostgresHosts, NODE_5_a_primary_that_freezes_is_left_for_the_next_host) {
  ChaosProxy first(server.port()), second(server.port());
  auto o = options({first.port(), second.port()});
  o.io_timeout = milliseconds(500);
  auto store = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_TRUE(store) << store.error().to_string();
  for (int turn = 0; turn < 4; ++turn) {  // back and forth, whichever it uses
    ChaosProxy& frozen = turn % 2 == 0 ? first : second;
    frozen.set({.drop = true});
    (void)commit_and_wait(**store, put("lost"));  // settled, or told to try later
    const Instant begun = rig.real.now();
    auto outcome = commit_and_wait(**store, put("a"));
    EXPECT_TRUE(outcome) << outcome.error().to_string();
    EXPECT_TRUE(ask_now(**store, GetRows{{at("a")}}));
    EXPECT_LT(rig.real.now() - begun, seconds(2));
    frozen.set({});
    frozen.cut();
  }
}

TEST_F(PostgresHosts, NODE_5_when_no_host_serves_the_failure_names_each_and_is_in_time) {
  ChaosProxy frozen(server.port()), gone(server.port());
  frozen.set({.drop = true});
  gone.set({.refuse = true});
  auto o = options({frozen.port(), gone.port()});
  o.connect_timeout = milliseconds(300);
  const Instant begun = rig.real.now();
  const auto refused = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_FALSE(refused);
  EXPECT_LT(rig.real.now() - begun, milliseconds(1500));
  EXPECT_TRUE(refused.error().retryable());
  EXPECT_TRUE(refused.error().retry_after());
  for (const auto port : {frozen.port(), gone.port()})
    EXPECT_NE(refused.error().detail().find(std::to_string(port)), std::string::npos) << refused.error().to_string();
}

TEST_F(PostgresHosts, NODE_8_a_lost_commit_settled_on_a_database_that_went_back_is_not_said_to_be_refused) {
  ChaosProxy wire(server.port());
  auto o = options({wire.port()});
  o.settle_timeout = seconds(10);
  auto store = open_postgres_store(o, rig.real, rig.random, rig.executor);
  ASSERT_TRUE(store) << store.error().to_string();
  ASSERT_TRUE(commit_and_wait(**store, put("kept")));
  server.sql("CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(20); RETURN NULL; END $$;"
             "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON sluice.kv DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
             rig.database);
  Thread breaks("breaks", [&] {
    const auto sleeping = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while (server.sql(std::string("SELECT count(*) ") + sleeping, rig.database) == "0") Parker().park(milliseconds(10));
    wire.set({.refuse = true});
    wire.cut();
    server.sql(std::string("SELECT pg_terminate_backend(pid, 5000) ") + sleeping, rig.database);
    // A standby that never had the last commits has taken over.
    server.sql("UPDATE sluice.writers SET last = last - 1; DROP TRIGGER slow ON sluice.kv", rig.database);
    wire.set({});
  });
  const auto outcome = commit_and_wait(**store, put("lost"));
  breaks.join();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().kind(), FailureKind::unknown_outcome) << outcome.error().to_string();
  const auto after = commit_and_wait(**store, put("more"));
  ASSERT_FALSE(after);
  EXPECT_EQ(after.error().code(), "database_went_back") << after.error().to_string();
}

}  // namespace
}  // namespace sluice::store
