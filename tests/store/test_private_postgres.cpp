// The server the other tests stand on: it must be as durable as a real one, and come back.
#include <gtest/gtest.h>

#include "support/private_postgres.hpp"

namespace sluice::testing_support {
namespace {

TEST(PrivatePostgres, is_durable_and_gives_each_test_a_database_of_its_own) {
  auto& server = PrivatePostgres::shared();
  const std::string one = server.new_database(), two = server.new_database();
  EXPECT_EQ(server.sql("SHOW fsync", one), "on");
  EXPECT_EQ(server.sql("SHOW synchronous_commit", one), "on");
  server.sql("CREATE TABLE a (b int)", one);
  EXPECT_THROW(server.sql("SELECT * FROM a", two), std::runtime_error);
}

TEST(PrivatePostgres, a_crash_keeps_what_was_committed) {
  PrivatePostgres server;
  server.sql("CREATE TABLE a AS SELECT 7 AS b", "template1");
  server.crash_and_restart();
  EXPECT_EQ(server.sql("SELECT b FROM a", "template1"), "7");
}

}  // namespace
}  // namespace sluice::testing_support
