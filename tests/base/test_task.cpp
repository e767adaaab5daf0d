// Tasks and cancellation under virtual time on one lane driven by hand.
#include <gtest/gtest.h>

#include "sim/clock.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/base/task.hpp"

namespace sluice {
namespace {

struct Drive {
  sim::SimClock clock;
  Lane lane{clock};
  CancelScope scope;
  TaskContext context{&lane, &scope, kNever};
  int finished = 0;

  template <class T>
  bool start(Task<T>& task) {
    return task.start(
        context, [](void* owner) noexcept { ++static_cast<Drive*>(owner)->finished; }, this);
  }
  void run_for(Duration time) {
    const Instant end = clock.now() + time;
    do {
      while (lane.run_ready() > 0) {
      }
      if (lane.next_timer() > end) break;
      clock.advance_to(lane.next_timer());
    } while (true);
    clock.advance_to(end);
    lane.run_ready();
  }
};

/// Suspends until told; counts what became of it.
struct Gate {
  class Wait final : public Suspension {
   public:
    explicit Wait(Gate& gate) : gate_(gate) {}
    ~Wait() override {
      if (gate_.waiter == this) gate_.waiter = nullptr;
    }
    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> self) noexcept {
      if (!suspend(self)) return false;
      gate_.waiter = this;
      return true;
    }
    FailureKind await_resume() const noexcept { return cancel_kind(); }
    void open() {
      gate_.waiter = nullptr;
      finish();
    }

   private:
    void on_cancel() noexcept override { gate_.waiter = nullptr; }
    Gate& gate_;
  };
  Wait wait() { return Wait(*this); }
  Wait* waiter = nullptr;
};

Task<int> plain(int value) { co_return value; }
Task<int> sum_of(int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) sum += co_await plain(1);
  co_return sum;
}
Task<FailureKind> wait_at(Gate& gate) { co_return co_await gate.wait(); }
Task<> throw_after(Gate& gate) {
  co_await gate.wait();
  throw std::runtime_error("late");
}
Task<FailureKind> nap(Duration time) { co_return co_await sleep_for(time); }

TEST(Tasks, ATaskThatDoesNotSuspendFinishesInsideStart) {
  Drive drive;
  auto task = sum_of(10);
  EXPECT_TRUE(drive.start(task));
  EXPECT_EQ(task.take(), 10);
  EXPECT_EQ(drive.finished, 0);
}

TEST(Tasks, AMillionSequentialAwaitsDoNotGrowTheStack) {
  Drive drive;
  auto task = sum_of(1'000'000);
  ASSERT_TRUE(drive.start(task));
  EXPECT_EQ(task.take(), 1'000'000);
}

Task<int> yielding(int count) {
  int sum = 0;
  for (int i = 0; i < count; ++i) {
    co_await sleep_for(Duration::zero());
    sum += co_await plain(1);
  }
  co_return sum;
}
TEST(Tasks, ManySuspensionsInARowDoNotGrowTheStack) {
  Drive drive;
  auto task = yielding(100'000);
  ASSERT_FALSE(drive.start(task));
  drive.run_for(seconds(1000));
  ASSERT_TRUE(task.done());
  EXPECT_EQ(task.take(), 100'000);
  EXPECT_EQ(drive.finished, 1);
}

Task<int> depth(int remaining, Gate* bottom) {
  if (remaining == 0) {
    if (bottom != nullptr) co_await bottom->wait();
    co_return 0;
  }
  const int below = co_await depth(remaining - 1, bottom);
  co_return below + 1;
}
TEST(Tasks, DeepRecursionGoesOverTheLaneInsteadOfTheStack) {
  constexpr int kDepth = 100'000;
  Drive drive;
  auto task = depth(kDepth, nullptr);
  EXPECT_FALSE(drive.start(task));
  drive.run_for(seconds(1));
  ASSERT_TRUE(task.done());
  EXPECT_EQ(task.take(), kDepth);
  EXPECT_EQ(drive.finished, 1);

  Gate gate;
  auto suspended = depth(kDepth, &gate);
  EXPECT_FALSE(drive.start(suspended));
  drive.run_for(seconds(1));
  ASSERT_NE(gate.waiter, nullptr);
  gate.waiter->open();
  drive.run_for(seconds(1));
  ASSERT_TRUE(suspended.done());
  EXPECT_EQ(suspended.take(), kDepth);
}

TEST(Tasks, ADeepTaskMayBeDestroyedWhileItsNextHopIsQueued) {
  Drive drive;
  auto task = depth(5'000, nullptr);
  EXPECT_FALSE(drive.start(task));
  task.reset();
  drive.run_for(seconds(1));
  EXPECT_EQ(drive.finished, 0);
  {
    auto other = depth(5'000, nullptr);
    Lane short_lived(drive.clock);
    TaskContext context{&short_lived, nullptr, kNever};
    EXPECT_FALSE(other.start(context, [](void*) noexcept {}, nullptr));
  }
}

TEST(Tasks, SuspendsAndFinishesOnceTold) {
  Drive drive;
  Gate gate;
  auto task = wait_at(gate);
  ASSERT_FALSE(drive.start(task));
  ASSERT_NE(gate.waiter, nullptr);
  gate.waiter->open();
  EXPECT_EQ(drive.finished, 1);
  EXPECT_EQ(task.take(), FailureKind::none);
}

Task<std::string> catches(Gate& gate) {
  try {
    co_await throw_after(gate);
  } catch (const std::exception& e) {
    co_return e.what();
  }
  co_return "nothing";
}
TEST(Tasks, AnExceptionIsRethrownAtTheAwaitAndAtTake) {
  Drive drive;
  Gate gate;
  auto caught = catches(gate);
  drive.start(caught);
  gate.waiter->open();
  EXPECT_EQ(caught.take(), "late");
  auto uncaught = throw_after(gate);
  drive.start(uncaught);
  gate.waiter->open();
  EXPECT_THROW(uncaught.take(), std::runtime_error);
}

TEST(Tasks, DestroyedWhileSuspendedItUnlinksFromEverything) {
  Drive drive;
  Gate gate;
  auto task = wait_at(gate);
  drive.start(task);
  task.reset();
  EXPECT_EQ(gate.waiter, nullptr);
  auto sleeper = nap(seconds(5));
  drive.start(sleeper);
  sleeper.reset();
  EXPECT_EQ(drive.lane.next_timer(), kNever);
  drive.scope.cancel();
  drive.run_for(seconds(10));
  EXPECT_EQ(drive.finished, 0);
}

TEST(Tasks, NeverStartedItsArgumentsAreFreed) {
  auto held = std::make_shared<int>(1);
  {
    auto task = [](std::shared_ptr<int> p) -> Task<int> { co_return *p; }(held);
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Tasks, CancellationCutsAWaitShortWithItsReason) {
  Drive drive;
  auto task = nap(std::chrono::hours(1));
  drive.start(task);
  drive.scope.cancel(FailureKind::timeout);
  drive.scope.cancel(FailureKind::shutting_down);
  EXPECT_EQ(drive.finished, 1);
  EXPECT_EQ(task.take(), FailureKind::timeout);
  EXPECT_EQ(drive.lane.next_timer(), kNever);
  auto late = nap(seconds(1));
  EXPECT_TRUE(drive.start(late)) << "a cancelled scope does not wait at all";
  EXPECT_EQ(late.take(), FailureKind::timeout);
}

TEST(Tasks, SleepTakesAtLeastItsTimeAndForEverMeansForEver) {
  Drive drive;
  const Instant begin = drive.clock.now();
  auto task = nap(milliseconds(10));
  drive.start(task);
  drive.run_for(milliseconds(9));
  EXPECT_EQ(drive.finished, 0);
  drive.run_for(milliseconds(2));
  EXPECT_EQ(drive.finished, 1);
  EXPECT_GE(drive.clock.now() - begin, milliseconds(10));
  auto endless = nap(Duration::max());
  drive.start(endless);
  drive.run_for(std::chrono::hours(24 * 365));
  EXPECT_FALSE(endless.done());
}

TEST(Tasks, TheContextIsInherited) {
  Drive drive;
  drive.context.deadline = Instant(seconds(77));
  const auto child = []() -> Task<Instant> {
    TaskContext& context = co_await current_context();
    co_return context.deadline;
  };
  const auto parent = [&]() -> Task<Instant> { co_return co_await child(); };
  auto task = parent();
  ASSERT_TRUE(drive.start(task));
  EXPECT_EQ(task.take(), Instant(seconds(77)));
}

TEST(Tasks, OnDoneMayDestroyTheTask) {
  Drive drive;
  Gate gate;
  struct Owner {
    Task<FailureKind> task;
  } owner;
  owner.task = wait_at(gate);
  owner.task.start(
      drive.context, [](void* o) noexcept { static_cast<Owner*>(o)->task.reset(); }, &owner);
  gate.waiter->open();
  EXPECT_FALSE(owner.task);
}

TEST(Tasks, FramesMayBeFreedOnAnotherThread) {
  std::vector<Task<int>> tasks;
  for (int i = 0; i < 1000; ++i) tasks.push_back(plain(i));
  Thread("other", [&] { tasks.clear(); }).join();
  EXPECT_TRUE(tasks.empty());
}

TEST(Cancel, ListenersMayUnlinkEachOtherAndTheFirstReasonStays) {
  CancelScope scope;
  struct Watch {
    CancelListener listener;
    Watch* other = nullptr;
    int called = 0;
  } a, b, c;
  const auto cancelled = [](void* owner) noexcept {
    auto* self = static_cast<Watch*>(owner);
    ++self->called;
    if (self->other != nullptr) self->other->listener.unlink();
  };
  a.other = &b;
  b.other = &a;
  for (Watch* watch : {&a, &b, &c}) watch->listener.link(scope, cancelled, watch);
  scope.cancel(FailureKind::shutting_down);
  scope.cancel(FailureKind::timeout);
  EXPECT_EQ(a.called + b.called, 1);
  EXPECT_EQ(c.called, 1);
  EXPECT_EQ(scope.reason(), FailureKind::shutting_down);
}

TEST(Cancel, AListenerMayDestroyTheScope) {
  auto scope = std::make_unique<CancelScope>();
  struct Owner {
    CancelListener first, second;
    std::unique_ptr<CancelScope>* scope = nullptr;
    int called = 0;
  } owner;
  owner.scope = &scope;
  const auto cancelled = [](void* o) noexcept {
    auto* self = static_cast<Owner*>(o);
    ++self->called;
    self->scope->reset();
  };
  owner.first.link(*scope, cancelled, &owner);
  owner.second.link(*scope, cancelled, &owner);
  scope->cancel();
  EXPECT_EQ(owner.called, 1);
  EXPECT_EQ(scope, nullptr);
}

TEST(Cancel, AScopeThatGoesFirstLeavesListenersUnlinked) {
  CancelListener listener;
  {
    CancelScope scope;
    listener.link(scope, [](void*) noexcept {}, nullptr);
  }
  listener.unlink();
}

}  // namespace
}  // namespace sluice
