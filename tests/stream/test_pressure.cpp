// What a stream may hold: policies at capacity, and credit (STREAM-5, STREAM-10).
#include "stream/stream_fixture.hpp"

namespace sluice::stream {
namespace {

TEST_F(StreamTest, STREAM_5_hard_reject_refuses_at_once_and_STREAM_9_the_stream_ends_with_the_sequence) {
  Options options = keyed();
  options.backpressure.policy = admission::AtCapacity::hard_reject;
  options.backpressure.capacity = 1;
  auto& s = open(options);
  s.send("a", "a1");
  s.send("b", "b1");
  ASSERT_TRUE(s.terminal());
  EXPECT_EQ(s.summary().ended_at, 2u);
  EXPECT_EQ(s.summary().ended_by->kind(), FailureKind::overloaded);
  EXPECT_TRUE(s.summary().ended_by->retry_after()) << "pushback";
  EXPECT_EQ(grpc_code(*s.summary().ended_by), 8);
  EXPECT_EQ(s.ends, 0) << "what runs finishes first";
  EXPECT_FALSE(s.scope().cancelled());
  s.finish("a");
  EXPECT_EQ(s.ends, 1);
  EXPECT_EQ(s.summary().succeeded, 1u);
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::backpressure)], 1u);
  EXPECT_EQ(s.summary().done, 1u);
}

TEST_F(StreamTest, STREAM_5_queue_waits_and_refuses_when_the_queue_is_full) {
  Options options = keyed();
  options.backpressure.capacity = 1;
  options.backpressure.queue_messages = 1;
  auto& s = open(options);
  s.pushes = true;
  s.send("a"), s.send("b");
  EXPECT_FALSE(s.terminal());
  s.send("c");
  EXPECT_TRUE(s.terminal());
  EXPECT_EQ(s.summary().ended_at, 3u);
  s.finish("a");
  turn();
  EXPECT_EQ(s.ends, 1);
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::ordering)], 1u) << "b, which waited: told, not lost";
}

TEST_F(StreamTest, STREAM_5_soft_allow_admits_with_and_without_a_signal_up_to_a_ceiling) {
  for (const bool signal : {false, true}) {
    std::vector<std::size_t> told;
    Options options = keyed();
    options.backpressure.policy = signal ? admission::AtCapacity::soft_allow_with_signal : admission::AtCapacity::soft_allow;
    options.backpressure.capacity = 1;
    options.backpressure.ceiling = 2;
    options.backpressure.on_pressure = [&](std::size_t in_use, std::size_t) { told.push_back(in_use); };
    pipeline.reset();
    auto& s = open(options);
    s.send("a"), s.send("b");
    EXPECT_EQ(s.running.size(), 2u);
    EXPECT_TRUE(s.summary().pressure);
    EXPECT_EQ(told, signal ? std::vector<std::size_t>{2} : std::vector<std::size_t>{});
    s.send("c");
    EXPECT_TRUE(s.terminal()) << "the ceiling is hard";
    s.finish("a"), s.finish("b");
    turn();
    sessions.clear();
  }
}

TEST_F(StreamTest, STREAM_5_admissions_over_capacity_and_refusals_are_counted) {
  Metrics metrics;
  Options options = keyed();
  options.backpressure.policy = admission::AtCapacity::soft_allow;
  options.backpressure.capacity = 1;
  options.backpressure.ceiling = 3;
  pipeline = std::make_unique<Pipeline>(options, clock, random, &metrics);
  auto& s = open();
  for (const char* const key : {"a", "b", "c", "d"}) s.send(key);
  const std::string told = metrics.prometheus_text();
  EXPECT_NE(told.find("sluice_admission_over_capacity{gate=\"stream\"} 2\n"), std::string::npos) << told;
  EXPECT_NE(told.find("sluice_admission_in_use{gate=\"stream\"} 3\n"), std::string::npos);
  EXPECT_NE(told.find("sluice_admission_refused{gate=\"stream\"} 1\n"), std::string::npos);
  for (const char* const key : {"a", "b", "c"}) s.finish(key);
  turn();
  sessions.clear();
  pipeline.reset();
}

TEST_F(StreamTest, STREAM_10_credit_is_in_messages_and_bytes_and_comes_back_with_the_end_of_each) {
  Options options;
  options.credit.messages = 3;
  options.credit.bytes = 100;
  auto& s = open(options);
  EXPECT_TRUE(s.send("", "1", 60));
  EXPECT_TRUE(s.send("", "2", 60)) << "passed by one message at most";
  EXPECT_FALSE(s.has_credit());
  s.finish("");
  turn();
  EXPECT_TRUE(s.send("", "3", 1));
  EXPECT_TRUE(s.send("", "4", 1));
  EXPECT_FALSE(s.has_credit()) << "three are in flight";
  EXPECT_EQ(s.in_flight(), 3u);
  EXPECT_EQ(s.bytes_in_flight(), 62u);
}

TEST_F(StreamTest, STREAM_11_streams_of_one_hot_key_have_no_other_stream_refused) {
  for (const std::size_t size : {std::size_t{100}, std::size_t{64} << 10}) {  // what may wait ends in messages, in bytes
    std::vector<TestSession*> hot;
    for (int i = 0; i < 50; ++i) hot.push_back(&open(keyed()));
    std::size_t poured = 0;
    for (auto* s : hot)
      while (s->send("hot", "h", size)) ++poured;
    auto& other = open(keyed());
    for (int i = 0; i < 1000; ++i) {
      const std::string key = "k" + std::to_string(i % 7);
      ASSERT_TRUE(other.send(key, "o", size)) << "it must always have credit for one";
      ASSERT_EQ(other.runs(key), 1u) << "message " << i << " of a key that is free does not wait";
      other.finish(key);
    }
    EXPECT_FALSE(other.terminal());
    EXPECT_GT(poured, 500u);
    for (auto* s : hot) {
      EXPECT_GE(s->in_flight(), 1u) << "each may read";
      EXPECT_FALSE(s->terminal()) << "nor is any of the hot ones refused";
    }
    EXPECT_EQ(pipeline->stats().gate.refused, 0u);
    // All of it goes on: whoever had no credit has it again when its own have ended.
    for (std::size_t i = 0; i < 2 * poured; ++i) {
      for (auto* s : hot)
        if (s->runs("hot") != 0) s->finish("hot");
      turn();
      for (auto* s : hot)
        s->send("hot", "h", size);
    }
    EXPECT_EQ(pipeline->stats().gate.refused, 0u);
    EXPECT_GT(pipeline->stats().succeeded, 1000 + poured);
    for (auto* s : hot) s->cancel(Failure(FailureKind::cancelled, "gone", ""));
    for (auto* s : hot)
      if (s->runs("hot") != 0) s->finish("hot");
    turn();
    sessions.clear();
    EXPECT_TRUE(pipeline->room().has_place(1, 1)) << "all of it was given back";
    pipeline.reset();
  }
}

TEST_F(StreamTest, STREAM_10_room_is_shared_by_what_is_left_and_comes_back) {
  Room room(100, 1000);
  room.enter();
  std::size_t held = 0;
  while (room.has_place(held, held)) room.take(1), ++held;
  EXPECT_EQ(held, 20u) << "a quarter of the 80 that are left";
  room.enter();
  EXPECT_TRUE(room.has_place(10, 10)) << "for one that comes new";
  room.take(960);
  EXPECT_FALSE(room.has_place(1, 5)) << "in bytes too";
  EXPECT_TRUE(room.has_place(0, 0)) << "one message always";
  room.give_back(960);
  EXPECT_TRUE(room.has_place(1, 5));
  Room endless(unbounded, unbounded);
  endless.take(1);
  EXPECT_TRUE(endless.has_place(1'000'000, 1'000'000));
}

TEST_F(StreamTest, STREAM_10_what_is_finished_far_ahead_of_a_stuck_message_is_bounded_too) {
  Options options = keyed();
  options.credit.messages = 4;
  options.credit.max_ahead = 100;
  auto& s = open(options);
  s.handler = [](TestSession& self, Message& m) {
    if (m.key == "stuck") return self.running.push_back(&m);
    self.settle(m, {});
  };
  ASSERT_TRUE(s.send("stuck"));
  int sent = 1;
  while (s.send("other" + std::to_string(sent % 7))) ++sent;
  EXPECT_EQ(sent, 100);
  s.finish("stuck");
  EXPECT_EQ(s.summary().done, 100u);
  EXPECT_TRUE(s.has_credit());
}

TEST_F(StreamTest, STREAM_10_a_stream_whose_credit_ends_behind_a_broken_key_is_ended_and_does_not_hang) {
  Options options = keyed();
  options.backpressure.policy = admission::AtCapacity::hard_reject;
  options.backpressure.capacity = 1;
  options.ordering.on_drop = OnDrop::break_key;
  options.credit.messages = 4;
  options.credit.max_ahead = 10;
  auto& s = open(options);
  s.send("a"), s.send("b");  // the second is refused
  s.finish("a");
  s.handler = [](TestSession& self, Message& m) { self.settle(m, {}); };
  for (int i = 0; i < 20 && s.send("c"); ++i) turn();
  EXPECT_EQ(s.in_flight(), 0u);
  EXPECT_EQ(s.ends, 1) << "nothing is in flight and nothing more is read";
  ASSERT_TRUE(s.terminal());
  EXPECT_EQ(s.summary().ended_by->kind(), FailureKind::ordering);
}

}  // namespace
}  // namespace sluice::stream
