// Two lanes before one gate and one resolver of order, played by the scheduler of the simulation: every order
// of arriving, cancelling, completing and closing, each under several interleavings of the lanes.
#include <algorithm>
#include <array>
#include <deque>

#include "sim/scheduler.hpp"
#include "sluice/stream.hpp"

namespace sluice::stream {
namespace {

enum class State : std::uint8_t { away, waiting, inside, over };

struct Play;

/// One that asks, on its lane.
struct One {
  Play* play = nullptr;
  int id = 0;
  Lane* lane = nullptr;
  std::string key;
  State state = State::away;
  int answers = 0;
  admission::Admission in{};
};

/// What every play checks.
struct Play {
  std::size_t capacity = SIZE_MAX;
  std::vector<int> asked, let_in;
  std::deque<One*> inside;

  void asks(One& one) {
    one.state = State::waiting;
    asked.push_back(one.id);
  }
  void answered(One& one, Result<admission::Admission> answer) {
    EXPECT_EQ(++one.answers, 1);
    EXPECT_EQ(one.state, State::waiting);
    one.state = State::over;
    if (!answer) return;
    for (const One* other : inside) EXPECT_NE(other->key, one.key) << "two of one key";
    one.in = std::move(*answer);
    one.state = State::inside;
    let_in.push_back(one.id);
    inside.push_back(&one);
    EXPECT_LE(inside.size(), capacity);
  }
  void complete() {
    if (inside.empty()) return;
    One& one = *inside.front();
    inside.pop_front();
    one.state = State::over;
    one.in.release();
  }
};

struct AtGate {
  struct Visitor : admission::PendingAdmission {
    One one;
    CancelScope gone;
  };
  admission::Gate door;
  Play& play;
  std::deque<Visitor> visitors;

  AtGate(Play& p, std::size_t capacity) : door({.capacity = capacity}), play(p) { play.capacity = capacity; }
  static Visitor& of(Job* job) { return *static_cast<Visitor*>(static_cast<admission::PendingAdmission*>(job)); }
  void add(One one) { visitors.emplace_back().one = std::move(one); }
  One& at(std::size_t i) { return visitors[i].one; }
  void ask(std::size_t i) {
    Visitor& v = visitors[i];
    v.lane = v.one.lane;
    v.scope = &v.gone;
    v.ordering_key = v.one.key;
    v.run = [](Job* job) noexcept { of(job).one.play->answered(of(job).one, of(job).take()); };
    play.asks(v.one);
    if (door.admit(v)) play.answered(v.one, v.take());
  }
  void cancel(std::size_t i) {
    Visitor& v = visitors[i];
    v.gone.cancel(FailureKind::cancelled);
    if (v.one.state == State::waiting && door.forget(v)) play.answered(v.one, fail(FailureKind::cancelled, "gone", ""));
  }
  void close() { door.cancel(); }
  void expect_empty() {
    EXPECT_TRUE(door.drained());
    EXPECT_EQ(door.stats().keys, 0u);
  }
};

struct AtResolver {
  struct Asking {
    One one;
    CancelScope gone;
    TaskContext context;
    Task<Result<Release>> task;
  };
  OrderingResolver door;
  Play& play;
  std::deque<Asking> all;

  AtResolver(Play& p, std::size_t) : play(p) {}
  void add(One one) { all.emplace_back().one = std::move(one); }
  One& at(std::size_t i) { return all[i].one; }
  void ask(std::size_t i) {
    Asking& a = all[i];
    a.context = {a.one.lane, &a.gone, kNever};
    a.task = door.wait(a.one.key);
    play.asks(a.one);
    const auto ended = [](void* self) noexcept {
      auto& asking = *static_cast<Asking*>(self);
      asking.one.lane->post([&asking] { asking.one.play->answered(asking.one, asking.task.take()); });
    };
    if (a.task.start(a.context, ended, &a)) play.answered(a.one, a.task.take());
  }
  void cancel(std::size_t i) { all[i].gone.cancel(FailureKind::cancelled); }
  void close() { door.close(); }
  void expect_empty() { EXPECT_EQ(door.keys(), 0u); }
};

/// a1 and a2 ask for one key on two lanes, b for another; one of them gives up.
template <class Door>
void play(const std::array<int, 6>& order, std::size_t who_gives_up, std::uint64_t seed, std::size_t capacity) {
  sim::SimClock clock;
  sim::SimRandom dice(seed);
  sim::SimScheduler scheduler(clock, seed, nullptr, {.stall_one_in = 4, .stall_max = milliseconds(2), .jobs_per_step_max = 1});
  std::array<Lane*, 2> lanes{&scheduler.add_lane("left"), &scheduler.add_lane("right")};
  Play held;
  Door door(held, capacity);
  door.add({&held, 1, lanes[0], "a"});
  door.add({&held, 2, lanes[1], "a"});
  door.add({&held, 3, lanes[1], "b"});
  for (const int step : order) {
    switch (step) {
      case 0:
      case 1:
      case 2:
        door.at(static_cast<std::size_t>(step)).lane->post([&door, step] { door.ask(static_cast<std::size_t>(step)); });
        break;
      case 3: door.at(who_gives_up).lane->post([&door, who_gives_up] { door.cancel(who_gives_up); }); break;
      case 4: lanes[dice.below(2)]->post([&held] { held.complete(); }); break;
      default: lanes[dice.below(2)]->post([&door] { door.close(); }); break;
    }
    for (std::uint64_t steps = dice.below(3); steps > 0; --steps) scheduler.step();
  }
  for (int i = 0; i < 5; ++i) {
    while (scheduler.step()) {
    }
    lanes[0]->post([&held] { held.complete(); });
  }
  while (scheduler.step()) {
  }
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(door.at(i).state, State::over) << door.at(i).id;
    EXPECT_EQ(door.at(i).answers, 1) << door.at(i).id;
  }
  // Of one key: let in as they asked.
  std::vector<int> asked, let_in;
  for (const int id : held.asked)
    if (id != 3 && std::ranges::find(held.let_in, id) != held.let_in.end()) asked.push_back(id);
  for (const int id : held.let_in)
    if (id != 3) let_in.push_back(id);
  EXPECT_EQ(asked, let_in);
  door.expect_empty();
}

template <class Door>
int play_all() {
  int histories = 0;
  std::array<int, 6> order{0, 1, 2, 3, 4, 5};
  do {
    for (std::size_t who = 0; who < 3; ++who)
      for (std::uint64_t seed = 1; seed <= 6; ++seed) {
        play<Door>(order, who, seed, 1 + seed % 2);
        ++histories;
        if (testing::Test::HasFailure()) {
          ADD_FAILURE() << "order " << testing::PrintToString(order) << ", " << who << " gives up, seed " << seed;
          return histories;
        }
      }
  } while (std::ranges::next_permutation(order).found);
  return histories;
}

TEST(Orders, STREAM_4_every_order_of_two_lanes_before_a_gate_keeps_its_promises) { EXPECT_EQ(play_all<AtGate>(), 720 * 3 * 6); }

TEST(Orders, STREAM_3_every_order_of_two_lanes_before_a_resolver_keeps_its_promises) { EXPECT_EQ(play_all<AtResolver>(), 720 * 3 * 6); }

}  // namespace
}  // namespace sluice::stream
