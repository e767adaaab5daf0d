// One key with 99 % of a million messages, in virtual time: what the messages of other keys pay for it.
#include "stream/stream_fixture.hpp"

namespace sluice::stream {
namespace {

constexpr Duration kWork = milliseconds(2);

/// Every message takes kWork.
class Busy final : public Session {
 public:
  struct One : Delivery {
    std::uint32_t key = 0;  // 0: the hot one
    Instant received;
    Timer work;
    Busy* of = nullptr;
  };
  Busy(Pipeline& pipeline, Lane& lane, std::vector<Duration>& others) : Session(pipeline, lane), others_(others) {}
  bool send(std::uint32_t key) {
    if (!has_credit()) return false;
    One* one = free_.empty() ? &memory_.emplace_back() : free_.back();
    if (!free_.empty()) free_.pop_back();
    one->key = key;
    one->of = this;
    one->size = 100;
    one->received = lane().clock().now();
    received(*one);
    return true;
  }
  int ends = 0;

 protected:
  void key_of(const Delivery& d, std::string& out) override { out += std::to_string(static_cast<const One&>(d).key); }
  void handle(Delivery& d) override {
    auto& one = static_cast<One&>(d);
    one.work.arm(lane(), lane().clock().now() + kWork, [](void* p) noexcept {
      auto& done = *static_cast<One*>(p);
      if (done.key != 0) done.of->others_.push_back(done.of->lane().clock().now() - done.received);
      done.of->settle(done, {});
    }, &one);
  }
  void released(Delivery& d) noexcept override { free_.push_back(&static_cast<One&>(d)); }
  void ended() noexcept override { ++ends; }

 private:
  std::vector<Duration>& others_;
  std::deque<One> memory_;
  std::vector<One*> free_;
};

class HotKey : public StreamTest {
 protected:
  /// The 99th of a hundred waits of keys that are not hot, and how many messages there were.
  std::pair<Duration, std::uint64_t> measure(int hot_percent, std::uint64_t messages) {
    Options options = keyed();
    options.backpressure.capacity = 16;
    Pipeline shared(options, clock, random);
    std::vector<Duration> others;
    std::deque<std::unique_ptr<Busy>> streams;
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(streams.emplace_back(std::make_unique<Busy>(shared, lane, others))->open());
    std::uint64_t sent = 0;
    sim::SimRandom dice{11};
    // Without the hot key the others come as often as with it: one in a hundred of what the clock allows.
    while (sent < messages) {
      for (auto& stream : streams) {
        if (hot_percent == 0) {
          if (dice.next() % 200 == 0) stream->send(1 + static_cast<std::uint32_t>(dice.next() % 1000)), ++sent;
          continue;
        }
        for (bool more = true; more && sent < messages;) {
          const bool hot = dice.next() % 100 < static_cast<std::uint64_t>(hot_percent);
          more = stream->send(hot ? 0 : 1 + static_cast<std::uint32_t>(dice.next() % 1000));
          if (more) ++sent;
        }
      }
      turn(milliseconds(1));
    }
    for (auto& stream : streams) stream->half_close();
    while (std::ranges::any_of(streams, [](const auto& stream) { return stream->ends == 0; })) turn(milliseconds(1));
    EXPECT_EQ(shared.stats().succeeded, sent);
    EXPECT_EQ(shared.stats().gate.keys, 0u) << "idle keys cost nothing";
    const auto nth = others.begin() + static_cast<std::ptrdiff_t>(others.size() * 99 / 100);
    std::ranges::nth_element(others, nth);
    return {*nth, others.size()};
  }
};

TEST_F(HotKey, STREAM_11_other_keys_wait_at_most_twice_as_long_beside_a_key_with_99_of_100) {
  const auto [idle, few] = measure(0, 2'000);
  const auto [beside, others] = measure(99, 1'000'000);
  EXPECT_GT(few, 1'000u);
  EXPECT_GT(others, 5'000u);
  EXPECT_LE(beside, 2 * idle) << std::chrono::duration<double, std::milli>(beside).count() << " ms beside, "
                              << std::chrono::duration<double, std::milli>(idle).count() << " ms idle";
}

}  // namespace
}  // namespace sluice::stream
