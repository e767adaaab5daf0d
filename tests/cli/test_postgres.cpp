// sluice migrate and doctor on a PostgreSQL, and a restore from a dump as the how-to says it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "cli/process.hpp"
#include "support/private_postgres.hpp"

namespace sluice::cli_test {
namespace {

using testing_support::PrivatePostgres;

class PostgresCommand : public testing::Test {
 protected:
  PrivatePostgres& server = PrivatePostgres::shared();
  testing_support::TempFolder folder;
  const std::string name = server.new_database();
  std::string url(const std::string& database) const { return server.socket_url(database); }
};

TEST_F(PostgresCommand, NODE_1_migrate_makes_the_schema_once_and_doctor_is_content) {
  const auto missing = run(folder.path(), {"doctor", "--store", url(name)});
  EXPECT_EQ(missing.status, 1);
  EXPECT_NE(missing.out.find("run sluice migrate"), std::string::npos) << missing.out << missing.err;
  const auto made = run(folder.path(), {"migrate", "--store", url(name), "--json"});
  EXPECT_EQ(made.status, 0) << made.err;
  EXPECT_NE(made.out.find("\"from\":0"), std::string::npos) << made.out;
  const auto again = run(folder.path(), {"migrate", "--store", url(name)});
  EXPECT_NE(again.out.find("already"), std::string::npos) << again.out;
  const auto doctor = run(folder.path(), {"doctor", "--full", "--store", url(name)});
  EXPECT_EQ(doctor.status, 0) << doctor.out << doctor.err;
}

TEST_F(PostgresCommand, NODE_1_doctor_says_what_to_change_and_fails) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url(name)}).status, 0);
  server.sql("ALTER DATABASE " + name + " SET synchronous_commit = off", "template1");
  const auto warned = run(folder.path(), {"doctor", "--store", url(name)});
  EXPECT_EQ(warned.status, 0);
  EXPECT_NE(warned.out.find("warning  synchronous_commit"), std::string::npos) << warned.out;
  server.sql("INSERT INTO sluice.journal VALUES (5, 1, '')", name);
  const auto damaged = run(folder.path(), {"doctor", "--full", "--store", url(name)});
  EXPECT_EQ(damaged.status, 1);
  EXPECT_NE(damaged.out.find("journals with a gap"), std::string::npos) << damaged.out;
}

TEST_F(PostgresCommand, NODE_6_a_wrong_address_is_told_without_its_password) {
  for (const char* verb : {"doctor", "migrate"}) {
    const auto ran = run(folder.path(), {verb, "--store", "postgres://u:hunter2@127.0.0.1:1/none"});
    EXPECT_EQ(ran.status, 1);
    EXPECT_EQ((ran.out + ran.err).find("hunter2"), std::string::npos) << ran.out << ran.err;
  }
}

TEST_F(PostgresCommand, NODE_8_a_dump_is_restored_with_a_new_incarnation) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url(name)}).status, 0);
  server.sql("INSERT INTO sluice.meta VALUES ('incarnation', 77); INSERT INTO sluice.kv VALUES ('a', 'b', 'c', 1, 42, 'v')", name);
  const std::string copy = server.new_database();
  const std::string tools = "$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)";
  const std::string dump = tools + "/pg_dump -Fc -n sluice -d '" + url(name) + "' -f '" + folder.file("dump") + "'";
  ASSERT_EQ(std::system(dump.c_str()), 0);
  const std::string restore = tools + "/pg_restore --no-owner -d '" + url(copy) + "' '" + folder.file("dump") + "'";
  ASSERT_EQ(std::system(restore.c_str()), 0);
  const auto migrated = run(folder.path(), {"migrate", "--restored", "--store", url(copy)});
  ASSERT_EQ(migrated.status, 0) << migrated.err;
  EXPECT_NE(server.sql("SELECT value FROM sluice.meta WHERE name = 'incarnation'", copy), "77");
  EXPECT_EQ(server.sql("SELECT number FROM sluice.kv", copy), "42");
  EXPECT_EQ(run(folder.path(), {"doctor", "--full", "--store", url(copy)}).status, 0);
}

TEST_F(PostgresCommand, NODE_1_doctor_joins_no_node_and_changes_nothing) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url(name)}).status, 0);
  // A dead node, which whoever joins adopts.
  server.sql("INSERT INTO sluice.writers VALUES (5, 1, 1, 1, 1, 1, 7, NULL)", name);
  const auto doctor = run(folder.path(), {"doctor", "--full", "--store", url(name)});
  EXPECT_EQ(doctor.status, 0) << doctor.out << doctor.err;
  EXPECT_EQ(server.sql("SELECT count(*) || ' ' || max(epoch) || ' ' || count(adopter) FROM sluice.writers", name), "1 1 0");
  EXPECT_EQ(server.sql("SELECT count(*) FROM sluice.meta WHERE name = 'incarnation'", name), "0");
}

TEST_F(PostgresCommand, NODE_1_doctor_does_not_call_good_what_is_not) {
  ASSERT_EQ(run(folder.path(), {"migrate", "--store", url(name)}).status, 0);
  const auto says = [&](const std::string& line, const std::string& role = "sluice") {
    std::string address = url(name);
    const auto ran = run(folder.path(), {"doctor", "--store", address.replace(address.find("sluice@"), 7, role + "@")});
    EXPECT_NE(ran.out.find(line), std::string::npos) << line << "\n" << ran.out << ran.err;
  };
  server.sql("ALTER DATABASE " + name + " SET synchronous_commit = remote_write", "template1");
  says("warning  synchronous_commit");
  server.sql("ALTER DATABASE " + name + " SET synchronous_commit = local", "template1");  // nothing here may wait for a standby
  server.sql("ALTER DATABASE " + name + " SET default_transaction_isolation = serializable", "template1");
  says("warning  default_transaction_isolation");
  server.sql("CREATE ROLE few_" + name + " LOGIN CONNECTION LIMIT 2", name);
  says("warning  connections of the role        1 of 2", "few_" + name);
  server.sql("UPDATE sluice.meta SET value = 900 WHERE name = 'schema'", name);
  says("version 900");
  server.sql("UPDATE sluice.meta SET value = 899 WHERE name = 'suits'", name);
  says("the database is at 900, this binary knows 1");
  says("take a newer sluice");
  PrivatePostgres alone({"synchronous_standby_names=gone", "synchronous_commit=local"});
  const auto ran = run(folder.path(), {"doctor", "--store", alone.socket_url("template1")});
  EXPECT_EQ(ran.status, 1);
  EXPECT_NE(ran.out.find("error    synchronous_standby_names      gone; 0 of them stand"), std::string::npos) << ran.out;
}

}  // namespace
}  // namespace sluice::cli_test
