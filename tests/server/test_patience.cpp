// Who asks about transactions is answered by its deadline, whatever the database does.
#include <gtest/gtest.h>

#include "rpc/registry_fixture.hpp"
#include "server/commands.hpp"
#include "server/transaction_queries.hpp"
#include "sim/scheduler.hpp"

namespace sluice::server {
namespace {

/// What blocks on the store is on the scheduler, which stands still: a frozen database.
struct PatienceTest : rpc::RegistryTest {
  rpc::Got& ask(std::string name, std::string payload) {
    auto& invocation = make(std::move(name), std::nullopt, std::move(payload));
    invocation.command.ns = Namespace("sluice");
    invocation.command.deadline = clock.now() + milliseconds(200);
    return send(invocation);
  }
  void pass(Duration time) {
    clock.advance(time);
    lane.run_ready();
  }
  sim::SimScheduler scheduler{clock, 1};
  Backroom backroom{scheduler};
  flow::Flows flows;
};

TEST_F(PatienceTest, FLOW_27_an_operator_is_answered_by_the_deadline_while_the_database_stands_still) {
  principal->permissions = {"sluice:*"};
  ASSERT_TRUE(add_operator_commands(registry, backroom, flows));
  auto& settled = ask("sluice.tx.settle", R"({"id":"0000000000001","outcome":"committed","reason":"seen at the bank"})");
  auto& shown = ask("sluice.idempotency.show", R"({"app":"shop","principal":"ann","command":"order.place","key":"k"})");
  pass(milliseconds(150));
  EXPECT_FALSE(settled.done);
  pass(milliseconds(60));
  for (const auto* got : {&settled, &shown}) {
    ASSERT_TRUE(got->done);
    EXPECT_EQ(got->code(), "no_answer_in_time");
    EXPECT_EQ(got->answer.failure->kind(), FailureKind::timeout);
  }
  scheduler.run_to(clock.now(), 1000);  // the database is back: nobody is answered twice
  lane.run_ready();
  auto& again = ask("sluice.idempotency.show", R"({"app":"shop","principal":"ann","command":"order.place","key":"k"})");
  scheduler.run_to(clock.now(), 1000);
  lane.run_ready();
  EXPECT_EQ(again.code(), "unknown_key");
}

TEST_F(PatienceTest, FLOW_27_a_question_about_transactions_is_answered_by_its_deadline) {
  Lane reader(clock);
  TransactionQueries queries(*store, flows, registry, clock, reader);
  std::vector<std::string> answers_to_lists;
  const auto list = [&] {
    transport::TransactionQuery query;
    query.principal = principal;
    query.lane = &lane;
    query.deadline = clock.now() + milliseconds(200);
    queries.answer(query, [&](Result<std::string> json) { answers_to_lists.push_back(json ? *json : std::string(json.error().code())); });
  };
  list();
  pass(milliseconds(210));
  ASSERT_EQ(answers_to_lists, std::vector<std::string>{"no_answer_in_time"});
  list();
  reader.run_ready();
  lane.run_ready();
  ASSERT_EQ(answers_to_lists.size(), 2u) << "the first is not answered twice";
  EXPECT_EQ(answers_to_lists[1], "{\"transactions\":[]}");
}

}  // namespace
}  // namespace sluice::server
