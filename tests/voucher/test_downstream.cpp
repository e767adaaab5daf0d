// What the distribution service makes of answers of the code service, over a channel that answers as the
// test says, in virtual time.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "apps/voucher/answers.hpp"
#include "apps/voucher/code_service.hpp"
#include "apps/voucher/downstream.hpp"
#include "sluice/resilience/guards.hpp"
#include "sluice/rpc/interceptors.hpp"
#include "voucher/slow_store.hpp"
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
  for (int i = 0; i < count; ++i) codes.push_back("CODE-" + std::to_string(static_cast<std::uint64_t>(first) + static_cast<std::uint64_t>(i)));
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
  using Code = Result<std::shared_ptr<CodeHold>>;
  /// The items of one batch, each of whose vouchers is wanted in the same turn.
  std::vector<Code> codes_of(const std::vector<std::string>& vouchers, const std::shared_ptr<BatchCalls>& told,
                             Downstream* by = nullptr) {
    CancelScope scope;
    TaskContext context{&lane, &scope, kNever, true};
    std::vector<Task<Code>> tasks;
    for (const auto& voucher : vouchers) tasks.push_back((by != nullptr ? *by : downstream).code(Namespace("voucher"), "SG", voucher, told));
    std::size_t done = 0;
    const auto ended = [](void* count) noexcept { ++*static_cast<std::size_t*>(count); };
    for (auto& task : tasks)
      if (task.start(context, ended, &done)) ++done;
    for (int i = 0; i < 10'000 && done < tasks.size(); ++i) {
      lane.run_ready();
      world.clock.advance(milliseconds(1));
    }
    EXPECT_EQ(done, tasks.size());
    std::vector<Code> answers;
    for (auto& task : tasks) answers.push_back(task.take());
    return answers;
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
    ASSERT_TRUE(finish(supply.add("voucher", std::move(leased), world.clock.now() + seconds(10))));
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

TEST_F(VoucherDownstream, VOUCHER_6_a_code_told_pending_is_settled_when_its_segment_comes_again) {
  const auto add = [&] {
    LeasedSegment leased{"v1", 0, 1, {"CODE-0", "CODE-1", "CODE-2"}};
    ASSERT_TRUE(finish(supply.add("voucher", std::move(leased), world.clock.now() + seconds(10))));
  };
  const auto take = [&] { return supply.take("voucher", "v1", world.clock.now()); };
  add();
  take()->assigned();
  auto pending = take(), other = take();
  assign("v1", 0);
  pending->unknown();
  other->unknown();
  EXPECT_FALSE(take());
  assign("v1", 2);
  add();
  auto again = take();
  ASSERT_TRUE(again) << "nobody has it";
  EXPECT_EQ(again->ordinal(), 1);
  EXPECT_FALSE(take()) << "that one was assigned";
  again->unknown();
  assign("v1", 1);
  EXPECT_TRUE(supply.take_finished("voucher", 10).empty());
  add();
  EXPECT_EQ(supply.take_finished("voucher", 10).size(), 1u);
}

TEST_F(VoucherDownstream, VOUCHER_8_a_store_that_does_not_answer_costs_no_more_than_the_callers_time) {
  SlowStore slow(*world.store);
  CodeSupply held(slow);
  Downstream asking(held, &codes, nullptr, world.clock, world.random);
  channel->answer = [](const Json&) { return segment("v1", 0, 5); };
  slow.holding = true;
  const auto late = finish(asking.code(Namespace("voucher"), "SG", "v1"));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), "code_service_unavailable");
  EXPECT_EQ(slow.blocked, 0);
  ASSERT_EQ(slow.queries.size(), 1u);
  slow.let_go();  // who asked is gone
  lane.run_ready();
  const auto then = finish(asking.code(Namespace("voucher"), "SG", "v1"));
  ASSERT_TRUE(then && *then);
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
  codes_of(vouchers, std::make_shared<BatchCalls>());
  const Json& asked = channel->asked.back();
  EXPECT_EQ(asked["vouchers"].size(), kMaxVouchersPerCall);
  EXPECT_LE(asked["vouchers"].size() + asked["finished"].size(), kMaxVouchersPerCall) << "the code service refuses more";
}

TEST_F(VoucherDownstream, VOUCHER_8_one_refused_call_does_for_all_items_of_a_batch) {
  const auto told = std::make_shared<BatchCalls>();
  for (int later = 0; later < 2; ++later)
    for (const auto& answer : codes_of({"v1", "v2", "v1"}, told)) {
      ASSERT_FALSE(answer);
      EXPECT_EQ(answer.error().code(), "code_service_unavailable");
    }
  EXPECT_EQ(channel->asked.size(), 1u);
  channel->answer = [](const Json&) { return segment("v1", 0, 1); };
  EXPECT_TRUE(code("v1")) << "and not for other batches";
}

TEST_F(VoucherDownstream, VOUCHER_3_items_that_come_as_far_in_one_turn_share_one_call) {
  channel->answer = [](const Json& asked) {
    Json segments = Json::array();
    for (const auto& voucher : asked["vouchers"])
      segments.push_back({{"voucher", voucher}, {"first", 0}, {"token", 1}, {"codes", {"CODE-1", "CODE-2"}}});
    return Json{{"lease_ms", 600'000}, {"segments", segments}}.dump();
  };
  for (const auto& answer : codes_of({"v1", "v2", "v3", "v1"}, std::make_shared<BatchCalls>())) {
    ASSERT_TRUE(answer);
    EXPECT_TRUE(*answer);
  }
  ASSERT_EQ(channel->asked.size(), 1u);
  EXPECT_EQ(channel->asked[0]["vouchers"].size(), 3u);
}

std::string nothing_of(const std::string& voucher, std::optional<int> leased_ms) {
  Json one{{"voucher", voucher}, {"none", true}};
  if (leased_ms) one["leased_ms"] = *leased_ms;
  return Json{{"lease_ms", 600'000}, {"segments", {one}}}.dump();
}

TEST_F(VoucherDownstream, VOUCHER_6_codes_that_others_have_leased_are_no_end) {
  channel->answer = [](const Json&) { return nothing_of("v1", 4000); };
  const auto busy = code("v1");
  ASSERT_FALSE(busy) << "told as none left";
  EXPECT_EQ(busy.error().code(), kCodesLeased);
  EXPECT_TRUE(busy.error().retryable());
  EXPECT_EQ(busy.error().retry_after(), milliseconds(4000)) << "when the first lease ends";
  const std::size_t asked = channel->asked.size();
  const auto again = code("v1");
  ASSERT_FALSE(again);
  EXPECT_TRUE(again.error().retry_after());
  EXPECT_EQ(channel->asked.size(), asked) << "nobody asks again at once";
  world.clock.advance(seconds(1));
  channel->answer = [](const Json&) { return segment("v1", 0, 1, 2); };
  const auto came = code("v1");
  ASSERT_TRUE(came);
  EXPECT_TRUE(*came);
  world.clock.advance(seconds(1));
  channel->answer = [](const Json&) { return nothing_of("v1", std::nullopt); };
  const auto none = code("v1");
  ASSERT_TRUE(none);
  EXPECT_FALSE(*none) << "none is left anywhere: that is an end";
}

TEST_F(VoucherDownstream, VOUCHER_6_a_code_that_another_exchange_holds_may_come_back) {
  channel->answer = [](const Json&) { return segment("v1", 0, 1); };
  auto held = *code("v1");
  ASSERT_TRUE(held);
  // Nothing fresh; asked to resume, the code service gives the segment that is in use.
  channel->answer = [](const Json& asked) { return asked["resume"] == true ? segment("v1", 0, 1) : nothing_of("v1", 600'000); };
  const auto busy = code("v1");
  ASSERT_FALSE(busy) << "the last code is held, and no more than that";
  EXPECT_EQ(busy.error().code(), kCodesLeased);
  held.reset();  // its exchange was refused
  const auto back = code("v1");
  ASSERT_TRUE(back);
  EXPECT_TRUE(*back);
}

TEST_F(VoucherDownstream, VOUCHER_6_what_was_leased_and_never_heard_of_is_resumed_when_nothing_fresh_is_left) {
  channel->answer = [](const Json&) { return segment("v1", 0, 1); };
  (*code("v1"))->assigned();
  channel->answer = [](const Json& asked) { return asked["resume"] == true ? segment("v1", 1, 1) : nothing_of("v1", 600'000); };
  const auto unheard = code("v1");
  ASSERT_TRUE(unheard) << "a lease whose answer was lost";
  EXPECT_TRUE(*unheard);
}

class VoucherAnswers : public VoucherDownstream {
 protected:
  resilience::Guards guards{world.clock, world.random};
  rpc::Client guarded{channel, {rpc::guard_calls(guards, world.random), check_answers()}};
  CodeSupply own{*world.store};
  Downstream asking{own, &guarded, &guarded, world.clock, world.random};

  void SetUp() override {
    const auto rules = resilience::parse_rules("[guard.\"*\".breaker]\nminimum_calls = 3\n", "test.toml");
    ASSERT_TRUE(rules && guards.reload(*rules));
  }
  std::string state(const char* command) { return std::string(to_string(guards.show(command)->breaker->state)); }
};

TEST_F(VoucherAnswers, VOUCHER_8_an_answer_about_other_vouchers_counts_against_the_breaker) {
  const Namespace ns("voucher");
  for (const auto& wrong : {segment("v2", 0, 5), nothing_of("v2", std::nullopt),
                            Json{{"lease_ms", 1000}, {"segments", Json::array()}}.dump()}) {
    channel->answer = [&](const Json&) { return wrong; };
    EXPECT_FALSE(finish(asking.code(ns, "SG", "v1"))) << wrong;
  }
  EXPECT_EQ(state("voucher.code.batch_get_code_using_cache.SG"), "open");
  EXPECT_FALSE(own.has("voucher", "v2", world.clock.now()));
}

TEST_F(VoucherAnswers, VOUCHER_8_an_answer_about_another_number_of_users_counts_against_the_breaker) {
  channel->answer = [](const Json&) { return R"({"exists":[true,true]})"; };
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(finish(asking.user_exists(Namespace("voucher"), "SG", "u" + std::to_string(i))));
  EXPECT_EQ(state("voucher.user.exists.SG"), "open");
  world.clock.advance(seconds(10));
  channel->answer = [](const Json&) { return R"({"exists":[true]})"; };
  const auto good = finish(asking.user_exists(Namespace("voucher"), "SG", "u9"));
  ASSERT_TRUE(good) << good.error().to_string();
  EXPECT_TRUE(*good);
}

TEST_F(VoucherDownstream, VOUCHER_3_past_the_cache_each_turn_asks_for_as_many_fresh_codes_as_items_wait) {
  DownstreamOptions options;
  options.bypass_cache = true;
  Downstream past{supply, &codes, nullptr, world.clock, world.random, options};
  const auto ask = [&](const std::vector<std::string>& vouchers) { return codes_of(vouchers, std::make_shared<BatchCalls>(), &past); };
  std::int64_t next = 0;
  channel->answer = [&](const Json& asked) {
    const int count = asked["count"].get<int>();
    next += count;
    return segment("v1", next - count, count);
  };
  const auto first = ask({"v1", "v1", "v1"});
  for (const auto& one : first) ASSERT_TRUE(one && *one);
  ASSERT_EQ(channel->asked.size(), 1u) << "those of a batch share the call";
  EXPECT_EQ(channel->asked[0]["count"], 3);
  EXPECT_EQ(channel->asked[0]["bypass_cache"], true);
  EXPECT_EQ(channel->asked[0]["resume"], false);
  ASSERT_TRUE(*ask({"v1"})[0]);
  ASSERT_EQ(channel->asked.size(), 2u) << "what is at hand answers nobody";
  EXPECT_EQ(channel->asked[1]["count"], 1);
  channel->answer = [](const Json&) { return R"({"lease_ms":600000,"segments":[{"voucher":"v1","none":true}]})"; };
  for (int i = 0; i < 2; ++i) EXPECT_FALSE(*ask({"v1"})[0]);
  EXPECT_EQ(channel->asked.size(), 4u) << "nor what was told a moment ago";
}

}  // namespace
}  // namespace sluice::voucher
