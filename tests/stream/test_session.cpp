// One stream: numbers, order, credit, failures, retries, its one end.
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

TEST_F(StreamTest, STREAM_9_or_the_key_is_broken_and_its_later_messages_are_refused_with_it) {
  Options options = keyed();
  options.backpressure.policy = admission::AtCapacity::hard_reject;
  options.backpressure.capacity = 1;
  options.ordering.on_drop = OnDrop::break_key;
  auto& s = open(options);
  s.send("a", "a1");
  s.send("b", "b1");  // refused
  s.finish("a");
  s.send("b", "b2");
  s.send("c", "c1");
  EXPECT_EQ(s.began, (std::vector<std::string>{"a1", "c1"}));
  s.finish("c");
  s.half_close();
  EXPECT_EQ(s.ends, 1);
  EXPECT_FALSE(s.terminal());
  EXPECT_EQ(s.summary().succeeded, 2u);
  ASSERT_EQ(s.summary().first_failures.size(), 2u);
  EXPECT_EQ(s.summary().first_failures[0].what, FailureClass::backpressure);
  EXPECT_EQ(s.summary().first_failures[1].what, FailureClass::ordering);
  EXPECT_EQ(s.summary().done, 1u) << "a hole is never passed over";
}

// What a command comes to when the server's own gate, behind the stream's, is full.
TEST_F(StreamTest, STREAM_9_a_message_that_a_gate_further_in_refuses_leaves_no_hole_either) {
  for (const auto& [kind, code] : std::vector<std::pair<FailureKind, const char*>>{{FailureKind::overloaded, "gate_full"},
                                                                                  {FailureKind::overloaded, "gate_wait"},
                                                                                  {FailureKind::ordering, "broken"}}) {
    pipeline.reset();
    auto& s = open(keyed());
    s.send("a", "a1"), s.send("a", "a2"), s.send("b", "b1");
    s.finish("a", fail(kind, code, "nothing ran"));
    turn();
    EXPECT_EQ(s.began, (std::vector<std::string>{"a1", "b1"})) << "what stood behind it in its key";
    ASSERT_TRUE(s.terminal());
    EXPECT_EQ(s.summary().ended_at, 1u);
    s.finish("b");
    EXPECT_EQ(s.ends, 1);
    EXPECT_EQ(s.summary().done, 0u);
    EXPECT_EQ(s.summary().succeeded, 1u);
    EXPECT_EQ(s.summary().failures(), 2u);
    sessions.clear();
  }
}

TEST_F(StreamTest, STREAM_9_a_handlers_failure_may_break_its_key_or_end_the_stream) {
  for (const OnFailure then : {OnFailure::go_on, OnFailure::break_key, OnFailure::end_stream}) {
    Options options = keyed();
    options.ordering.on_failure = then;
    pipeline.reset();
    auto& s = open(options);
    s.send("a", "a1"), s.send("a", "a2"), s.send("b", "b1");
    s.finish("a", fail(declined()));
    turn();
    EXPECT_EQ(s.runs("a"), then == OnFailure::go_on ? 1u : 0u);
    EXPECT_EQ(s.terminal(), then == OnFailure::end_stream);
    while (!s.running.empty()) s.finish(s.running.front()->key);
    s.half_close();
    EXPECT_EQ(s.ends, 1);
    EXPECT_EQ(s.summary().succeeded, then == OnFailure::go_on ? 2u : 1u);
    sessions.clear();
  }
}

TEST_F(StreamTest, STREAM_9_broken_keys_are_bounded) {
  Options options = keyed();
  options.ordering.on_failure = OnFailure::break_key;
  options.ordering.max_broken_keys = 2;
  auto& s = open(options);
  s.handler = [](TestSession& self, Message& m) { self.settle(m, fail(declined())); };
  s.send("a"), s.send("b");
  EXPECT_FALSE(s.terminal());
  s.send("c");
  ASSERT_TRUE(s.terminal());
  EXPECT_EQ(s.summary().ended_by->code(), "too_many_broken_keys");
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

TEST_F(StreamTest, STREAM_6_a_callers_going_cancels_what_runs_and_drops_what_waits) {
  Options options = keyed();
  options.retry.attempts = 3;
  auto& s = open(options);
  s.send("a", "a1"), s.send("a", "a2"), s.send("b", "b1");
  s.finish("b", fail(passing()));  // backs off
  s.cancel(Failure(FailureKind::cancelled, "gone", "the caller left"));
  EXPECT_TRUE(s.scope().cancelled());
  EXPECT_EQ(s.ends, 0) << "a1 runs still";
  s.finish("a", fail(FailureKind::cancelled, "cancelled", "stopped"));
  EXPECT_EQ(s.ends, 1);
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::context_cancelled)], 3u);
  EXPECT_EQ(s.summary().done, 0u) << "what was cut off may or may not have had its effect";
  EXPECT_EQ(pipeline->stats().gate.in_use, 0u);
  EXPECT_EQ(pipeline->stats().gate.keys, 0u);
}

TEST_F(StreamTest, STREAM_6_one_table_says_what_follows_from_each_class) {
  const auto cls = [](FailureKind kind, std::string_view code = {}) { return classify_failure(Failure(kind, code, "")); };
  EXPECT_EQ(cls(FailureKind::rejected), FailureClass::handler_error);
  EXPECT_EQ(cls(FailureKind::overloaded), FailureClass::handler_error) << "a handler's own";
  EXPECT_EQ(cls(FailureKind::overloaded, "gate_full"), FailureClass::backpressure);
  EXPECT_EQ(cls(FailureKind::ordering), FailureClass::ordering);
  EXPECT_EQ(cls(FailureKind::shutting_down), FailureClass::shutdown);
  EXPECT_EQ(cls(FailureKind::cancelled), FailureClass::context_cancelled);
  EXPECT_EQ(cls(FailureKind::timeout), FailureClass::handler_error);
  EXPECT_EQ(cls(FailureKind::timeout, "cancelled"), FailureClass::context_cancelled);
  EXPECT_EQ(cls(FailureKind::internal), FailureClass::internal);
  EXPECT_EQ(classify_failure(Status{}), FailureClass::none);
  EXPECT_EQ(grpc_code(Failure(FailureKind::rejected, "")), sluice::traits(FailureKind::rejected).grpc_code);
  EXPECT_EQ(grpc_code(Failure(FailureKind::timeout, "cancelled", "")), 4) << "DEADLINE_EXCEEDED";
  EXPECT_EQ(grpc_code(Failure(FailureKind::cancelled, "")), 1);
  EXPECT_EQ(grpc_code(Failure(FailureKind::ordering, "")), 10);
  EXPECT_EQ(grpc_code(Failure(FailureKind::shutting_down, "")), 14);
  EXPECT_EQ(grpc_code(Failure(FailureKind::internal, "")), 13);
  EXPECT_TRUE(is_retryable(passing()));
  EXPECT_FALSE(is_retryable(declined()));
  EXPECT_EQ(failure_classes().size(), kFailureClasses);
  for (const auto& row : failure_classes()) EXPECT_EQ(&traits(row.what), &row);
}

// What is told of a message that failed must be durable before later ones of its key run.
TEST_F(StreamTest, STREAM_15_the_key_of_a_failed_message_waits_until_its_failure_is_kept) {
  auto& s = open(keyed());
  s.keeps = true;
  s.send("a", "1"), s.send("a", "2"), s.send("b", "3");
  s.finish("a", fail(declined()));
  turn();
  ASSERT_EQ(s.keeping.size(), 1u);
  EXPECT_EQ(s.runs("a"), 0u) << "2 waits";
  EXPECT_EQ(s.summary().done, 0u);
  s.finish("b");
  s.half_close();
  s.kept(*s.keeping[0], {});
  turn();
  EXPECT_EQ(s.runs("a"), 1u);
  EXPECT_EQ(s.summary().done, 1u);
  EXPECT_EQ(s.ends, 0);
  s.finish("a");
  EXPECT_EQ(s.summary().done, 3u);
  EXPECT_EQ(s.summary().failures(), 1u);
  EXPECT_EQ(s.ends, 1);
}

TEST_F(StreamTest, STREAM_15_a_failure_that_cannot_be_kept_is_not_done_and_ends_the_stream) {
  auto& s = open(keyed());
  s.keeps = true;
  s.send("a", "1"), s.send("a", "2"), s.send("b", "3");
  s.finish("a", fail(declined()));
  s.kept(*s.keeping[0], fail(FailureKind::unavailable, "disk", "full"));
  turn();
  ASSERT_TRUE(s.terminal());
  EXPECT_EQ(s.summary().ended_by->code(), "disk");
  EXPECT_EQ(s.began, (std::vector<std::string>{"1", "3"})) << "2 never ran";
  EXPECT_EQ(s.ends, 0) << "3 runs still";
  s.finish("b");
  EXPECT_EQ(s.ends, 1);
  EXPECT_EQ(s.summary().done, 0u);
  EXPECT_TRUE(s.marks.empty());
  EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(FailureClass::ordering)], 2u);
}

TEST_F(StreamTest, STREAM_15_the_last_one_that_is_kept_ends_the_stream_once) {
  for (const bool ok : {true, false}) {
    auto& s = open(keyed());
    s.keeps = true;
    s.send("a", "1"), s.send("b", "2");
    s.finish("a", fail(declined())), s.finish("b", fail(declined()));
    s.half_close();
    for (Message* one : s.keeping) s.kept(*one, ok ? Status{} : fail(FailureKind::unavailable, "disk", "full"));
    turn();
    EXPECT_EQ(s.ends, 1);
    EXPECT_EQ(s.summary().done, ok ? 2u : 0u);
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
