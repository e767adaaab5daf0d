// A database, or a role, whose transactions are of another level than PostgreSQL's default.
#include <set>

#include "store/postgres_fixture.hpp"

namespace sluice::store {
namespace {

class PostgresIsolation : public Postgres, public testing::WithParamInterface<const char*> {};

// A snapshot taken before the lock that shuts others out shows what they have changed meanwhile as it was.
TEST_P(PostgresIsolation, NODE_1_two_nodes_share_a_hot_row_whatever_the_default_level_is) {
  const auto o = options();
  sql("ALTER ROLE sluice IN DATABASE " + rig.database + " SET default_transaction_isolation = '" + GetParam() + "'");
  auto one = must_open(o), two = must_open(o);
  ASSERT_TRUE(commit_and_wait(*one, {.then = {KvPut{at("stock"), "", 150}}}));
  Burst first, second;
  for (int i = 0; i < 200; ++i) {
    const Commit buy{.requires_ = {needs(KvAtLeast{at("stock"), 1}, "sold_out")}, .then = {KvAdd{at("stock"), -1}}};
    first.submit(*one, buy);
    second.submit(*two, buy);
    if (i % 4 == 0) Parker().park(milliseconds(1));  // many groups
  }
  first.done();
  second.done();
  for (const auto* burst : {&first, &second})
    for (const auto& buyer : burst->all) EXPECT_TRUE(buyer.outcome) << buyer.outcome.error().to_string();
  EXPECT_EQ(first.applied() + second.applied(), 150u);
  EXPECT_EQ(ask_now(*two, GetRows{{at("stock")}})->at(0)->number, 0);
  EXPECT_TRUE(two->purge(std::chrono::hours(1), 10));
}

TEST_P(PostgresIsolation, NODE_1_nodes_that_start_together_have_numbers_of_their_own) {
  const auto o = options();
  sql("ALTER ROLE sluice IN DATABASE " + rig.database + " SET default_transaction_isolation = '" + GetParam() + "'");
  for (int round = 0; round < 5; ++round) {
    std::vector<std::unique_ptr<PostgresStore>> stores(6);
    std::vector<Thread> threads;
    for (auto& store : stores)
      threads.emplace_back("open", [&] {
        auto opened = open_postgres_store(o, rig.real, rig.random, rig.executor);
        ASSERT_TRUE(opened) << opened.error().to_string();
        store = std::move(*opened);
      });
    for (auto& thread : threads) thread.join();
    std::set<std::uint16_t> numbers;
    for (const auto& store : stores)
      if (store) numbers.insert(store->node());
    EXPECT_EQ(numbers.size(), stores.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, PostgresIsolation, testing::Values("repeatable read", "serializable"));

}  // namespace
}  // namespace sluice::store
