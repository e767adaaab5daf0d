// What ./run --postgres shows.
#include <gmock/gmock.h>

#include "cli/process.hpp"
#include "support/private_postgres.hpp"

namespace sluice::cli_test {
namespace {

TEST(DemoNodes, NODE_4_a_killed_nodes_callers_and_open_orders_are_the_others) {
  auto& server = testing_support::PrivatePostgres::shared();
  const testing_support::TempFolder folder;
  const Ran ran = run(folder.path(), {"demo", "--store", server.socket_url(server.new_database()), "--requests", "4000"});
  EXPECT_EQ(ran.status, 0) << ran.out << ran.err;
  EXPECT_THAT(ran.out, testing::HasSubstr("and had finished what it left open after"));
  EXPECT_THAT(ran.out, testing::HasSubstr("each addition exactly once"));
}

}  // namespace
}  // namespace sluice::cli_test
