// Calls that waited, for a place or for their turn, start under what the breaker says when they start.
#include <gtest/gtest.h>

#include <list>

#include "resilience/guarded_fixture.hpp"

namespace sluice::resilience {
namespace {

struct WaitingCalls : GuardedTest {
  struct Caller {
    Task<Result<int>> task;
    TaskContext context;
    bool done = false;
    Instant ended{};
    Result<int> answer = 0;
  };
  std::list<Caller> callers;

  Caller& come(Duration latency, std::optional<FailureKind> fails = {}, GuardedCall call = {}) {
    Caller& caller = callers.emplace_back();
    caller.context = {&lane, nullptr, kNever};
    caller.task = guard(latency, fails, std::move(call));
    lane.post([&caller] {
      const auto ended = [](void* self) noexcept { static_cast<Caller*>(self)->done = true; };
      caller.done = caller.task.start(caller.context, ended, &caller);
    });
    return caller;
  }
  void run_all() {
    ASSERT_TRUE(scheduler.run_until([&] { return std::ranges::all_of(callers, [](const Caller& c) { return c.done; }); }, 10'000));
    for (Caller& caller : callers) caller.answer = caller.task.take();
  }
  static bool stopped_by_breaker(const Caller& caller) {
    return !caller.answer && caller.answer.error().code() == "blocked_by_breaker";
  }
  void nothing_is_kept() {
    const ProtectorSnapshot now = shown();
    EXPECT_EQ(now.breaker->trials_running, 0u);
    if (now.bulkhead) {
      EXPECT_EQ(now.bulkhead->in_flight + now.bulkhead->waiting, 0u);
    }
  }
};

TEST_F(WaitingCalls, RES_11_who_waited_for_a_place_does_not_start_under_an_open_breaker) {
  load("[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 10\nminimum_calls = 1\nisolation = \"1s\"\nisolation_jitter = 0\n"
       "[guard.a.bulkhead]\nlimit = 2\nmax_queue = 100\nmax_wait = \"20s\"\n[guard.a.rate]\nlimit = 50\nperiod = \"1h\"\n");
  come(milliseconds(100), FailureKind::unavailable);
  come(milliseconds(500));
  for (int i = 0; i < 10; ++i) come(milliseconds(10));
  run_all();
  EXPECT_EQ(calls, 2) << "calls were started although the breaker was open";
  EXPECT_EQ(std::ranges::count_if(callers, stopped_by_breaker), 10);
  EXPECT_EQ(counts_of(Policy::breaker), 10u);
  EXPECT_EQ(callers.back().answer.error().retry_after(), seconds(1));
  EXPECT_EQ(shown().tokens, 48u) << "who did not start kept tokens";
  nothing_is_kept();
}

TEST_F(WaitingCalls, RES_11_trials_are_as_many_as_said_also_when_many_wait_for_their_turn) {
  load("[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 10\nminimum_calls = 1\nisolation = \"150ms\"\nisolation_jitter = 0\n"
       "trials = 1\n[guard.a.pacing]\nlimit = 10\nmax_wait = \"20s\"\n[guard.a.timeout]\ntimeout = \"10s\"\n");
  come(milliseconds(20), FailureKind::unavailable);   // opens until 170 ms
  Caller& while_open = come(milliseconds(10));        // its turn is at 100 ms
  Caller& trial = come(milliseconds(250));            // 200 ms
  Caller& while_half_open = come(milliseconds(10));   // 300 ms
  Caller& also_half_open = come(milliseconds(10));    // 400 ms
  Caller& after_trial = come(milliseconds(10));       // 500 ms: closed again
  run_all();
  EXPECT_TRUE(stopped_by_breaker(while_open));
  EXPECT_TRUE(trial.answer);
  EXPECT_TRUE(stopped_by_breaker(while_half_open));
  EXPECT_TRUE(stopped_by_breaker(also_half_open));
  EXPECT_TRUE(after_trial.answer);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(most_running, 1);
  nothing_is_kept();
}

TEST_F(WaitingCalls, RES_11_a_trial_that_expired_while_it_waited_is_not_run_beside_the_one_that_has_its_place) {
  load("[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 10\nminimum_calls = 1\nisolation = \"10ms\"\nisolation_jitter = 0\n"
       "trials = 1\ntrial_timeout = \"150ms\"\n[guard.a.pacing]\nlimit = 5\nmax_wait = \"20s\"\n");
  come(milliseconds(1), FailureKind::unavailable);  // opens until 11 ms
  Caller* expired = nullptr;
  Caller* second = nullptr;
  Caller* third = nullptr;
  scheduler.after(milliseconds(20), [&] { expired = &come(milliseconds(300)); });  // trial until 170 ms, turn at 200 ms
  scheduler.after(milliseconds(180), [&] { second = &come(milliseconds(10)); });   // trial until 330 ms, turn at 400 ms
  scheduler.after(milliseconds(350), [&] { third = &come(milliseconds(10)); });    // trial, turn at 600 ms
  ASSERT_TRUE(scheduler.run_until([&] { return third != nullptr; }, 10'000));
  run_all();
  EXPECT_TRUE(stopped_by_breaker(*expired)) << "its place was another's";
  EXPECT_TRUE(stopped_by_breaker(*second));
  EXPECT_TRUE(third->answer) << "expired, but nobody took its place";
  EXPECT_EQ(most_running, 1);
  EXPECT_EQ(shown().breaker->state, BreakerState::closed);
  nothing_is_kept();
}

TEST_F(WaitingCalls, RES_4_who_is_stopped_at_its_turn_gives_back_tokens) {
  load("[guard.a.breaker]\nwindow = \"count\"\nwindow_calls = 10\nminimum_calls = 1\nisolation = \"5s\"\n"
       "[guard.a.pacing]\nlimit = 10\nmax_wait = \"20s\"\n[guard.a.rate]\nlimit = 10\nperiod = \"1h\"\n"
       "[guard.a.hot_keys]\nlimit = 2\nperiod = \"1h\"\n[guard.a.bulkhead]\nlimit = 5\n");
  GuardedCall call;
  call.hot_key = "v";
  come(milliseconds(20), FailureKind::unavailable, call);
  Caller& waited = come({}, {}, call);
  run_all();
  EXPECT_TRUE(stopped_by_breaker(waited));
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(shown().tokens, 9u) << "a refusal kept a token";
  nothing_is_kept();
  clock.advance(seconds(6));
  EXPECT_TRUE(run(guard({}, {}, call))) << "a refusal kept the key's token";
}

TEST_F(WaitingCalls, RES_7_an_observed_breaker_stops_nobody_who_waited) {
  load("[guard.a.breaker]\nmode = \"observe\"\nwindow = \"count\"\nwindow_calls = 10\nminimum_calls = 1\nisolation = \"1s\"\n"
       "[guard.a.bulkhead]\nlimit = 1\nmax_queue = 9\nmax_wait = \"20s\"\n");
  come(milliseconds(100), FailureKind::unavailable);
  for (int i = 0; i < 5; ++i) come(milliseconds(10));
  run_all();
  EXPECT_EQ(calls, 6);
  EXPECT_EQ(counts_of(Policy::breaker), 0u);
  nothing_is_kept();
}

}  // namespace
}  // namespace sluice::resilience
