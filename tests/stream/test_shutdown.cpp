// Draining, cancelling, and every order of the small things that can happen to a stream.
#include <algorithm>

#include "stream/stream_fixture.hpp"

namespace sluice::stream {
namespace {

TEST_F(StreamTest, STREAM_12_draining_takes_the_messages_of_open_streams_and_refuses_new_streams) {
  auto& s = open();
  s.send("", "1");
  pipeline->drain();
  pipeline->drain();
  TestSession late(*pipeline, lane);
  const Status refused = late.open();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind(), FailureKind::shutting_down);
  EXPECT_TRUE(s.send("", "2"));
  EXPECT_FALSE(pipeline->drained());
  s.finish("");
  turn();
  s.finish("");
  s.half_close();
  EXPECT_EQ(s.summary().succeeded, 2u);
  EXPECT_TRUE(pipeline->drained());
}

TEST_F(StreamTest, STREAM_12_without_drain_on_close_everything_new_is_refused_at_once) {
  Options options;
  options.shutdown.drain_on_close = false;
  auto& s = open(options);
  s.send("", "1"), s.send("", "2");
  pipeline->drain();
  s.send("", "3");
  ASSERT_TRUE(s.terminal());
  EXPECT_EQ(s.summary().ended_by->kind(), FailureKind::shutting_down);
  EXPECT_EQ(s.summary().ended_at, 3u);
  s.finish("");
  EXPECT_EQ(s.ends, 1);
  EXPECT_EQ(s.summary().succeeded, 1u);
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::shutdown)], 2u);
}

TEST_F(StreamTest, STREAM_12_after_the_grace_what_runs_is_cancelled_and_what_waits_fails) {
  auto& s = open();
  s.send("", "1"), s.send("", "2");
  pipeline->cancel();
  turn();
  EXPECT_TRUE(s.scope().cancelled());
  EXPECT_EQ(s.scope().reason(), FailureKind::shutting_down);
  EXPECT_FALSE(pipeline->drained()) << "the first still runs";
  s.finish("", fail(FailureKind::shutting_down, "", "stopped"));
  EXPECT_EQ(s.ends, 1);
  EXPECT_TRUE(pipeline->drained());
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::shutdown)], 2u);
  EXPECT_EQ(grpc_code(*s.summary().ended_by), 14);
}

TEST_F(StreamTest, STREAM_12_past_the_options_own_grace_what_is_left_is_cancelled) {
  Options options;
  options.shutdown.grace = seconds(3);
  auto& s = open(options);
  s.send("", "1"), s.send("", "2");
  pipeline->drain();
  turn(seconds(2));
  EXPECT_FALSE(pipeline->drained());
  turn();
  EXPECT_FALSE(s.scope().cancelled());
  turn(seconds(1));
  EXPECT_FALSE(pipeline->drained()) << "asking finds that the time is over";
  turn();
  EXPECT_TRUE(s.scope().cancelled());
  s.finish("", fail(FailureKind::shutting_down, "", "stopped"));
  EXPECT_TRUE(pipeline->drained());
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::shutdown)], 2u);
}

TEST_F(StreamTest, STREAM_12_a_stream_that_answers_later_holds_the_drain_until_it_has) {
  auto& s = open();
  s.answers_later = true;
  s.half_close();
  EXPECT_EQ(s.ends, 1);
  pipeline->drain();
  EXPECT_FALSE(pipeline->drained());
  s.leave();
  s.leave();
  EXPECT_TRUE(pipeline->drained());
}

// Clients that never stop sending, work that would take far longer than the grace: the shutdown keeps
// its time, and every message that was taken is told.
TEST_F(StreamTest, STREAM_12_draining_under_load_takes_the_grace_and_no_more_and_tells_of_every_message) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    sim::SimRandom dice(seed);
    sim::SimClock own;
    Lane own_lane(own);
    Options options = keyed();
    options.backpressure.capacity = 4;
    Pipeline pipe(options, own, dice);
    struct Work {
      Instant at;
      Message* message;
    };
    std::deque<TestSession> streams;
    std::vector<std::vector<Work>> works(3);
    for (std::size_t i = 0; i < works.size(); ++i) {
      auto& s = streams.emplace_back(pipe, own_lane);
      ASSERT_TRUE(s.open());
      s.handler = [&, i](TestSession&, Message& m) {
        works[i].push_back({own.now() + (dice.one_in(20) ? seconds(60) : milliseconds(dice.below(30))), &m});
      };
    }
    constexpr Duration kGrace = milliseconds(500);
    Lifecycle lifecycle({.grace = kGrace});
    lifecycle.add(pipe);
    ASSERT_TRUE(lifecycle.start());
    Task<Status> down;
    TaskContext context{&own_lane, nullptr, kNever};
    bool over = false;
    Instant began = kNever, ended = kNever;
    for (int ms = 0; ms < 2000 && !over; ++ms) {
      for (std::size_t i = 0; i < streams.size(); ++i) {
        auto& s = streams[i];
        if (s.ends == 0) s.send(std::to_string(dice.below(10)));
        // What is cancelled ends soon; the rest when its time has come.
        std::vector<Work> due;
        std::erase_if(works[i], [&](const Work& w) {
          const bool now = w.at <= own.now() || s.scope().cancelled();
          if (now) due.push_back(w);
          return now;
        });
        for (const auto& w : due)
          s.settle(*w.message, s.scope().cancelled() && w.at > own.now() ? Status(fail(FailureKind::shutting_down, "", "stopped")) : Status{});
      }
      if (ms == 200) {
        began = own.now();
        down = lifecycle.shutdown();
        over = down.start(context, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; }, &over);
      }
      while (own_lane.run_ready() != 0) {
      }
      ended = own.now();
      own.advance(milliseconds(1));
    }
    ASSERT_TRUE(over);
    EXPECT_FALSE(down.take()) << "work was cut short, and that is said";
    EXPECT_GE(ended - began, kGrace);
    EXPECT_LE(ended - began, kGrace + milliseconds(100));
    for (auto& s : streams) {
      EXPECT_EQ(s.ends, 1);
      EXPECT_EQ(s.summary().accepted, s.summary().succeeded + s.summary().failures());
    }
    EXPECT_TRUE(pipe.drained());
  }
}

TEST_F(StreamTest, STREAM_12_a_cancel_meets_streams_that_end_or_are_gone_meanwhile) {
  auto& s = open();
  s.send("");
  pipeline->cancel();  // its word is on the lane
  s.finish("");
  s.half_close();
  sessions.clear();
  turn();
  EXPECT_TRUE(pipeline->drained());
}

// Every order of these steps, each at most once, for two keys: whatever happens, each message has
// one end, the stream one, nothing is held afterwards, and per key the order is that of arrival.
TEST_F(StreamTest, STREAM_12_every_order_of_arrive_finish_fail_close_cancel_drain_leaves_nothing_behind) {
  enum Step { arrive_a, arrive_a2, arrive_b, finish_a, finish_b, fail_a, close, cancel, drain, kill, pass_time, kSteps };
  std::vector<int> order(6);
  std::uint64_t histories = 0;
  const auto play = [&](const std::vector<int>& steps, OnDrop on_drop) {
    sim::SimClock own;
    Lane own_lane(own);
    Options options = keyed();
    options.backpressure.capacity = 1;
    options.backpressure.queue_messages = 1;
    options.ordering.on_drop = on_drop;
    options.retry.attempts = 2;
    options.retry.backoff = {.growth = resilience::Growth::constant, .base = milliseconds(5), .jitter = resilience::Jitter::none};
    Pipeline pipe(options, own, random);
    TestSession s(pipe, own_lane);
    s.pushes = true;
    if (!s.open()) FAIL();
    const auto run = [&] {
      while (own_lane.run_ready() != 0) {
      }
    };
    int sent = 0;
    for (const int step : steps) {
      switch (step) {
        case arrive_a:
        case arrive_a2:
          if (s.ends == 0) s.send("a", "a" + std::to_string(++sent));
          break;
        case arrive_b:
          if (s.ends == 0) s.send("b", "b" + std::to_string(++sent));
          break;
        case finish_a:
          if (s.runs("a") != 0) s.finish("a");
          break;
        case finish_b:
          if (s.runs("b") != 0) s.finish("b");
          break;
        case fail_a:
          if (s.runs("a") != 0) s.finish("a", fail(passing()));
          break;
        case close: s.half_close(); break;
        case cancel: s.cancel(Failure(FailureKind::cancelled, "gone", "")); break;
        case drain: pipe.drain(); break;
        case kill: pipe.cancel(); break;
        case pass_time: own.advance(milliseconds(6)); break;
        default: break;
      }
      if (step % 2 == 0) run();  // sometimes what was posted is still on its way
    }
    // Now everything comes to its end.
    s.half_close();
    for (int i = 0; i < 20; ++i) {
      run();
      own.advance(milliseconds(6));
      while (!s.running.empty()) s.finish(s.running.front()->key);
    }
    ++histories;
    ASSERT_EQ(s.ends, 1);
    const Summary& sum = s.summary();
    ASSERT_EQ(sum.accepted, sum.succeeded + sum.failures());
    ASSERT_EQ(s.in_flight(), 0u);
    ASSERT_EQ(s.free.size(), s.memory.size());
    ASSERT_TRUE(pipe.drained());
    const auto gate = pipe.stats().gate;
    ASSERT_EQ(gate.in_use + gate.keys + gate.waiting_for_permit + gate.waiting_for_turn + gate.waiting_bytes, 0u);
    for (const char key : {'a', 'b'}) {
      int last = 0;
      for (const auto& body : s.began)
        if (body[0] == key) {
          ASSERT_GE(std::stoi(body.substr(1)), last);
          last = std::stoi(body.substr(1));
        }
    }
  };
  // All ordered choices of six out of the eleven steps.
  std::vector<bool> used(kSteps, false);
  const auto choose = [&](auto& self, std::size_t depth) -> void {
    if (HasFatalFailure()) return;
    if (depth == order.size()) {
      play(order, histories % 2 == 0 ? OnDrop::end_stream : OnDrop::break_key);
      return;
    }
    for (int step = 0; step < kSteps; ++step) {
      if (used[static_cast<std::size_t>(step)]) continue;
      used[static_cast<std::size_t>(step)] = true;
      order[depth] = step;
      self(self, depth + 1);
      used[static_cast<std::size_t>(step)] = false;
    }
  };
  choose(choose, 0);
  EXPECT_EQ(histories, 332'640u);
}

// Random keys, parallelism, failures and durations: per key, what ran is what came, in its order.
TEST_F(StreamTest, STREAM_11_per_key_the_output_equals_the_input_whatever_the_keys_and_delays) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    sim::SimRandom dice(seed);
    sim::SimClock own;
    Lane own_lane(own);
    Options options = keyed();
    options.backpressure.capacity = 1 + dice.below(8);
    options.credit.messages = 1 + dice.below(32);
    options.retry.attempts = static_cast<std::uint32_t>(1 + dice.below(3));
    options.retry.backoff.base = milliseconds(3);
    options.retry.budget.tokens = 1000;
    Pipeline pipe(options, own, dice);
    std::deque<TestSession> streams;
    const std::size_t count = 1 + dice.below(3);
    for (std::size_t i = 0; i < count; ++i) ASSERT_TRUE(streams.emplace_back(pipe, own_lane).open());
    std::map<std::string, std::vector<std::string>> came, ended;
    std::size_t sent = 0;
    const std::size_t total = 400;
    const std::uint64_t keys = 1 + dice.below(12);
    std::size_t most = 0;
    for (int turns = 0; turns < 100'000; ++turns) {
      while (own_lane.run_ready() != 0) {
      }
      std::size_t at_once = 0;
      for (auto& s : streams) at_once += s.running.size();
      most = std::max(most, at_once);
      ASSERT_LE(at_once, options.backpressure.capacity);
      TestSession& s = streams[dice.below(count)];
      if (sent < total && dice.one_in(2)) {
        // One key's messages come by one stream: between streams there is no order of arrival.
        const std::string key = std::to_string(dice.below(keys)) + "/" + std::to_string(&s - &streams[0]);
        const std::string body = "m" + std::to_string(sent);
        if (s.send(key, body)) {
          ++sent;
          came[key].push_back(body);
        }
      } else if (!s.running.empty()) {
        Message* m = s.running[dice.below(s.running.size())];
        std::erase(s.running, m);
        const std::string key = m->key, body = m->body;
        const bool last = m->attempt() >= options.retry.attempts;
        const bool fails = dice.one_in(5);
        if (!fails || last) ended[key].push_back(body);
        s.settle(*m, fails ? Status(fail(passing())) : Status{});
      }
      own.advance(milliseconds(dice.below(4)));
      if (sent == total && std::ranges::all_of(streams, [](auto& one) { return one.in_flight() == 0; })) break;
    }
    for (auto& s : streams) {
      s.half_close();
      EXPECT_EQ(s.ends, 1);
      EXPECT_FALSE(s.terminal());
      EXPECT_EQ(s.summary().done, s.summary().accepted);
    }
    EXPECT_EQ(came, ended);
  }
}

}  // namespace
}  // namespace sluice::stream
