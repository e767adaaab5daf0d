// Bounds on concurrency: exact under seeded interleavings of places, queues, timeouts and
// cancellations; fair; and no place is lost between a timeout and a grant.
#include <list>

#include "sim/scheduler.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/resilience/bulkhead.hpp"

namespace sluice::resilience {
namespace {

constexpr Priority kNormal = Priority::normal;

bool take(Bulkhead& bulkhead, std::uint8_t partition = 0, Priority priority = kNormal) {
  Block block;
  return bulkhead.try_take(partition, priority, block);
}

TEST(Bulkhead, RES_22_limit_zero_refuses_and_a_block_tells_the_bound) {
  Bulkhead none(BulkheadOptions{.limit = 0});
  EXPECT_FALSE(take(none));
  Bulkhead two(BulkheadOptions{.limit = 2});
  EXPECT_TRUE(take(two) && take(two));
  Block block;
  EXPECT_FALSE(two.try_take(0, kNormal, block));
  EXPECT_EQ(block.policy, Policy::bulkhead);
  EXPECT_EQ(block.observed, 2);
  EXPECT_EQ(block.threshold, 2);
  EXPECT_EQ(to_failure(block).kind(), FailureKind::overloaded);
  two.give_back(0);
  EXPECT_TRUE(take(two));
  two.give_back(0);
  two.give_back(0);
}

TEST(Bulkhead, RES_40_a_lower_limit_takes_effect_as_calls_end) {
  Bulkhead bulkhead(BulkheadOptions{.limit = 4});
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(take(bulkhead));
  bulkhead.set_limit(2);
  for (int i = 0; i < 2; ++i) {
    bulkhead.give_back(0);
    EXPECT_FALSE(take(bulkhead));
  }
  bulkhead.give_back(0);
  EXPECT_TRUE(take(bulkhead));
  for (int i = 0; i < 2; ++i) bulkhead.give_back(0);
  EXPECT_EQ(bulkhead.in_flight(), 0u);
}

TEST(Bulkhead, RES_23_partitions_borrow_but_keep_room_for_guarantees) {
  BulkheadOptions options{.limit = 10, .shares = {0.5, 0.5, 0, 0}, .lend = 0.6};
  Bulkhead bulkhead(options);
  int first = 0;
  while (take(bulkhead, 0)) ++first;
  EXPECT_EQ(first, 8) << "five of its own, three of the other's five lent";
  EXPECT_TRUE(take(bulkhead, 1) && take(bulkhead, 1));
  EXPECT_FALSE(take(bulkhead, 1)) << "never above the whole";
  bulkhead.give_back(0);
  EXPECT_FALSE(take(bulkhead, 0)) << "what was lent is not lent again while the owner asks";
  EXPECT_TRUE(take(bulkhead, 1));
  for (int i = 0; i < 7; ++i) bulkhead.give_back(0);
  for (int i = 0; i < 3; ++i) bulkhead.give_back(1);
}

TEST(Bulkhead, RES_23_lower_priorities_leave_room) {
  Bulkhead bulkhead(BulkheadOptions{.limit = 8});
  int background = 0, sheddable = 0, critical = 0;
  while (take(bulkhead, 0, Priority::background)) ++background;
  while (take(bulkhead, 0, Priority::sheddable)) ++sheddable;
  while (take(bulkhead, 0, Priority::critical)) ++critical;
  EXPECT_EQ(background, 4);
  EXPECT_EQ(sheddable, 2);
  EXPECT_EQ(critical, 2);
  for (int i = 0; i < 8; ++i) bulkhead.give_back(0);
}

struct QueueTest : testing::Test {
  sim::SimClock clock;
  sim::SimScheduler scheduler{clock, 1, nullptr, {.stall_one_in = 0}};
  Lane& lane = scheduler.add_lane("lane");
  struct Call {
    Task<FailureKind> task;
    CancelScope scope;
    TaskContext context;
    std::optional<FailureKind> answer;
    static void done(void* self) noexcept {
      auto* call = static_cast<Call*>(self);
      call->answer = call->task.take();
    }
  };
  std::list<Call> calls;

  static Task<FailureKind> wait(Bulkhead& bulkhead) {
    const FailureKind answer = co_await bulkhead.turn(0, kNormal);
    co_return answer;
  }
  Call& ask(Bulkhead& bulkhead) {
    Call& call = calls.emplace_back();
    call.context = {&lane, &call.scope, kNever};
    call.task = wait(bulkhead);
    if (call.task.start(call.context, &Call::done, &call)) Call::done(&call);
    return call;
  }
  void settle() { scheduler.run_to(clock.now(), 10'000); }
};

TEST_F(QueueTest, RES_22_first_in_first_out_and_bounded) {
  Bulkhead bulkhead(BulkheadOptions{.limit = 1, .max_queue = 2});
  EXPECT_EQ(ask(bulkhead).answer, FailureKind::none);
  Call& a = ask(bulkhead);
  Call& b = ask(bulkhead);
  EXPECT_EQ(ask(bulkhead).answer, FailureKind::overloaded);
  EXPECT_FALSE(take(bulkhead)) << "nobody overtakes";
  bulkhead.give_back(0);
  EXPECT_FALSE(take(bulkhead));
  settle();
  EXPECT_EQ(a.answer, FailureKind::none);
  EXPECT_FALSE(b.answer);
  bulkhead.give_back(0);
  settle();
  EXPECT_EQ(b.answer, FailureKind::none);
  bulkhead.give_back(0);
}

TEST_F(QueueTest, RES_22_newest_first_under_overload) {
  Bulkhead bulkhead(
      BulkheadOptions{.limit = 1, .max_queue = 4, .order = QueueOrder::lifo_under_overload});
  ask(bulkhead);
  Call& a = ask(bulkhead);
  Call& b = ask(bulkhead);
  bulkhead.give_back(0);
  settle();
  EXPECT_TRUE(b.answer && !a.answer) << "half full: the newest";
  Call& c = ask(bulkhead);
  bulkhead.give_back(0);
  settle();
  EXPECT_TRUE(c.answer && !a.answer);
  bulkhead.give_back(0);
  settle();
  EXPECT_TRUE(a.answer) << "less than half full";
  bulkhead.give_back(0);
}

TEST_F(QueueTest, RES_22_waits_no_longer_than_told) {
  Bulkhead bulkhead(BulkheadOptions{.limit = 1, .max_queue = 2, .max_wait = milliseconds(20)});
  ask(bulkhead);
  Call& late = ask(bulkhead);
  scheduler.run_to(clock.now() + milliseconds(19), 10'000);
  EXPECT_FALSE(late.answer);
  scheduler.run_to(clock.now() + milliseconds(3), 10'000);
  EXPECT_EQ(late.answer, FailureKind::timeout);
  Call& cancelled = ask(bulkhead);
  cancelled.scope.cancel();
  EXPECT_EQ(cancelled.answer, FailureKind::cancelled);
  bulkhead.give_back(0);
  EXPECT_EQ(bulkhead.stats().waiting, 0u);
  EXPECT_EQ(bulkhead.in_flight(), 0u);
}

TEST_F(QueueTest, RES_22_a_place_granted_to_one_that_left_goes_back) {
  Bulkhead bulkhead(BulkheadOptions{.limit = 1, .max_queue = 2});
  ask(bulkhead);
  Call& gone = ask(bulkhead);
  Call& next = ask(bulkhead);
  bulkhead.give_back(0);  // granted, on its way through the lane
  gone.scope.cancel();    // and leaves before it arrives
  EXPECT_EQ(gone.answer, FailureKind::cancelled);
  settle();
  EXPECT_EQ(next.answer, FailureKind::none);
  Call& destroyed = ask(bulkhead);
  bulkhead.give_back(0);
  destroyed.task.reset();
  settle();
  EXPECT_EQ(bulkhead.in_flight(), 0u);
}

// Takers and leavers without a queue, against the sums a reader would write down.
TEST(BulkheadModel, RES_42_never_one_above_the_limit_in_millions_of_steps) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    sim::SimRandom random(seed);
    BulkheadOptions options{.limit = 12, .shares = {0.5, 0.25, 0.25, 0}, .lend = 0.5};
    if (seed % 2 == 0) options.shares = {};
    Bulkhead bulkhead(options);
    std::array<std::uint32_t, kPartitions> used{};
    std::uint32_t total = 0, limit = 12, full = 0;
    for (int i = 0; i < 300'000; ++i) {
      const auto p = static_cast<std::uint8_t>(random.below(kPartitions));
      if (random.one_in(2000)) {
        limit = static_cast<std::uint32_t>(random.below(20));
        bulkhead.set_limit(limit);
      } else if (random.below(100) < 55) {
        if (take(bulkhead, p)) {
          ASSERT_LT(total, limit) << "seed " << seed << " step " << i;
          ++used[p];
          full += ++total == limit ? 1 : 0;
        } else if (total < limit) {
          const auto owned = static_cast<std::uint32_t>(options.shares[p] * limit + 1e-9);
          ASSERT_GE(used[p], owned) << "refused below its guarantee";
          ASSERT_NE(seed % 2, 0u) << "refused below the limit without partitions";
        }
      } else if (used[p] > 0) {
        --used[p];
        --total;
        bulkhead.give_back(p);
      }
      ASSERT_EQ(bulkhead.in_flight(), total);
    }
    EXPECT_GT(full, 1000u);
    for (std::size_t p = 0; p < kPartitions; ++p)
      while (used[p]-- > 0) bulkhead.give_back(static_cast<std::uint8_t>(p));
    EXPECT_EQ(bulkhead.in_flight(), 0u);
  }
}

/// One caller after another: waits for a place, works, gives it back; or gives up.
struct Crowd {
  Bulkhead& bulkhead;
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::atomic<int> served{0};
  std::atomic<int> gave_up{0};

  Task<int> visit(int times, Random& random, std::uint8_t partition) {
    for (int i = 0; i < times; ++i) {
      const FailureKind answer = co_await bulkhead.turn(partition, kNormal);
      if (answer != FailureKind::none) {
        ++gave_up;
        co_await sleep_for(milliseconds(random.below(4)));
        continue;
      }
      const int now_inside = ++inside;
      int seen = most.load();
      while (seen < now_inside && !most.compare_exchange_weak(seen, now_inside)) {
      }
      if (random.below(3) != 0) co_await sleep_for(milliseconds(random.below(3)));
      --inside;
      ++served;
      bulkhead.give_back(partition);
    }
    co_return 0;
  }
};

TEST(BulkheadModel, RES_42_queue_under_a_deterministic_scheduler_leaks_no_place) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    sim::SimClock clock;
    sim::SimScheduler scheduler(clock, seed);
    sim::SimRandom random(seed);
    BulkheadOptions options{.limit = 3, .max_queue = 6, .max_wait = milliseconds(3)};
    if (seed % 2 == 0) options.order = QueueOrder::lifo_under_overload;
    if (seed % 3 == 0) options.shares = {0.6, 0.4, 0, 0};
    Bulkhead bulkhead(options);
    Crowd crowd{bulkhead};
    struct Visitor {
      Task<int> task;
      CancelScope scope;
      TaskContext context;
      bool done = false;
    };
    std::list<Visitor> visitors;
    for (int l = 0; l < 3; ++l) {
      Lane& lane = scheduler.add_lane("lane");
      for (int v = 0; v < 5; ++v) {
        Visitor& visitor = visitors.emplace_back();
        visitor.context = {&lane, &visitor.scope, kNever};
        visitor.task = crowd.visit(60, random, static_cast<std::uint8_t>(v % 2));
        lane.post([&visitor] {
          visitor.done = visitor.task.start(
              visitor.context, [](void* flag) noexcept { *static_cast<bool*>(flag) = true; },
              &visitor.done);
        });
        // Some are cancelled wherever they happen to be; all they ask for later is refused too.
        if (random.below(6) > 1) continue;
        scheduler.after(milliseconds(random.below(100)),
                        [&visitor, &lane] { lane.post([&visitor] { visitor.scope.cancel(); }); });
      }
    }
    ASSERT_TRUE(scheduler.run_until(
        [&] { return std::ranges::all_of(visitors, [](const Visitor& v) { return v.done; }); },
        2'000'000))
        << "seed " << seed;
    scheduler.run_to(clock.now() + seconds(1), 1'000'000);
    EXPECT_LE(crowd.most.load(), 3);
    EXPECT_EQ(bulkhead.in_flight(), 0u) << "seed " << seed;
    EXPECT_EQ(bulkhead.stats().waiting, 0u);
    EXPECT_GT(crowd.served.load(), 100);
    EXPECT_GT(crowd.gave_up.load(), 10);
  }
}

TEST(BulkheadModel, RES_22_threads_lose_no_place_and_never_exceed) {
  RealClock clock;
  RealRandom random;
  Bulkhead bulkhead(BulkheadOptions{.limit = 2, .max_queue = 8, .max_wait = milliseconds(1)});
  Crowd crowd{bulkhead};
  struct Visitor {
    Task<int> task;
    TaskContext context;
    std::atomic<int>* left = nullptr;
    Parker* parker = nullptr;
    static void ended(void* self) noexcept {
      auto* visitor = static_cast<Visitor*>(self);
      if (visitor->left->fetch_sub(1) == 1) visitor->parker->wake();
    }
  };
  std::list<LaneThread> lanes;
  std::list<Visitor> visitors;
  std::atomic<int> left{9};
  Parker parker;
  for (int l = 0; l < 3; ++l) lanes.emplace_back(clock, "lane");
  for (LaneThread& thread : lanes)
    for (int v = 0; v < 3; ++v) {
      Visitor& visitor = visitors.emplace_back();
      visitor.context = {&thread.lane(), nullptr, kNever};
      visitor.left = &left;
      visitor.parker = &parker;
      visitor.task = crowd.visit(100, random, 0);
    }
  auto next = visitors.begin();
  for (LaneThread& thread : lanes) {
    thread.start();
    for (int v = 0; v < 3; ++v, ++next)
      thread.lane().post([visitor = &*next] {
        if (visitor->task.start(visitor->context, &Visitor::ended, visitor))
          Visitor::ended(visitor);
      });
  }
  parker.park();
  for (LaneThread& thread : lanes) thread.stop();
  for (LaneThread& thread : lanes) thread.join();
  EXPECT_LE(crowd.most.load(), 2);
  EXPECT_EQ(crowd.served.load() + crowd.gave_up.load(), 900);
  EXPECT_EQ(bulkhead.in_flight(), 0u);
}

}  // namespace
}  // namespace sluice::resilience
