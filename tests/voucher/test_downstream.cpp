// What the distribution service makes of answers of the code service, over a channel that answers as the
// test says, in virtual time.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "apps/voucher/code_service.hpp"
#include "apps/voucher/downstream.hpp"
#include "voucher/world.hpp"

namespace sluice::voucher {
namespace {

using Json = nlohmann::json;

class Scripted final : public rpc::Channel {
 public:
  Task<Result<rpc::Response>> invoke(const rpc::RemoteCommand&, const rpc::CallContext&,
                                     const rpc::Request& request) override {
    asked.push_back(Json::parse(*request.body));
    Result<rpc::Response> response = fail(Failure(FailureKind::unavailable, "scripted", "no answer"));
    if (answer) {
      response.emplace();
      response->body = std::make_shared<const Bytes>(answer(asked.back()));
    }
    co_return response;
  }
  std::function<std::string(const Json& asked)> answer;
  std::vector<Json> asked;
};

std::string segment(const std::string& voucher, std::int64_t first, int count, std::uint64_t token = 1,
                    const Json& lease_ms = 600'000) {
  Json codes = Json::array();
  for (int i = 0; i < count; ++i) codes.push_back("CODE-" + std::to_string(first + i));
  return Json{{"lease_ms", lease_ms},
              {"segments", {{{"voucher", voucher}, {"first", first}, {"token", token}, {"codes", codes}}}}}
      .dump();
}

class VoucherDownstream : public testing::Test {
 protected:
  World world;
  Lane lane{world.clock};
  std::shared_ptr<Scripted> channel = std::make_shared<Scripted>();
  rpc::Client codes{channel, {}};
  CodeSupply supply{*world.store};
  Downstream downstream{supply, &codes, nullptr, world.clock, world.random};

  template <class T>
  T finish(Task<T> task) {
    CancelScope scope;
    TaskContext context{&lane, &scope, kNever, true};
    bool done = false;
    if (task.start(context, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &done)) done = true;
    for (int i = 0; i < 10'000 && !done; ++i) {
      lane.run_ready();
      world.clock.advance(milliseconds(1));
    }
    EXPECT_TRUE(done);
    return task.take();
  }
  Result<std::shared_ptr<CodeHold>> code(const std::string& voucher) {
    return finish(downstream.code(Namespace("voucher"), "SG", voucher));
  }
  void assign(const std::string& voucher, std::int64_t ordinal) {
    store::Commit commit;
    commit.then = {store::KvPut{assigned_key("voucher", voucher, ordinal), encode(Assignment{}), {}}};
    ASSERT_TRUE(store::commit_and_wait(*world.store, std::move(commit)));
  }
};

TEST_F(VoucherDownstream, VOUCHER_8_an_answer_to_another_question_adds_no_code) {
  channel->answer = [](const Json&) { return segment("v2", 0, 5); };
  ASSERT_FALSE(code("v1"));
  EXPECT_FALSE(supply.has("voucher", "v2", world.clock.now())) << "codes of a voucher that nobody asked for";
  for (const Json& lease : {Json(-1), Json(0), Json(9'223'372'036'854'775'807), Json(1.5), Json("long")}) {
    channel->answer = [&](const Json&) { return segment("v1", 0, 5, 1, lease); };
    const auto got = code("v1");
    ASSERT_FALSE(got) << lease;
    EXPECT_EQ(got.error().code(), "code_service_unavailable");
  }
  for (const std::int64_t first : {std::int64_t{-1}, std::int64_t{9'223'372'036'854'775'806}}) {
    channel->answer = [&](const Json&) { return segment("v1", first, 5); };
    EXPECT_FALSE(code("v1")) << first;
  }
  channel->answer = [&](const Json&) { return segment("v1", 0, 0); };
  EXPECT_FALSE(code("v1")) << "a segment of nothing";
  EXPECT_FALSE(supply.has("voucher", "v1", world.clock.now()));
  channel->answer = [](const Json&) { return segment("v1", 0, 5); };
  EXPECT_TRUE(code("v1"));
}

TEST_F(VoucherDownstream, VOUCHER_6_a_segment_that_comes_again_gives_no_code_that_was_assigned_meanwhile) {
  const auto add = [&](std::uint64_t token) {
    LeasedSegment leased{"v1", 0, token, {"CODE-0", "CODE-1", "CODE-2", "CODE-3"}};
    ASSERT_TRUE(supply.add("voucher", std::move(leased), world.clock.now() + seconds(10)));
  };
  add(1);
  auto held = supply.take("voucher", "v1", world.clock.now());
  ASSERT_TRUE(held);
  world.clock.advance(seconds(20));  // the lease is over; another service had it and assigned two
  assign("v1", 1);
  assign("v1", 2);
  add(3);
  std::vector<std::int64_t> given;
  std::vector<std::shared_ptr<CodeHold>> holds;
  while (auto hold = supply.take("voucher", "v1", world.clock.now())) {
    given.push_back(hold->ordinal());
    holds.push_back(std::move(hold));
  }
  EXPECT_EQ(given, (std::vector<std::int64_t>{3}));
  holds.front()->assigned();
  EXPECT_TRUE(supply.take_finished("voucher", 10).empty()) << "one is held still";
  held->assigned();
  const auto finished = supply.take_finished("voucher", 10);
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0].token, 3u);
}

TEST_F(VoucherDownstream, VOUCHER_6_a_finished_segment_is_told_until_somebody_heard_it) {
  channel->answer = [](const Json&) { return segment("v1", 0, 1); };
  (*code("v1"))->assigned();  // the only code of its segment
  channel->answer = nullptr;
  EXPECT_FALSE(code("v1"));
  ASSERT_EQ(channel->asked.back()["finished"].size(), 1u);
  channel->answer = [](const Json&) { return segment("v1", 1, 1); };
  EXPECT_TRUE(code("v1"));
  ASSERT_EQ(channel->asked.back()["finished"].size(), 1u) << "the first call told nobody";
  channel->answer = [](const Json&) { return segment("v2", 0, 1); };
  EXPECT_TRUE(code("v2"));
  EXPECT_TRUE(channel->asked.back()["finished"].empty()) << "once is enough";
}

TEST_F(VoucherDownstream, VOUCHER_2_a_full_batch_of_different_vouchers_asks_no_more_than_is_answered) {
  channel->answer = [](const Json&) { return segment("v1", 0, 1); };
  (*code("v1"))->assigned();
  std::vector<std::string> vouchers;
  for (std::size_t i = 0; i < kMaxVouchersPerCall; ++i) vouchers.push_back("w" + std::to_string(i));
  channel->answer = nullptr;
  auto asking = downstream.prefetch_codes(Namespace("voucher"), "SG", vouchers, std::make_shared<FailedCalls>());
  finish(std::move(asking));
  const Json& asked = channel->asked.back();
  EXPECT_EQ(asked["vouchers"].size(), kMaxVouchersPerCall);
  EXPECT_LE(asked["vouchers"].size() + asked["finished"].size(), kMaxVouchersPerCall) << "the code service refuses more";
}

TEST_F(VoucherDownstream, VOUCHER_8_one_refused_call_does_for_all_items_of_a_batch) {
  const Namespace ns("voucher");
  const auto told = std::make_shared<FailedCalls>();
  finish(downstream.prefetch_codes(ns, "SG", {"v1", "v2"}, told));
  for (const char* voucher : {"v1", "v2", "v1"}) {
    const auto answer = finish(downstream.code(ns, "SG", voucher, told));
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code(), "code_service_unavailable");
  }
  EXPECT_EQ(channel->asked.size(), 1u);
  channel->answer = [](const Json&) { return segment("v1", 0, 1); };
  EXPECT_TRUE(code("v1")) << "and not for other batches";
}

}  // namespace
}  // namespace sluice::voucher
