// What /healthz and /readyz say of a store that writes nothing, and what the log says of it.
#include <gtest/gtest.h>

#include <algorithm>

#include "server/store_watch.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/store/memory.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::server {
namespace {

class Ailing final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  Status state;
  Status health() override { return state; }
};

struct Lines final : LogSink {
  std::vector<std::string> lines;
  void write(LogLevel, std::string_view line) override { lines.emplace_back(line); }
  std::size_t count(std::string_view words) const {
    return static_cast<std::size_t>(std::ranges::count_if(lines, [&](const auto& line) { return line.find(words) != line.npos; }));
  }
};

struct StoreWatchTest : testing::Test {
  sim::SimClock clock;
  sim::SimRandom random{1};
  const std::unique_ptr<store::Store> inner = store::make_memory_store(clock, random);
  Ailing ailing{*inner};
  const std::shared_ptr<Lines> sink = std::make_shared<Lines>();
  const std::unique_ptr<Logger> logger = make_logger(clock, sink, {});
  StoreWatch watch{ailing, *logger};
};

TEST_F(StoreWatchTest, G6_a_store_that_writes_nothing_is_alive_and_not_ready_and_each_change_is_one_line) {
  for (const char* code : {"disk_full", "store_read_only"}) {
    SCOPED_TRACE(code);
    sink->lines.clear();
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(watch.alive());
      EXPECT_TRUE(watch.ready());
    }
    EXPECT_TRUE(sink->lines.empty());
    ailing.state = fail(FailureKind::unavailable, code, "no room");
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(watch.alive()) << "to start it again makes no room";
      ASSERT_FALSE(watch.ready());
      EXPECT_EQ(watch.ready().error().code(), code);
    }
    EXPECT_EQ(sink->count("writes nothing now"), 1u);
    EXPECT_EQ(sink->count(code), 1u) << "with the reason";
    EXPECT_EQ(sink->count("writes again"), 0u);
    ailing.state = {};
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(watch.ready());
    EXPECT_EQ(sink->count("writes again"), 1u);
    EXPECT_EQ(sink->lines.size(), 2u);
  }
}

TEST_F(StoreWatchTest, G6_a_store_that_closed_itself_is_neither_alive_nor_ready) {
  ailing.state = fail(FailureKind::unavailable, "store_failed", "a sync failed");
  EXPECT_EQ(watch.alive().error().code(), "store_failed");
  EXPECT_EQ(watch.ready().error().code(), "store_failed");
  EXPECT_TRUE(sink->lines.empty()) << "it does not come back by itself: whoever restarts it is told";
}

}  // namespace
}  // namespace sluice::server
