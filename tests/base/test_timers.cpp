// The timer wheel against a model that keeps a plain list. Goal: never early, never lost, never
// twice, whatever is armed, moved, cancelled or destroyed meanwhile, also inside callbacks.
#include <gtest/gtest.h>

#include <memory>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/base/lane.hpp"

namespace sluice {
namespace {

constexpr Duration kTick = milliseconds(1);

struct Model {
  struct Entry {
    Timer timer;
    Model* model = nullptr;
    Instant due = kNever;
    Instant earliest = kNever;  ///< when it could fire at best: due, or when it was armed
    bool armed = false;
    std::size_t index = 0;
  };
  explicit Model(std::uint64_t seed) : random(seed) {
    for (std::size_t i = 0; i < 64; ++i) entries.push_back(fresh(i));
  }
  std::unique_ptr<Entry> fresh(std::size_t index) {
    auto entry = std::make_unique<Entry>();
    entry->model = this;
    entry->index = index;
    return entry;
  }
  Duration any_delay() {
    switch (random.below(8)) {
      case 0:
        return -milliseconds(static_cast<std::int64_t>(random.below(50)));
      case 1:
        return Duration(static_cast<std::int64_t>(random.below(3'000'000)));
      case 2:
        return milliseconds(static_cast<std::int64_t>(random.below(64)));
      case 3:
        return milliseconds(static_cast<std::int64_t>(random.below(5000)));
      case 4:
        return seconds(static_cast<std::int64_t>(random.below(4000)));
      case 5:
        return std::chrono::hours(random.below(100));
      case 6:
        return milliseconds(64) * static_cast<std::int64_t>(random.below(70));
      default:
        return std::chrono::hours(24 * 400 * random.below(8));  // past the wheel's span
    }
  }
  void arm(Entry& entry) {
    entry.due = clock.now() + any_delay();
    entry.earliest = std::max(entry.due, clock.now());
    entry.armed = true;
    entry.timer.arm(lane, entry.due, &Model::fired, &entry);
  }
  void mutate() {
    const std::size_t at = random.below(entries.size());
    switch (random.below(4)) {
      case 0:
      case 1:
        arm(*entries[at]);
        break;
      case 2:
        entries[at]->timer.cancel();
        entries[at]->armed = false;
        break;
      default:
        entries[at] = fresh(at);
    }
  }
  static void fired(void* owner) noexcept {
    auto& entry = *static_cast<Entry*>(owner);
    Model& model = *entry.model;
    ++model.fires;
    if (!entry.armed) ++model.unwanted;
    if (entry.due > model.clock.now()) ++model.early;
    if (entry.timer.armed()) ++model.unwanted;
    entry.armed = false;
    // May cancel, move or destroy any other due timer, or destroy the one that fires.
    if (model.random.one_in(2)) model.mutate();
  }
  void check_nothing_is_late() {
    // Armed while time was inside a tick, a timer may wait for the end of the next one.
    for (const auto& entry : entries)
      if (entry->armed) ASSERT_GT(entry->earliest + 2 * kTick, clock.now());
    if (const Instant next = lane.next_timer(); next != kNever)
      for (const auto& entry : entries)
        if (entry->armed) ASSERT_LE(next, entry->earliest + kTick);
  }

  sim::SimRandom random;
  sim::SimClock clock;
  Lane lane{clock};
  std::vector<std::unique_ptr<Entry>> entries;
  std::uint64_t fires = 0;
  std::uint64_t early = 0;
  std::uint64_t unwanted = 0;
};

void run_model(std::uint64_t seed, int steps) {
  Model model(seed);
  // The monotonic line ends after 292 years; one round of the wheel is two.
  const Instant end = Instant(std::chrono::hours(24 * 365 * 250));
  for (int step = 0; step < steps && model.clock.now() < end; ++step) {
    if (!model.random.one_in(4)) {
      model.mutate();
      continue;
    }
    switch (model.random.below(4)) {
      case 0:
        model.clock.advance(Duration(static_cast<std::int64_t>(model.random.below(999'999))));
        break;
      case 1:
        model.clock.advance(model.any_delay() + milliseconds(50));
        break;
      default:
        if (model.lane.next_timer() != kNever) model.clock.advance_to(model.lane.next_timer());
    }
    model.lane.run_ready();
    ASSERT_NO_FATAL_FAILURE(model.check_nothing_is_late()) << "seed " << seed << " step " << step;
  }
  EXPECT_EQ(model.early, 0u);
  EXPECT_EQ(model.unwanted, 0u);
  EXPECT_GT(model.fires, 100u);
}

TEST(Timers, MatchTheModelOverMillionsOfSteps) {
  for (std::uint64_t seed = 1; seed <= 300; ++seed)
    ASSERT_NO_FATAL_FAILURE(run_model(seed, 10'000));
}

TEST(Timers, CancellingADueTimerInsideACallbackOfAnotherStopsIt) {
  sim::SimClock clock;
  Lane lane(clock);
  struct Pair {
    Timer timer;
    Pair* other = nullptr;
    int* fired = nullptr;
  } a, b;
  int fired = 0;
  a.other = &b;
  b.other = &a;
  a.fired = b.fired = &fired;
  const auto fire = [](void* owner) noexcept {
    auto* self = static_cast<Pair*>(owner);
    ++*self->fired;
    self->other->timer.cancel();
  };
  a.timer.arm(lane, clock.now() + kTick, fire, &a);
  b.timer.arm(lane, clock.now() + kTick, fire, &b);
  clock.advance(10 * kTick);
  lane.run_ready();
  EXPECT_EQ(fired, 1);
  EXPECT_EQ(lane.next_timer(), kNever);
}

TEST(Timers, ReArmedInItsCallbackItFiresInALaterTurn) {
  sim::SimClock clock;
  Lane lane(clock);
  struct Again {
    Timer timer;
    Lane* lane = nullptr;
    int fired = 0;
    static void fire(void* owner) noexcept {
      auto* self = static_cast<Again*>(owner);
      ++self->fired;
      self->timer.arm(*self->lane, Instant(), &Again::fire, self);
    }
  } again;
  again.lane = &lane;
  again.timer.arm(lane, clock.now(), &Again::fire, &again);
  for (int turn = 1; turn <= 5; ++turn) {
    clock.advance(kTick);
    lane.run_ready();
    EXPECT_EQ(again.fired, turn);
  }
}

TEST(Timers, MayOutliveTheirLane) {
  sim::SimClock clock;
  Timer near, far;
  {
    Lane lane(clock);
    near.arm(lane, clock.now() + kTick, [](void*) noexcept {}, nullptr);
    far.arm(lane, kNever, [](void*) noexcept {}, nullptr);
    EXPECT_TRUE(far.armed());
  }
  EXPECT_FALSE(near.armed());
  EXPECT_FALSE(far.armed());
}

}  // namespace
}  // namespace sluice
