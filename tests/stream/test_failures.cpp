// What becomes of a stream, and of a key, when a message fails: STREAM-6, STREAM-9, STREAM-15.
#include "stream/stream_fixture.hpp"

namespace sluice::stream {
namespace {

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
}

TEST_F(StreamTest, STREAM_6_every_row_of_the_table) {
  struct Row {
    FailureClass what;
    std::string_view name;
    int grpc_code;
    bool retryable, terminal, breaks_ordering;
  };
  constexpr std::array<Row, kFailureClasses> rows{{{FailureClass::none, "none", 0, false, false, false},
                                                   {FailureClass::handler_error, "handler_error", 2, false, false, false},
                                                   {FailureClass::context_cancelled, "context_cancelled", 1, false, true, true},
                                                   {FailureClass::backpressure, "backpressure", 8, true, false, true},
                                                   {FailureClass::ordering, "ordering", 10, false, false, true},
                                                   {FailureClass::shutdown, "shutdown", 14, true, true, true},
                                                   {FailureClass::internal, "internal", 13, false, false, false},
                                                   {FailureClass::unsettled, "unsettled", 2, false, false, false}}};
  ASSERT_EQ(failure_classes().size(), rows.size());
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    const auto& is = traits(row.what);
    EXPECT_EQ(&is, &failure_classes()[static_cast<std::size_t>(row.what)]);
    EXPECT_EQ(is.name, row.name);
    EXPECT_EQ(is.grpc_code, row.grpc_code);
    EXPECT_EQ(is.retryable, row.retryable);
    EXPECT_EQ(is.terminal, row.terminal);
    EXPECT_EQ(is.breaks_ordering, row.breaks_ordering);
  }
}

// What the columns say is what happens: a message of each class in the middle of three of one key.
TEST_F(StreamTest, STREAM_6_a_terminal_class_ends_the_stream_and_one_that_breaks_the_order_is_never_passed_over) {
  const std::vector<std::pair<FailureClass, Failure>> each{
      {FailureClass::handler_error, declined()},
      {FailureClass::context_cancelled, Failure(FailureKind::cancelled, "cancelled", "")},
      {FailureClass::backpressure, Failure(FailureKind::overloaded, "gate_full", "")},
      {FailureClass::ordering, Failure(FailureKind::ordering, "broken", "")},
      {FailureClass::shutdown, Failure(FailureKind::shutting_down, "")},
      {FailureClass::internal, Failure(FailureKind::internal, "")},
      {FailureClass::unsettled, Failure(FailureKind::in_doubt, "")}};
  for (const auto& [what, failure] : each) {
    SCOPED_TRACE(traits(what).name);
    pipeline.reset();
    Options options = keyed();
    options.ordering.on_drop = OnDrop::break_key;
    auto& s = open(options);
    s.send("a", "a1"), s.send("a", "a2"), s.send("a", "a3");
    s.finish("a");
    turn();
    s.finish("a", fail(failure));
    turn();
    EXPECT_EQ(s.terminal(), traits(what).terminal);
    EXPECT_EQ(s.runs("a"), traits(what).breaks_ordering ? 0u : 1u);
    EXPECT_EQ(s.summary().done, traits(what).breaks_ordering ? 1u : 2u);
    const bool third_too = traits(what).terminal || what == FailureClass::ordering;
    EXPECT_EQ(s.summary().failed[static_cast<std::size_t>(what)], third_too ? 2u : 1u);
    while (!s.running.empty()) s.finish("a");
    s.half_close();
    EXPECT_EQ(s.ends, 1);
    sessions.clear();
  }
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

}  // namespace
}  // namespace sluice::stream
