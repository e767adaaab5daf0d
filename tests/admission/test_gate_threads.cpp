// Many lanes through one small gate: one at a time per key, never more than the capacity, nobody
// left behind.
#include <array>
#include <atomic>

#include "sluice/admission/gate.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::admission {
namespace {

constexpr int kThreads = 4;
constexpr int kRequests = 16;  // per thread, at once
constexpr int kRounds = 400;   // of each request
constexpr std::size_t kKeys = 3;

struct Shared {
  Gate gate{{.capacity = 3}};
  std::array<std::atomic<int>, kKeys> of_key{};
  std::atomic<int> inside{0};
  std::atomic<int> too_many{0};
  std::atomic<int> left{kThreads * kRequests};
  Parker done;
};

struct Visitor : PendingAdmission {
  Shared* shared = nullptr;
  std::size_t key = 0;  // kKeys: none
  int rounds = 0;
  Admission in;

  static Visitor* of(Job* job) {
    return static_cast<Visitor*>(static_cast<PendingAdmission*>(job));
  }
  static void begin(Job* job) noexcept {
    Visitor* self = of(job);
    self->run = &Visitor::entered;
    if (self->shared->gate.admit(*self)) entered(self);
  }
  static void entered(Job* job) noexcept {
    Visitor* self = of(job);
    auto taken = self->take();
    EXPECT_TRUE(taken);
    self->in = std::move(*taken);
    if (self->shared->inside.fetch_add(1) >= 3) self->shared->too_many.fetch_add(1);
    if (self->key < kKeys && self->shared->of_key[self->key].fetch_add(1) != 0)
      self->shared->too_many.fetch_add(1);
    self->run = &Visitor::leave;
    self->lane->post(*self);
  }
  static void leave(Job* job) noexcept {
    Visitor* self = of(job);
    if (self->key < kKeys) self->shared->of_key[self->key].fetch_sub(1);
    self->shared->inside.fetch_sub(1);
    self->in.release();
    if (++self->rounds < kRounds) {
      self->run = &Visitor::begin;
      return self->lane->post(*self);
    }
    if (self->shared->left.fetch_sub(1) == 1) self->shared->done.wake();
  }
};

TEST(GateThreads, STREAM_4_permits_and_turns_hold_under_threads) {
  RealClock clock;
  Shared shared;
  std::array<std::array<Visitor, kRequests>, kThreads> visitors;
  std::array<std::unique_ptr<LaneThread>, kThreads> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads[t] = std::make_unique<LaneThread>(clock, "visitor");
    for (int i = 0; i < kRequests; ++i) {
      Visitor& v = visitors[t][i];
      v.shared = &shared;
      v.key = static_cast<std::size_t>(i) % (kKeys + 1);
      if (v.key < kKeys) v.ordering_key = std::to_string(v.key);
      v.lane = &threads[t]->lane();
      v.run = &Visitor::begin;
      v.lane->post(v);
    }
  }
  for (auto& thread : threads) thread->start();
  ASSERT_TRUE(shared.done.park(seconds(60)));
  for (auto& thread : threads) thread->stop();
  for (auto& thread : threads) thread->join();
  EXPECT_EQ(shared.too_many.load(), 0);
  EXPECT_TRUE(shared.gate.drained());
  EXPECT_EQ(shared.gate.stats().admitted, static_cast<unsigned>(kThreads * kRequests * kRounds));
}

}  // namespace
}  // namespace sluice::admission
