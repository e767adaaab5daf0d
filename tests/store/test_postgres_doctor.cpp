// What doctor says of sessions that hold others up: real locks of real sessions.
#include <gmock/gmock.h>

#include "store/postgres/locks.hpp"
#include "store/postgres_fixture.hpp"

namespace sluice::store {
namespace {

using Level = PostgresFinding::Level;
using testing::HasSubstr;

class PostgresDoctor : public Postgres {
 protected:
  struct Close {
    void operator()(PGconn* c) const { PQfinish(c); }
  };
  using Session = std::unique_ptr<PGconn, Close>;

  void SetUp() override { must_open(options())->close(); }
  Session session(const std::string& application, const char* statements) {
    Session made(PQconnectdb((server.socket_url(rig.database) + "&application_name=" + application).c_str()));
    const std::unique_ptr<PGresult, void (*)(PGresult*)> done(PQexec(made.get(), statements), PQclear);
    EXPECT_EQ(PQresultStatus(done.get()), PGRES_COMMAND_OK) << PQerrorMessage(made.get());
    return made;
  }
  Session waiting(const char* statement) {
    auto made = session("waits", "SET lock_timeout = 0");
    EXPECT_EQ(PQsendQuery(made.get(), statement), 1);
    return made;
  }
  /// When so many wait.
  void until_waiting(const std::string& many) {
    for (int turn = 0; turn < 2000 && sql("SELECT count(*) FROM pg_locks WHERE NOT granted") != many; ++turn) Parker().park(milliseconds(5));
  }
  std::vector<PostgresFinding> holders(milliseconds patience, const std::string& role = "sluice") {
    auto o = options();
    o.url.replace(o.url.find("sluice@"), 7, role + "@");
    auto connection = PgConnection::open(o);
    EXPECT_TRUE(connection) << connection.error().to_string();
    return find_lock_holders(**connection, patience);
  }
  std::vector<PostgresFinding> doctor(milliseconds io_timeout) {
    auto o = options();
    o.io_timeout = io_timeout;
    auto found = examine_postgres(o, rig.real);
    EXPECT_TRUE(found) << found.error().to_string();
    return std::move(*found);
  }
  static std::vector<PostgresFinding> of(std::vector<PostgresFinding> all, const std::string& what) {
    std::erase_if(all, [&](const PostgresFinding& f) { return f.what != what; });
    return all;
  }
};

TEST_F(PostgresDoctor, NODE_6_who_locks_a_table_is_named_with_how_many_wait_and_how_to_end_it) {
  EXPECT_EQ(holders(milliseconds(0))[0].level, Level::good);
  const auto holder = session("nightly", "BEGIN; LOCK TABLE sluice.kv IN\n  ACCESS EXCLUSIVE MODE");
  const auto one = waiting("SELECT count(*) FROM sluice.kv"), two = waiting("BEGIN; LOCK TABLE sluice.kv"), three = waiting("SELECT 1 FROM sluice.kv");
  until_waiting("3");
  const auto found = holders(milliseconds(0));
  ASSERT_EQ(found.size(), 1u) << "those who wait hold up nobody themselves: " << found[1].found;
  EXPECT_EQ(found[0].level, Level::error);
  const std::string pid = std::to_string(PQbackendPID(holder.get()));
  EXPECT_THAT(found[0].found, HasSubstr("pid " + pid + " (sluice, nightly, idle in transaction: BEGIN; LOCK TABLE sluice.kv IN ACCESS EXCLUSIVE MODE) "
                                        "holds up 3 sessions, for 0 s"));
  EXPECT_THAT(found[0].advice, HasSubstr("SELECT pg_terminate_backend(" + pid + ")"));
  EXPECT_EQ(holders(std::chrono::hours(1))[0].level, Level::good) << "locks that are short are no finding";
}

TEST_F(PostgresDoctor, NODE_6_a_role_that_sees_no_queries_of_others_still_sees_who_holds_them_up) {
  sql("CREATE ROLE blind_" + rig.database + " LOGIN");
  const auto holder = session("nightly", "BEGIN; LOCK TABLE sluice.kv");
  const auto one = waiting("SELECT count(*) FROM sluice.kv");
  until_waiting("1");
  const auto found = holders(milliseconds(0), "blind_" + rig.database);
  EXPECT_EQ(found[0].level, Level::error);
  EXPECT_THAT(found[0].found, HasSubstr("(sluice, nightly; what it runs may not be seen) holds up 1 session,"));
  EXPECT_THAT(found[0].advice, HasSubstr("pg_monitor"));
}

TEST_F(PostgresDoctor, NODE_6_who_keeps_a_row_is_named_when_the_waits_for_it_have_ended) {
  const auto keeper = session("psql", "BEGIN; INSERT INTO sluice.event_heads VALUES ('app', 1)");
  const auto found = holders(milliseconds(0));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].level, Level::error);
  const std::string pid = std::to_string(PQbackendPID(keeper.get()));
  EXPECT_THAT(found[0].found, HasSubstr("pid " + pid + " (sluice, psql, idle in transaction: BEGIN; INSERT INTO sluice.event_heads"));
  EXPECT_THAT(found[0].found, HasSubstr(") may hold rows of event_heads, its transaction open for 0 s"));
  EXPECT_THAT(found[0].advice, HasSubstr("SELECT pg_terminate_backend(" + pid + ")"));
  EXPECT_EQ(holders(std::chrono::hours(1))[0].level, Level::good) << "transactions that are short are no finding";
}

TEST_F(PostgresDoctor, NODE_6_who_locks_a_table_is_named_when_the_waits_for_it_have_ended) {
  const auto nodes = session("sluice@db/7", "BEGIN; LOCK TABLE sluice.kv IN ROW EXCLUSIVE MODE");
  const auto reads = session("backup", "BEGIN; LOCK TABLE sluice.kv IN ACCESS SHARE MODE; LOCK TABLE sluice.keys IN SHARE UPDATE EXCLUSIVE MODE");
  const auto elsewhere = session("theirs", "BEGIN; CREATE TABLE public.kv ()");
  EXPECT_EQ(holders(milliseconds(0))[0].level, Level::good) << holders(milliseconds(0))[0].found;
  const auto locks = session("nightly", "BEGIN; LOCK TABLE sluice.audit, sluice.journal IN SHARE MODE");
  const auto found = holders(milliseconds(0));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_THAT(found[0].found, HasSubstr(") locks audit, journal, its transaction open for 0 s"));
}

TEST_F(PostgresDoctor, NODE_6_a_role_that_sees_no_ages_of_others_is_warned_of_who_keeps_locks) {
  sql("CREATE ROLE dim_" + rig.database + " LOGIN");
  const auto keeper = session("psql", "BEGIN; LOCK TABLE sluice.kv");
  const auto found = holders(std::chrono::hours(1), "dim_" + rig.database);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].level, Level::warning);
  EXPECT_THAT(found[0].found, HasSubstr("(sluice, psql; what it runs may not be seen) locks kv, since when may not be seen"));
  EXPECT_THAT(found[0].advice, HasSubstr("pg_monitor"));
}

TEST_F(PostgresDoctor, NODE_6_a_prepared_transaction_that_keeps_locks_is_named) {
  testing_support::PrivatePostgres own({"max_prepared_transactions=4"});
  const auto o = options_on(own);
  must_open(o)->close();
  own.sql("CREATE TABLE public.other ()", "d");
  own.sql("BEGIN; LOCK TABLE public.other; PREPARE TRANSACTION 'elsewhere'", "d");
  const auto found = [&](milliseconds patience) {
    auto connection = PgConnection::open(o);
    return find_lock_holders(**connection, patience);
  };
  EXPECT_EQ(found(milliseconds(0))[0].level, Level::good);
  own.sql("BEGIN; LOCK TABLE sluice.kv IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'pay ''n go'", "d");
  for (const char* when : {"prepared", "after a restart"}) {
    SCOPED_TRACE(when);
    const auto kept = found(milliseconds(0));
    ASSERT_EQ(kept.size(), 1u);
    EXPECT_EQ(kept[0].level, Level::error);
    EXPECT_THAT(kept[0].found, HasSubstr("the prepared transaction 'pay ''n go' of sluice keeps rows of kv, for "));
    EXPECT_THAT(kept[0].advice, HasSubstr("ROLLBACK PREPARED 'pay ''n go', as sluice"));
    EXPECT_EQ(found(std::chrono::hours(1))[0].level, Level::good);
    own.crash_and_restart();
  }
}

TEST_F(PostgresDoctor, NODE_6_doctor_alone_before_a_locked_table_names_who_locks_it) {
  const auto holder = session("nightly", "BEGIN; LOCK TABLE sluice.writers, sluice.meta");
  const auto all = doctor(milliseconds(2500));  // longer than what counts as a short lock
  const auto locks = of(all, "locks");
  ASSERT_EQ(locks.size(), 1u);
  EXPECT_THAT(locks[0].found, HasSubstr("LOCK TABLE sluice.writers, sluice.meta) holds up "));
  EXPECT_EQ(of(all, "schema").at(0).level, Level::error);
}

TEST_F(PostgresDoctor, NODE_6_nodes_that_could_not_be_counted_are_not_called_none) {
  const auto holder = session("nightly", "BEGIN; LOCK TABLE sluice.open_exchanges");
  const auto all = doctor(milliseconds(2500));
  for (const char* const what : {"nodes", "in doubt"}) {
    ASSERT_EQ(of(all, what).size(), 1u);
    EXPECT_EQ(of(all, what)[0].level, Level::warning) << what << of(all, what)[0].found;
    EXPECT_THAT(of(all, what)[0].found, HasSubstr("could not be read"));
  }
  EXPECT_EQ(of(all, "locks").at(0).level, Level::error);
}

}  // namespace
}  // namespace sluice::store
