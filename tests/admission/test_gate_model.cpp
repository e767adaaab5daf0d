// Random interleavings against a model that is too simple to be wrong: lists of ids, searched from
// the front. After every step both must have admitted the same requests in the same order.
#include <algorithm>
#include <deque>
#include <map>

#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/admission/gate.hpp"

namespace sluice::admission {
namespace {

/// Admits by the book: turn first, then permits in the order in which turns came.
struct Model {
  struct Item {
    int id;
    std::string key;
  };
  std::size_t capacity;
  std::size_t in_use = 0;
  std::map<std::string, std::deque<int>> turns;  // front: whose turn it is
  std::deque<Item> for_permit;
  std::vector<int> admitted;

  void arrive(int id, const std::string& key) {
    if (!key.empty()) {
      turns[key].push_back(id);
      if (turns[key].size() > 1) return;
    }
    for_permit.push_back({id, key});
    settle();
  }
  void leave_turn(int id, const std::string& key) {
    if (key.empty()) return;
    auto& line = turns[key];
    const bool had_turn = line.front() == id;
    line.erase(std::ranges::find(line, id));
    if (had_turn && !line.empty()) for_permit.push_back({line.front(), key});
  }
  void release(int id, const std::string& key) {
    --in_use;
    leave_turn(id, key);
    settle();
  }
  void forget(int id, const std::string& key) {
    std::erase_if(for_permit, [&](const Item& item) { return item.id == id; });
    leave_turn(id, key);
    settle();
  }
  void settle() {
    while (in_use < capacity && !for_permit.empty()) {
      admitted.push_back(for_permit.front().id);
      for_permit.pop_front();
      ++in_use;
    }
  }
};

struct Walk {
  struct Request : PendingAdmission {
    int id = 0;
    std::string key;
    Walk* walk = nullptr;
  };
  sim::SimClock clock;
  Lane lane{clock};
  Gate gate;
  Model model;
  std::vector<int> admitted;
  std::map<int, std::unique_ptr<Request>> waiting;
  std::map<int, std::pair<std::string, Admission>> inside;

  explicit Walk(std::size_t capacity) : gate({.capacity = capacity}), model{capacity} {}

  void note(Request& r) {
    auto taken = r.take();
    ASSERT_TRUE(taken);
    admitted.push_back(r.id);
    inside.emplace(r.id, std::pair(r.key, std::move(*taken)));
    waiting.erase(r.id);
  }
  void arrive(int id, std::string key) {
    auto owned = std::make_unique<Request>();
    Request& r = *owned;
    r.id = id;
    r.key = r.ordering_key = key;
    r.walk = this;
    r.lane = &lane;
    r.run = [](Job* job) noexcept {
      auto* self = static_cast<Request*>(static_cast<PendingAdmission*>(job));
      self->walk->note(*self);
    };
    waiting.emplace(id, std::move(owned));
    model.arrive(id, key);
    if (gate.admit(r)) note(r);
  }
  template <class Map>
  static auto pick(Map& map, sim::SimRandom& random) {
    return std::next(map.begin(), static_cast<std::ptrdiff_t>(random.below(map.size())));
  }
  void step(int id, sim::SimRandom& random) {
    const auto dice = random.below(10);
    if (dice < 5 || (inside.empty() && waiting.empty())) {
      const auto key = random.below(5);
      arrive(id, key < 2 ? std::string() : "key" + std::to_string(key));
    } else if (dice < 9 && !inside.empty()) {
      auto node = inside.extract(pick(inside, random));
      model.release(node.key(), node.mapped().first);
      node.mapped().second.release();
    } else if (!waiting.empty()) {
      auto at = pick(waiting, random);
      model.forget(at->first, at->second->key);
      ASSERT_TRUE(gate.forget(*at->second));
      waiting.erase(at);
    }
    lane.run_ready();
  }
};

TEST(GateModel, STREAM_4_random_interleavings_agree_with_the_model) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    sim::SimRandom random(seed);
    Walk walk(1 + random.below(4));
    for (int id = 0; id < 300; ++id) {
      walk.step(id, random);
      ASSERT_EQ(walk.admitted, walk.model.admitted) << "seed " << seed << " step " << id;
      ASSERT_EQ(walk.gate.stats().in_use, walk.model.in_use) << "seed " << seed;
    }
    walk.gate.drain();
    while (!walk.inside.empty()) {
      walk.inside.erase(walk.inside.begin());
      walk.lane.run_ready();
    }
    ASSERT_TRUE(walk.waiting.empty() && walk.gate.drained()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace sluice::admission
