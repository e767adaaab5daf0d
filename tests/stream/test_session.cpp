// One stream: numbers, order, retries, its one end.
#include "stream/stream_fixture.hpp"

namespace sluice::stream {
namespace {

TEST_F(StreamTest, STREAM_1_messages_are_numbered_from_one_and_the_stream_answers_once_with_its_counts) {
  auto& s = open();
  s.handler = [](TestSession& self, Message& m) {
    if (m.body == "bad") return self.settle(m, fail(declined()));
    self.settle(m, {}, m.body == "known");
  };
  for (const char* body : {"a", "bad", "known", "b"}) ASSERT_TRUE(s.send("", body));
  EXPECT_EQ(s.ends, 0);
  s.half_close();
  s.half_close();
  ASSERT_EQ(s.ends, 1);
  const Summary& sum = s.summary();
  EXPECT_EQ(sum.accepted, 4u);
  EXPECT_EQ(sum.succeeded, 3u);
  EXPECT_EQ(sum.replayed, 1u);
  EXPECT_EQ(sum.failed[static_cast<std::size_t>(FailureClass::handler_error)], 1u);
  EXPECT_EQ(sum.done, 4u);
  ASSERT_EQ(sum.first_failures.size(), 1u);
  EXPECT_EQ(sum.first_failures[0].sequence, 2u);
  EXPECT_EQ(sum.first_failures[0].failure.code(), "no_funds");
  EXPECT_FALSE(sum.ended_by);
  EXPECT_EQ(s.marks, (std::vector<std::uint64_t>{1, 2, 3, 4}));
}

TEST_F(StreamTest, STREAM_1_done_is_the_last_contiguous_sequence) {
  auto& s = open(keyed());
  for (const char* key : {"a", "b", "c"}) ASSERT_TRUE(s.send(key));
  s.finish("c");
  s.finish("b");
  EXPECT_EQ(s.summary().done, 0u);
  s.finish("a");
  EXPECT_EQ(s.summary().done, 3u);
  EXPECT_EQ(s.marks, (std::vector<std::uint64_t>{1, 2, 3}));
}

TEST_F(StreamTest, STREAM_2_zero_is_refused_and_unbounded_is_spelled_out) {
  EXPECT_TRUE(check(Options{}));
  const auto refused = [](auto set) {
    Options options;
    set(options);
    const Status checked = check(options);
    return checked ? std::string() : std::string(checked.error().detail());
  };
  EXPECT_NE(refused([](Options& o) { o.backpressure.capacity = 0; }).find("backpressure.capacity"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.backpressure.queue_messages = 0; }).find("unbounded"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.backpressure.queue_bytes = 0; }).find("queue_bytes"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.ordering.capacity = 0; }).find("ordering.capacity"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.credit.messages = 0; }).find("credit.messages"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.credit.bytes = 0; }).find("credit.bytes"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.credit.max_ahead = 10; }).find("max_ahead"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.shutdown.grace = seconds(-1); }).find("grace"), std::string::npos);
  EXPECT_NE(refused([](Options& o) { o.message_deadline = Duration::zero(); }).find("message_deadline"), std::string::npos);
  EXPECT_EQ(refused([](Options& o) { o.backpressure.capacity = unbounded, o.credit.messages = unbounded; }), "");
  EXPECT_EQ(Options{}.backpressure.policy, admission::AtCapacity::queue) << "the default the docs name";
  for (const std::uint32_t attempts : {0U, 1U}) {
    Options options;
    options.retry.attempts = attempts;
    EXPECT_TRUE(check(options)) << "no retry is a choice";
  }
}

TEST_F(StreamTest, STREAM_2_retry_attempts_of_0_and_1_are_no_retry) {
  for (const std::uint32_t attempts : {0U, 1U}) {
    Options options;
    options.retry.attempts = attempts;
    pipeline.reset();
    sessions.clear();
    auto& s = open(options);
    s.handler = [](TestSession& self, Message& m) { self.settle(m, fail(passing())); };
    s.send("", "a");
    turn(seconds(60));
    EXPECT_EQ(s.began.size(), 1u);
    EXPECT_EQ(s.summary().failures(), 1u);
    s.half_close();
    sessions.clear();
  }
}

TEST_F(StreamTest, STREAM_3_the_empty_key_is_one_key_for_all) {
  auto& one = open(keyed());
  auto& two = open();
  one.send("", "first");
  two.send("", "second");
  EXPECT_EQ(one.runs(""), 1u);
  EXPECT_EQ(two.runs(""), 0u) << "also across the streams of a pipeline";
  one.finish("");
  turn();
  EXPECT_EQ(two.runs(""), 1u);
}

TEST_F(StreamTest, STREAM_2_in_fifo_mode_streams_do_not_wait_for_each_other) {
  auto& one = open();
  auto& two = open();
  one.send("x", "1"), one.send("y", "2"), two.send("x", "3");
  EXPECT_EQ(one.began, std::vector<std::string>{"1"});
  EXPECT_EQ(two.began, std::vector<std::string>{"3"});
  one.finish("x");
  turn();
  EXPECT_EQ(one.began, (std::vector<std::string>{"1", "2"}));
}

TEST_F(StreamTest, STREAM_11_one_in_flight_per_key_and_keys_in_parallel_up_to_capacity) {
  Options options = keyed();
  options.backpressure.capacity = 2;
  auto& s = open(options);
  for (const char* key : {"a", "a", "b", "c"}) s.send(key, key);
  EXPECT_EQ(s.began, (std::vector<std::string>{"a", "b"}));
  s.finish("b");
  turn();
  EXPECT_EQ(s.began, (std::vector<std::string>{"a", "b", "c"}));
  s.finish("a");
  turn();
  EXPECT_EQ(s.runs("a"), 1u);
  s.finish("a"), s.finish("c");
  EXPECT_EQ(pipeline->stats().gate.keys, 0u) << "idle keys are nowhere";
}

TEST_F(StreamTest, STREAM_7_a_throw_is_that_messages_failure_and_the_stream_goes_on) {
  auto& s = open();
  s.handler = [](TestSession& self, Message& m) {
    if (m.body == "throw") throw std::runtime_error("boom");
    if (m.body == "odd") throw 7;
    if (m.body == "late") {
      self.settle(m, {});
      throw std::runtime_error("after the end");
    }
    self.settle(m, {});
  };
  for (const char* body : {"throw", "odd", "late", "fine"}) s.send("", body);
  s.half_close();
  EXPECT_EQ(s.ends, 1);
  EXPECT_EQ(s.summary().succeeded, 2u);
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::internal)], 2u);
  EXPECT_NE(s.summary().first_failures[0].failure.detail().find("boom"), std::string_view::npos);
}

TEST_F(StreamTest, STREAM_8_a_retry_keeps_the_key_and_gives_the_permit_to_others) {
  Options options = keyed();
  options.backpressure.capacity = 1;
  options.retry.attempts = 3;
  options.retry.backoff = {.growth = resilience::Growth::constant, .base = milliseconds(100), .jitter = resilience::Jitter::none};
  auto& s = open(options);
  s.send("a", "a1"), s.send("a", "a2"), s.send("b", "b1");
  s.finish("a", fail(passing()));
  turn();
  EXPECT_EQ(s.began, (std::vector<std::string>{"a1", "b1"})) << "the worker is not held, the key is";
  s.finish("b");
  turn(milliseconds(101));
  EXPECT_EQ(s.began, (std::vector<std::string>{"a1", "b1", "a1"}));
  EXPECT_EQ(s.running.front()->attempt(), 2u);
  s.finish("a");
  turn();
  EXPECT_EQ(s.began.back(), "a2");
  EXPECT_EQ(s.summary().retries, 1u);
}

TEST_F(StreamTest, STREAM_8_a_budget_across_messages_ends_retry_storms) {
  Options options;
  options.retry.attempts = 10;
  options.retry.backoff.base = milliseconds(1);
  options.retry.budget = {.tokens = 10, .ratio = 0};
  auto& s = open(options);
  s.handler = [](TestSession& self, Message& m) { self.settle(m, fail(passing())); };
  for (int i = 0; i < 20; ++i) s.send("", "m");
  for (int i = 0; i < 400; ++i) turn(milliseconds(50));
  s.half_close();
  EXPECT_EQ(s.ends, 1);
  EXPECT_EQ(s.summary().failures(), 20u);
  EXPECT_LE(s.began.size(), 20u + 5u) << "half the tokens";
}

TEST_F(StreamTest, STREAM_8_no_retry_begins_at_or_after_the_messages_deadline_nor_of_what_would_not_help) {
  Options options;
  options.message_deadline = milliseconds(150);
  options.retry.attempts = 10;
  options.retry.backoff = {.growth = resilience::Growth::constant, .base = milliseconds(100), .jitter = resilience::Jitter::none};
  auto& s = open(options);
  s.handler = [](TestSession& self, Message& m) { self.settle(m, fail(m.body == "no" ? declined() : passing())); };
  s.send("", "m");
  for (int i = 0; i < 10; ++i) turn(milliseconds(100));
  EXPECT_EQ(s.began.size(), 2u);
  EXPECT_EQ(s.summary().failures(), 1u);
  s.send("", "no");
  EXPECT_EQ(s.summary().failures(), 2u) << "a decline is not tried again";
}

TEST_F(StreamTest, STREAM_1_the_first_failures_by_sequence_are_told_up_to_a_bound) {
  Options options = keyed();
  options.max_failures_told = 2;
  auto& s = open(options);
  for (const char* key : {"a", "b", "c", "d"}) s.send(key);
  for (const char* key : {"d", "b", "c", "a"}) s.finish(key, fail(declined()));
  ASSERT_EQ(s.summary().first_failures.size(), 2u);
  EXPECT_EQ(s.summary().first_failures[0].sequence, 1u);
  EXPECT_EQ(s.summary().first_failures[1].sequence, 2u);
  EXPECT_EQ(s.summary().failures(), 4u);
}

// As a gRPC reactor does: the end is the end of the object.
TEST_F(StreamTest, STREAM_1_the_end_may_destroy_the_stream_from_wherever_it_comes) {
  struct Mortal final : Session {
    Mortal(Pipeline& pipeline, Lane& lane, int& deaths) : Session(pipeline, lane), deaths_(deaths) {}
    ~Mortal() override { ++deaths_; }
    void key_of(const Delivery&, std::string&) override {}
    void handle(Delivery& d) override {
      if (fails) return settle(d, fail(Failure(FailureKind::cancelled, "gone", "")));
      if (keeps) return;
      settle(d, {});
    }
    void released(Delivery&) noexcept override { half_close(); }
    void ended() noexcept override { delete this; }
    bool fails = false, keeps = false;
    int& deaths_;
  };
  pipeline = std::make_unique<Pipeline>(Options{}, clock, random);
  Message memory;
  int deaths = 0;
  for (int how = 0; how < 5; ++how) {
    auto* s = new Mortal(*pipeline, lane, deaths);
    ASSERT_TRUE(s->open());
    s->fails = how == 1;
    s->keeps = how >= 2;
    s->received(memory);
    if (how == 2) s->settle(memory, {});
    if (how == 3) s->cancel(Failure(FailureKind::cancelled, "", "")), s->settle(memory, fail(FailureKind::cancelled, "", ""));
    if (how == 4) s->half_close(), s->settle(memory, {});
    EXPECT_EQ(deaths, how + 1);
  }
}

TEST_F(StreamTest, STREAM_1_what_is_not_settled_is_neither_a_success_nor_a_failure) {
  auto& s = open(keyed());
  s.send("a", "1"), s.send("b", "2"), s.send("c", "3");
  s.finish("a", fail(FailureKind::in_doubt, "", "decided"));
  s.finish("b", fail(FailureKind::pending, "", "begun"));
  s.finish("c");
  EXPECT_EQ(s.summary().succeeded, 1u);
  EXPECT_EQ(s.summary().failures(), 0u);
  EXPECT_EQ(s.summary().unsettled(), 2u);
  EXPECT_EQ(s.summary().done, 3u);
  EXPECT_EQ(s.summary().first_failures.at(0).failure.kind(), FailureKind::in_doubt);
  EXPECT_EQ(pipeline->stats().failed, 0u);
}

}  // namespace
}  // namespace sluice::stream
