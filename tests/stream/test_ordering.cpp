// The turns of keys for whoever needs no more than that.
#include <gtest/gtest.h>

#include <deque>

#include "sim/clock.hpp"
#include "sluice/stream.hpp"

namespace sluice::stream {
namespace {

class Ordering : public testing::Test {
 protected:
  struct Waiter {
    CancelScope scope;
    TaskContext context;
    Task<Result<Release>> task;
    bool told = false;
    std::optional<Result<Release>> turn;
  };
  ~Ordering() override {
    waiters.clear();
    turn();
  }
  /// Asks for the key's turn; the answer is there after turn().
  Waiter& ask(const std::string& key, Instant deadline = kNever) {
    Waiter& w = waiters.emplace_back();
    w.context = {&lane, &w.scope, deadline};
    w.task = resolver.wait(key);
    w.told = w.task.start(w.context, [](void* told) noexcept { *static_cast<bool*>(told) = true; }, &w.told);
    turn();
    return w;
  }
  void turn() {
    while (lane.run_ready() != 0) {
    }
    for (auto& w : waiters)
      if (w.told && !w.turn) w.turn = w.task.take();
  }
  static std::string why(const Waiter& w) { return w.turn && !*w.turn ? std::string(w.turn->error().traits().name) : ""; }

  sim::SimClock clock;
  Lane lane{clock};
  OrderingResolver resolver{{.name = "turns", .max_waiting = 2}};
  std::deque<Waiter> waiters;
};

TEST_F(Ordering, STREAM_3_one_key_is_had_in_the_order_of_asking_and_others_do_not_wait) {
  Waiter &first = ask("a"), &second = ask("a"), &third = ask("a"), &other = ask("b");
  ASSERT_TRUE(first.turn && *first.turn && other.turn && *other.turn);
  EXPECT_FALSE(second.turn || third.turn);
  EXPECT_EQ(resolver.keys(), 2u);
  (*first.turn)->release();
  turn();
  ASSERT_TRUE(second.turn && *second.turn);
  EXPECT_FALSE(third.turn);
  (*first.turn)->release();  // once more: it has nothing to give
  turn();
  EXPECT_FALSE(third.turn) << "releasing twice let two into one key";
  second.turn->value() = Release();  // destroyed, not released
  turn();
  ASSERT_TRUE(third.turn && *third.turn);
  (*third.turn)->release(), (*other.turn)->release();
  EXPECT_EQ(resolver.keys(), 0u);
}

TEST_F(Ordering, STREAM_3_no_key_is_one_key_for_all) {
  Waiter &first = ask(""), &second = ask("");
  ASSERT_TRUE(first.turn && *first.turn);
  EXPECT_FALSE(second.turn);
  (*first.turn)->release();
  turn();
  ASSERT_TRUE(second.turn && *second.turn);
}

TEST_F(Ordering, STREAM_3_who_gives_up_is_late_or_one_too_many_is_told_and_holds_nobody_up) {
  Waiter& holds = ask("a");
  Waiter &leaves = ask("a"), &late = ask("a", clock.now() + milliseconds(10));
  EXPECT_EQ(why(ask("a")), "overloaded") << "two wait already";
  leaves.scope.cancel(FailureKind::cancelled);
  turn();
  EXPECT_EQ(why(leaves), "cancelled");
  clock.advance(milliseconds(20));
  turn();
  EXPECT_EQ(why(late), "timeout");
  Waiter& next = ask("a");
  (*holds.turn)->release();
  turn();
  ASSERT_TRUE(next.turn && *next.turn);
}

TEST_F(Ordering, STREAM_3_closed_it_refuses_those_who_wait_and_who_come_and_leaves_turns_to_their_owners) {
  Waiter &holds = ask("a"), &waits = ask("a");
  resolver.close();
  resolver.close();
  turn();
  EXPECT_EQ(why(waits), "shutting_down");
  EXPECT_EQ(why(ask("b")), "shutting_down");
  EXPECT_EQ(resolver.keys(), 1u) << "the one that is out";
  (*holds.turn)->release();
  EXPECT_EQ(resolver.keys(), 0u);
}

}  // namespace
}  // namespace sluice::stream
