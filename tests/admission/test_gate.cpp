// The gate's order of checks, its policies, and that nothing is lost when waiters leave.
#include "sim/clock.hpp"
#include "sluice/admission/gate.hpp"

namespace sluice::admission {
namespace {

struct GateTest : testing::Test {
  sim::SimClock clock;
  Lane lane{clock};

  struct Request : PendingAdmission {
    bool ran = false;
    explicit Request(Lane* on, std::string key = {}) {
      lane = on;
      ordering_key = std::move(key);
      run = [](Job* job) noexcept {
        static_cast<Request*>(static_cast<PendingAdmission*>(job))->ran = true;
      };
    }
    FailureKind refused() const { return answer ? FailureKind::none : answer.error().kind(); }
  };
  Request request(std::string key = {}) { return Request(&lane, std::move(key)); }
  void turn(Duration by = {}) {
    clock.advance(by);
    lane.run_ready();
  }
};

TEST_F(GateTest, STREAM_4_a_cancelled_request_takes_nothing) {
  Gate gate;
  CancelScope scope;
  scope.cancel(FailureKind::timeout);
  auto r = request("k");
  r.scope = &scope;
  gate.drain();  // being cancelled is looked at first
  ASSERT_TRUE(gate.admit(r));
  EXPECT_EQ(r.refused(), FailureKind::timeout);
  EXPECT_EQ(gate.stats().keys, 0u);
}

TEST_F(GateTest, STREAM_4_a_draining_gate_refuses_the_new_and_serves_the_waiting) {
  Gate gate({.capacity = 1});
  auto a = request();
  auto b = request();
  auto c = request();
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  gate.drain();
  ASSERT_TRUE(gate.admit(c));
  EXPECT_EQ(c.refused(), FailureKind::shutting_down);
  EXPECT_FALSE(gate.drained());
  a.take()->release();
  turn();
  ASSERT_TRUE(b.ran);
  EXPECT_TRUE(b.take());  // given back as it goes
  EXPECT_TRUE(gate.drained());
}

TEST_F(GateTest, STREAM_4_waiting_for_a_turn_holds_no_permit) {
  Gate gate({.capacity = 2});
  auto a = request("hot");
  auto b = request("hot");
  auto c = request("cold");
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  EXPECT_EQ(gate.stats().in_use, 1u);
  EXPECT_TRUE(gate.admit(c));
  EXPECT_EQ(gate.stats().waiting_for_turn, 1u);
  a.take()->release();
  turn();
  EXPECT_FALSE(b.ran && !b.answer);
  EXPECT_TRUE(b.ran);
  b.take()->release();
  c.take()->release();
  EXPECT_EQ(gate.stats().keys, 0u);
}

TEST_F(GateTest, STREAM_4_cancelled_between_grant_and_run_gives_everything_back) {
  Gate gate({.capacity = 1});
  CancelScope scope;
  auto a = request("k");
  auto b = request("k");
  b.scope = &scope;
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  a.take()->release();
  scope.cancel();
  EXPECT_FALSE(gate.forget(b));
  turn();
  ASSERT_TRUE(b.ran);
  EXPECT_EQ(b.take().error().kind(), FailureKind::cancelled);
  EXPECT_TRUE(gate.drained());
}

TEST_F(GateTest, STREAM_4_cancel_fails_everyone_who_waits) {
  Gate gate({.capacity = 1});
  auto a = request("k");
  auto behind = request("k");
  auto queued = request();
  auto queued_key = request("other");
  auto behind_queued = request("other");
  ASSERT_TRUE(gate.admit(a));
  for (auto* r : {&behind, &queued, &queued_key, &behind_queued}) ASSERT_FALSE(gate.admit(*r));
  gate.cancel();
  turn();
  for (auto* r : {&behind, &queued, &queued_key, &behind_queued}) {
    EXPECT_TRUE(r->ran);
    EXPECT_EQ(r->refused(), FailureKind::shutting_down);
  }
  a.take()->release();
  EXPECT_TRUE(gate.drained());
}

TEST_F(GateTest, STREAM_4_a_deadline_ends_waiting_and_passes_the_turn_on) {
  Gate gate({.capacity = 1});
  auto a = request();
  auto b = request("k");
  auto c = request("k");
  b.deadline = clock.now() + seconds(1);
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  ASSERT_FALSE(gate.admit(c));
  turn(milliseconds(1100));
  ASSERT_TRUE(b.ran);
  EXPECT_EQ(b.refused(), FailureKind::timeout);
  EXPECT_FALSE(c.ran);
  a.take()->release();
  turn();
  EXPECT_TRUE(c.ran);
  c.take()->release();
  EXPECT_TRUE(gate.drained());
}

TEST_F(GateTest, STREAM_4_a_forgotten_one_is_never_run_and_blocks_nobody) {
  Gate gate({.capacity = 1});
  auto a = request("k");
  auto b = request("k");
  auto c = request("k");
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  ASSERT_FALSE(gate.admit(c));
  EXPECT_TRUE(gate.forget(b));
  EXPECT_FALSE(gate.forget(b));
  a.take()->release();
  turn(std::chrono::hours(1));
  EXPECT_FALSE(b.ran);
  EXPECT_TRUE(c.ran);
  c.take()->release();
}

TEST_F(GateTest, STREAM_8_a_head_gives_its_permit_back_and_keeps_its_turn) {
  Gate gate({.capacity = 1});
  auto head = request("k");
  auto next = request("k");
  auto other = request();
  ASSERT_TRUE(gate.admit(head));
  auto held = *head.take();
  ASSERT_FALSE(gate.admit(next));
  held.release_permit();
  turn();
  EXPECT_FALSE(next.ran);
  ASSERT_TRUE(gate.admit(other));

  auto again = request("k");
  again.held = std::move(held);
  ASSERT_FALSE(gate.admit(again));
  EXPECT_TRUE(gate.forget(again));  // the turn is still held
  ASSERT_FALSE(gate.admit(again));
  other.take()->release();
  turn();
  ASSERT_TRUE(again.ran);
  EXPECT_FALSE(again.held);
  again.take()->release();
  turn();
  EXPECT_TRUE(next.ran);
  next.take()->release();
  EXPECT_TRUE(gate.drained());
}

TEST_F(GateTest, STREAM_12_draining_lets_a_held_turn_finish_and_cancel_does_not) {
  Gate gate({.capacity = 1});
  auto head = request("k");
  ASSERT_TRUE(gate.admit(head));
  auto held = *head.take();
  held.release_permit();  // backing off before a retry
  gate.drain();
  EXPECT_FALSE(gate.drained());
  auto again = request("k");
  again.held = std::move(held);
  ASSERT_TRUE(gate.admit(again));
  ASSERT_EQ(again.refused(), FailureKind::none);
  auto second = *again.take();
  second.release_permit();
  gate.cancel();
  auto late = request("k");
  late.held = std::move(second);
  ASSERT_TRUE(gate.admit(late));
  EXPECT_EQ(late.refused(), FailureKind::shutting_down);
  late.held.release();
  EXPECT_TRUE(gate.drained());
}

TEST_F(GateTest, STREAM_2_what_waits_is_bounded_in_bytes_wherever_it_waits) {
  Gate gate({.capacity = 1, .max_waiting_bytes = 100});
  auto a = request("k");
  auto b = request("k");
  auto c = request();
  auto d = request();
  b.bytes = 60;
  c.bytes = 100;
  d.bytes = 1;
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));  // for its turn
  ASSERT_FALSE(gate.admit(c));  // for a permit
  EXPECT_EQ(gate.stats().waiting_bytes, 160u);
  auto e = request("k");
  e.bytes = 41;
  ASSERT_TRUE(gate.admit(e));
  EXPECT_EQ(e.refused(), FailureKind::overloaded);
  ASSERT_TRUE(gate.admit(d));
  EXPECT_EQ(d.refused(), FailureKind::overloaded);
  EXPECT_TRUE(gate.forget(c));
  EXPECT_EQ(gate.stats().waiting_bytes, 60u);
  ASSERT_FALSE(gate.admit(d));
  a.take()->release();  // b moves from its turn to the permits' queue, behind d, and still counts
  turn();
  EXPECT_TRUE(d.ran);
  EXPECT_EQ(gate.stats().waiting_bytes, 60u);
  d.take()->release();
  turn();
  EXPECT_TRUE(b.ran);
  EXPECT_EQ(gate.stats().waiting_bytes, 0u);
  b.take()->release();
}

TEST_F(GateTest, STREAM_5_figures_are_told_as_gauges) {
  Metrics metrics;
  Gate gate({.name = "door", .capacity = 1, .metrics = &metrics});
  auto a = request();
  auto b = request();
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  const auto text = metrics.prometheus_text();
  EXPECT_NE(text.find("sluice_admission_in_use{gate=\"door\"} 1"), std::string::npos) << text;
  EXPECT_NE(text.find("sluice_admission_waiting_for_permit{gate=\"door\"} 1"), std::string::npos);
  gate.forget(b);
  a.take()->release();
}

TEST_F(GateTest, STREAM_5_hard_reject_refuses_at_capacity) {
  Gate gate({.capacity = 1, .policy = AtCapacity::hard_reject});
  auto a = request();
  auto b = request("k");
  ASSERT_TRUE(gate.admit(a));
  ASSERT_TRUE(gate.admit(b));
  EXPECT_EQ(b.refused(), FailureKind::overloaded);
  EXPECT_EQ(b.answer.error().retry_after(), seconds(1));
  EXPECT_EQ(gate.stats().keys, 0u);  // the turn went with it
  a.take()->release();
  EXPECT_TRUE(gate.admit(b));
  EXPECT_TRUE(b.take());
}

TEST_F(GateTest, STREAM_5_queue_admits_first_come_first_served_and_is_bounded) {
  Gate gate({.capacity = 1, .max_waiting = 2});
  auto a = request();
  auto b = request();
  auto c = request();
  auto d = request();
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  ASSERT_FALSE(gate.admit(c));
  ASSERT_TRUE(gate.admit(d));
  EXPECT_EQ(d.refused(), FailureKind::overloaded);
  a.take()->release();
  turn();
  EXPECT_TRUE(b.ran);
  EXPECT_FALSE(c.ran);
  b.take()->release();
  turn();
  EXPECT_TRUE(c.ran);
  c.take()->release();
}

// What is large gets its permits all at once, in its turn; what is smaller does not starve it.
TEST_F(GateTest, STREAM_5_one_that_takes_many_permits_waits_for_all_of_them_and_is_not_overtaken) {
  Gate gate({.capacity = 10});
  auto first = request(), large = request(), small = request(), huge = request();
  first.permits = 6;
  large.permits = 5;
  huge.permits = 1000;
  ASSERT_TRUE(gate.admit(first));
  EXPECT_EQ(gate.stats().in_use, 6u);
  ASSERT_FALSE(gate.admit(large)) << "four are left";
  ASSERT_FALSE(gate.admit(small)) << "large came before";
  ASSERT_FALSE(gate.admit(huge));
  first.take()->release();
  turn();
  EXPECT_TRUE(large.ran);
  EXPECT_TRUE(small.ran);
  EXPECT_FALSE(huge.ran) << "it takes all there are";
  EXPECT_EQ(gate.stats().in_use, 6u);
  large.take()->release();
  small.take()->release();
  turn();
  ASSERT_TRUE(huge.ran);
  EXPECT_EQ(gate.stats().in_use, 10u);
  huge.take()->release();
  EXPECT_TRUE(gate.drained());
}

// One that leaves the front lets those behind it in, if they fit.
TEST_F(GateTest, STREAM_4_a_large_one_that_gives_up_lets_smaller_ones_in) {
  Gate gate({.capacity = 4});
  auto in = request(), large = request(), small = request();
  in.permits = 2;
  large.permits = 3;
  large.deadline = clock.now() + seconds(1);
  ASSERT_TRUE(gate.admit(in));
  ASSERT_FALSE(gate.admit(large));
  ASSERT_FALSE(gate.admit(small));
  turn(seconds(2));
  ASSERT_TRUE(large.ran);
  EXPECT_EQ(large.refused(), FailureKind::timeout);
  turn();
  ASSERT_TRUE(small.ran);
  small.take()->release();
  in.take()->release();
  EXPECT_TRUE(gate.drained());
}

TEST_F(GateTest, STREAM_4_those_who_wait_for_a_turn_take_no_place_from_arrivals_of_other_keys) {
  Gate gate({.name = "g", .capacity = 1, .max_waiting = 2});
  auto a = request("k"), b = request("k"), c = request("k"), d = request("k"), other = request("l"), last = request("m");
  ASSERT_TRUE(gate.admit(a));
  ASSERT_FALSE(gate.admit(b));
  ASSERT_FALSE(gate.admit(c));
  ASSERT_TRUE(gate.admit(d)) << "of its own key as many wait as may";
  EXPECT_NE(std::string(d.answer.error().detail()).find("2 wait for the turn of their ordering key"), std::string::npos);
  EXPECT_FALSE(gate.admit(other));
  EXPECT_FALSE(gate.admit(last));
  a.take()->release();  // b is behind the two others now
  turn();
  EXPECT_TRUE(other.ran);
  other.take()->release();
  turn();
  last.take()->release();
  turn();
  b.take()->release();
  turn();
  c.take()->release();
}

TEST_F(GateTest, STREAM_5_a_refusal_says_which_bound_was_met) {
  const auto why = [&](GateOptions options, std::size_t bytes) {
    options.name = "g";
    Gate gate(options);
    auto a = request("a"), b = request("b"), c = request("c"), d = request("d");
    std::string told;
    for (auto* r : {&a, &b, &c, &d}) {
      r->bytes = bytes;
      if (gate.admit(*r) && !r->answer && told.empty()) told = r->answer.error().detail();
    }
    for (auto* r : {&a, &b, &c, &d}) (void)gate.forget(*r);
    for (auto* r : {&a, &b, &c, &d})
      if (r->answer) (void)r->take();
    return told;
  };
  EXPECT_EQ(why({.capacity = 1, .policy = AtCapacity::hard_reject}, 0), "g: all 1 permits are out; try again later");
  EXPECT_EQ(why({.capacity = 1, .policy = AtCapacity::soft_allow, .ceiling = 2}, 0), "g: all 2 permits are out; try again later");
  EXPECT_EQ(why({.capacity = 1, .max_waiting = 1}, 0),
            "g: all 1 permits are out and 1 wait for one, as many as may; try again later");
  EXPECT_EQ(why({.capacity = 1, .max_waiting_bytes = 10}, 6),
            "g: those who wait would hold more than 10 bytes, the most they may; try again later");
}

TEST_F(GateTest, STREAM_5_soft_policies_admit_up_to_the_ceiling_and_signal) {
  std::vector<std::size_t> signals;
  GateOptions options;
  options.capacity = 1;
  options.ceiling = 3;
  options.policy = AtCapacity::soft_allow_with_signal;
  options.on_pressure = [&](std::size_t in_use, std::size_t) { signals.push_back(in_use); };
  Gate gate(options);
  auto a = request();
  auto b = request();
  auto c = request("k");
  auto d = request();
  for (auto* r : {&a, &b, &c, &d}) ASSERT_TRUE(gate.admit(*r));
  EXPECT_FALSE(a.answer->under_pressure());
  EXPECT_TRUE(b.answer->under_pressure());
  EXPECT_EQ(d.refused(), FailureKind::overloaded);
  EXPECT_EQ(signals, (std::vector<std::size_t>{2, 3}));
  EXPECT_EQ(gate.stats().pressed, 2u);
  for (auto* r : {&a, &b, &c}) r->take()->release();
}

TEST_F(GateTest, STREAM_11_a_hot_key_goes_to_the_back_after_each_turn) {
  Gate gate({.capacity = 1});
  auto hot1 = request("hot");
  auto hot2 = request("hot");
  auto hot3 = request("hot");
  auto cold = request("cold");
  ASSERT_TRUE(gate.admit(hot1));
  for (auto* r : {&hot2, &hot3, &cold}) ASSERT_FALSE(gate.admit(*r));
  hot1.take()->release();
  turn();
  EXPECT_TRUE(cold.ran);
  EXPECT_FALSE(hot2.ran);
  cold.take()->release();
  turn();
  hot2.take()->release();
  turn();
  EXPECT_TRUE(hot3.ran);
  hot3.take()->release();
}

}  // namespace
}  // namespace sluice::admission
