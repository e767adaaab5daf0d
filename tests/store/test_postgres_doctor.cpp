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
