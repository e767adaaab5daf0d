// Fault plans: what they say, what they do, and what is told of a bad one.
#include <gmock/gmock.h>

#include <algorithm>

#include "apps/voucher/faults.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/base/text.hpp"
#include "support/any_store.hpp"

namespace sluice::voucher {
namespace {

using testing::HasSubstr;

TEST(FaultPlan, a_plan_reads_back_as_written) {
  const auto plan = FaultPlan::parse(
      R"({"rules":[{"region":"SG","latency_ms":40,"latency_p99_ms":400,"error_rate":0.25,"error":"overloaded",)"
      R"("hang_rate":0.5,"wrong_rate":0.125,"slow_start_ms":5000},{}],"kill_after":7})");
  ASSERT_TRUE(plan) << plan.error().to_string();
  ASSERT_EQ(plan->rules.size(), 2u);
  EXPECT_EQ(plan->rules[0].error, FailureKind::overloaded);
  const auto again = FaultPlan::parse(plan->to_json());
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->to_json(), plan->to_json());
}

TEST(FaultPlan, what_is_wrong_in_a_plan_is_named) {
  for (const auto& [text, named] : std::vector<std::pair<const char*, const char*>>{
           {"[]", "JSON object"},
           {R"({"rule":[]})", "rule: expected"},
           {R"({"rules":[{"error_rate":2}]})", "rules[0].error_rate: expected a number from 0 to 1, got 2"},
           {R"({"rules":[{},{"latency":5}]})", "rules[1].latency: expected"},
           {R"({"rules":[{"error":"boom"}]})", "rules[0].error: expected the name of a failure kind (invalid_argument, "},
           {R"({"rules":[{"error":"none"}]})", "internal), got \"none\""},
           {R"({"rules":[{"error":5}]})", "rules[0].error: expected the name of a failure kind ("},
           {R"({"rules":[{"region":5}]})", "rules[0].region: expected the text of a region, got 5"},
           {R"({"rules":{}})", "rules: expected a list of at most 100, got {}"},
           {R"({"kill_after":-1})", "kill_after: expected a whole number from 0"},
           {R"({"rules":[{"latency_p99_ms":400}]})", "rules[0].latency_p99_ms: expected a latency_ms above 0"},
           {R"({"rules":[{"latency_ms":50,"latency_p99_ms":40}]})", "got 40 and a latency_ms of 50"}}) {
    const auto plan = FaultPlan::parse(text);
    ASSERT_FALSE(plan) << text;
    EXPECT_THAT(std::string(plan.error().detail()), HasSubstr(named));
  }
}

// Without a store: a process with threads of its own is not forked.
TEST(FaultPlan, what_is_shown_of_a_plan_is_cut_between_two_characters) {
  for (int shift = 0; shift < 3; ++shift) {
    const std::string text = std::string(static_cast<std::size_t>(shift), 'x') + "\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac\u20ac";
    for (const std::string& plan : {"{\"" + text + "\":1}", "{\"rules\":\"" + text + "\"}", "{\"rules\":[{\"" + text + "\":1}]}",
                                    "{\"rules\":[{\"latency_ms\":\"" + text + "\"}]}", "\"" + text + "\""}) {
      const auto parsed = FaultPlan::parse(plan);
      ASSERT_FALSE(parsed) << plan;
      const std::string told(parsed.error().detail());
      EXPECT_EQ(utf8_until(told), told.size()) << told;
    }
  }
}

TEST(FaultPlan, a_service_ends_itself_after_as_many_questions_as_the_plan_says) {
  sim::SimClock clock;
  sim::SimRandom random{1};
  Faults faults(clock, random);
  int runs = 0;
  const rpc::Handler handler = faults.around([&](rpc::Invocation&) { ++runs; });
  faults.set(*FaultPlan::parse(R"({"kill_after":3})"));
  rpc::Invocation question;
  handler(question);
  handler(question);
  EXPECT_EQ(runs, 2);
  EXPECT_EXIT({ handler(question); std::_Exit(8); }, testing::KilledBySignal(SIGKILL), "");
}

class FaultyService : public testing::Test {
 protected:
  sim::SimClock clock;
  sim::SimRandom random{1};
  Lane lane{clock};
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  idempotency::Keys keys{clock, store.get()};
  IdSource ids{clock, 1};
  rpc::Registry registry{*store, keys, ids};
  Faults faults{clock, random};
  rpc::Invocation invocation;
  std::optional<rpc::Answer> answer;
  int runs = 0;

  FaultyService() {
    rpc::CommandSpec spec;
    spec.name = "thing";
    spec.anonymous = true;
    spec.idempotency = rpc::KeyUse::none;
    spec.handler = faults.around([this](rpc::Invocation& i) {
      ++runs;
      i.finish(rpc::Answer::of(Reply::ok("{}")));
    });
    EXPECT_TRUE(registry.add(std::move(spec)));
  }
  ~FaultyService() override {
    lane.run_ready();
    store->close();
  }
  void ask(const char* region, Duration deadline = seconds(5)) {
    ask_with(std::string(R"({"region":")") + region + "\"}", deadline);
  }
  void ask_with(const std::string& payload, Duration deadline = seconds(5)) {
    answer.reset();
    invocation.reset();
    invocation.command.name = "thing";
    invocation.command.payload = payload;
    invocation.command.deadline = clock.now() + deadline;
    invocation.lane = &lane;
    invocation.owner = this;
    invocation.done = [](rpc::Invocation& i, rpc::Answer a) noexcept {
      static_cast<FaultyService*>(i.owner)->answer = std::move(a);
    };
    registry.dispatch(invocation);
    lane.run_ready();
  }
  void wait(Duration by) {
    const Instant end = clock.now() + by;
    while (clock.now() < end) {
      clock.advance_to(std::min(end, lane.next_timer()));
      lane.run_ready();
    }
  }
};

TEST_F(FaultyService, slow_failing_wrong_and_hanging_as_the_plan_says_by_region) {
  faults.set(*FaultPlan::parse(R"({"rules":[{"region":"SG","latency_ms":40},{"region":"TH","error_rate":1},)"
                               R"({"region":"VN","wrong_rate":1},{"region":"MY","hang_rate":1}]})"));
  ask("ID");
  ASSERT_TRUE(answer) << "other regions are unharmed";
  EXPECT_EQ(runs, 1);
  ask("SG");
  EXPECT_FALSE(answer);
  wait(milliseconds(39));
  EXPECT_FALSE(answer);
  wait(milliseconds(2));
  ASSERT_TRUE(answer);
  EXPECT_EQ(runs, 2);
  ask("TH");
  wait(milliseconds(1));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->failure->code(), "fault_injected");
  ask("VN");
  wait(milliseconds(1));
  EXPECT_THAT(std::string(*answer->reply), HasSubstr("nonsense"));
  ask("MY", seconds(2));
  wait(milliseconds(1900));
  EXPECT_FALSE(answer);
  wait(milliseconds(200));
  ASSERT_TRUE(answer);
  EXPECT_EQ(runs, 2) << "what failed, lied or hung did not run";
  faults.set({});
  ask("MY");
  EXPECT_EQ(runs, 3) << "no plan, no faults";
}

TEST_F(FaultyService, an_error_is_of_the_kind_and_as_often_as_the_plan_says) {
  for (const char* kind : {"overloaded", "timeout", "unknown_outcome", "internal"}) {
    faults.set(*FaultPlan::parse(std::string(R"({"rules":[{"error_rate":1,"error":")") + kind + "\"}]}"));
    ask("SG");
    wait(milliseconds(1));
    ASSERT_TRUE(answer && answer->failure) << kind;
    EXPECT_EQ(answer->failure->traits().name, kind);
  }
  faults.set(*FaultPlan::parse(R"({"rules":[{"error_rate":0.3}]})"));
  int failed = 0;
  for (int i = 0; i < 2000; ++i) {
    ask("SG");
    wait(milliseconds(1));
    failed += answer && answer->failure.has_value();
  }
  EXPECT_NEAR(failed, 600, 100);
}

TEST_F(FaultyService, latencies_spread_so_that_one_in_a_hundred_is_as_long_as_the_plan_says) {
  faults.set(*FaultPlan::parse(R"({"rules":[{"latency_ms":100,"latency_p99_ms":1000}]})"));
  std::vector<Duration> took;
  for (int i = 0; i < 1000; ++i) {
    const Instant began = clock.now();
    ask("SG", std::chrono::hours(2));
    while (!answer && clock.now() - began < std::chrono::hours(1)) wait(milliseconds(1));
    took.push_back(clock.now() - began);
  }
  std::ranges::sort(took);
  EXPECT_GT(took[500], milliseconds(85));
  EXPECT_LT(took[500], milliseconds(118)) << "half of them";
  EXPECT_GT(took[989], milliseconds(650));
  EXPECT_LT(took[989], milliseconds(1600)) << "all but one in a hundred";
}

TEST_F(FaultyService, a_slow_start_takes_ten_times_as_long_at_first_and_less_from_then_on) {
  faults.set(*FaultPlan::parse(R"({"rules":[{"latency_ms":10,"slow_start_ms":1000}]})"));
  const auto took = [&] {
    const Instant began = clock.now();
    ask("SG");
    while (!answer && clock.now() - began < seconds(4)) wait(milliseconds(1));
    return clock.now() - began;
  };
  EXPECT_GE(took(), milliseconds(99));
  wait(milliseconds(400));  // half of it is over
  const Duration half = took();
  EXPECT_GT(half, milliseconds(45));
  EXPECT_LT(half, milliseconds(65));
  wait(seconds(1));
  EXPECT_LE(took(), milliseconds(12));
}

TEST_F(FaultyService, a_request_without_a_readable_region_is_of_no_region) {
  faults.set(*FaultPlan::parse(R"({"rules":[{"region":"SG","error_rate":1}]})"));
  for (const char* payload : {R"({"region":5})", "[]", "{}"}) {
    ask_with(payload);
    ASSERT_TRUE(answer) << payload;
    EXPECT_FALSE(answer->failure) << payload << ": " << answer->failure->to_string();
  }
  EXPECT_EQ(runs, 3);
}

TEST_F(FaultyService, another_plan_ends_what_hangs_under_the_one_before) {
  faults.set(*FaultPlan::parse(R"({"rules":[{"hang_rate":1}]})"));
  ask("SG", std::chrono::hours(1));
  ASSERT_FALSE(answer);
  faults.set(*FaultPlan::parse("{}"));
  lane.run_ready();
  ASSERT_TRUE(answer);
  EXPECT_FALSE(answer->failure) << "it is answered as if nothing had been: " << answer->failure->to_string();
  EXPECT_EQ(runs, 1);
  faults.set(*FaultPlan::parse(R"({"rules":[{"hang_rate":1}]})"));
  ask("SG", std::chrono::hours(1));
  invocation.scope.cancel(FailureKind::cancelled);
  lane.run_ready();
  faults.set(*FaultPlan::parse("{}"));  // who has left is not looked for
  lane.run_ready();
  EXPECT_EQ(runs, 1);
}

TEST_F(FaultyService, a_caller_that_leaves_ends_what_hangs) {
  faults.set(*FaultPlan::parse(R"({"rules":[{"hang_rate":1}]})"));
  ask("SG", std::chrono::hours(1));
  ASSERT_FALSE(answer);
  invocation.scope.cancel(FailureKind::cancelled);
  lane.run_ready();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->failure->kind(), FailureKind::cancelled);
}

}  // namespace
}  // namespace sluice::voucher
