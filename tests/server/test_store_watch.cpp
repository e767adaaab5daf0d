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
  Metrics metrics;
  StoreWatch watch{ailing, *logger, metrics};
  std::int64_t writes() { return metrics.gauge("sluice_store_writes", "").value(); }
};

TEST_F(StoreWatchTest, G6_a_store_that_writes_nothing_is_alive_and_not_ready_and_each_change_is_one_line) {
  for (const char* code : {"disk_full", "store_read_only", "database_rights"}) {
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

TEST_F(StoreWatchTest, G6_a_store_that_closed_itself_is_not_ready_and_is_one_error_line) {
  ailing.state = fail(FailureKind::unavailable, "store_failed", "a sync failed");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(watch.ready().error().code(), "store_failed");
    EXPECT_EQ(watch.alive().error().code(), "store_failed") << "a restart mends it";
  }
  ASSERT_EQ(sink->lines.size(), 1u);
  EXPECT_NE(sink->lines[0].find("start the server again"), std::string::npos) << sink->lines[0];
}

TEST_F(StoreWatchTest, NODE_1_a_schema_that_outgrew_the_process_ends_it_with_an_error_line) {
  ailing.state = fail(FailureKind::unavailable, "schema_too_new", "run the newer version of sluice");
  EXPECT_EQ(watch.ready().error().code(), "schema_too_new");
  EXPECT_EQ(watch.alive().error().code(), "schema_too_new") << "a restart, as the newer version, mends it";
  ASSERT_EQ(sink->lines.size(), 1u);
  EXPECT_NE(sink->lines[0].find("run the newer version of sluice"), std::string::npos) << sink->lines[0];
}

TEST_F(StoreWatchTest, NODE_8_on_a_database_that_went_back_nobody_is_made_to_restart) {
  ailing.state = fail(FailureKind::unavailable, "database_went_back", "it was restored");
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(watch.ready().error().code(), "database_went_back");
    EXPECT_TRUE(watch.alive()) << "started again it would serve without knowing what was lost";
  }
  ASSERT_EQ(sink->lines.size(), 1u);
  EXPECT_NE(sink->lines[0].find("database_went_back"), std::string::npos);
  EXPECT_NE(sink->lines[0].find("do not start"), std::string::npos) << sink->lines[0];
}

TEST_F(StoreWatchTest, NODE_8_a_store_in_trouble_that_closes_itself_does_not_write_again) {
  ailing.state = fail(FailureKind::unavailable, "database_unreachable", "it is gone");
  EXPECT_FALSE(watch.ready());
  ailing.state = fail(FailureKind::unavailable, "database_went_back", "it was restored");
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(watch.ready());
  EXPECT_EQ(sink->count("do not start"), 1u);
  EXPECT_EQ(sink->count("writes again"), 0u);
  EXPECT_EQ(writes(), 0);
}

TEST_F(StoreWatchTest, CORE_4_a_server_that_leaves_is_alive_and_not_ready) {
  watch.leave();
  EXPECT_TRUE(watch.alive());
  ASSERT_FALSE(watch.ready());
  EXPECT_EQ(watch.ready().error().kind(), FailureKind::shutting_down);
  EXPECT_TRUE(sink->lines.empty()) << "of the store there is nothing to say";
  EXPECT_EQ(writes(), 1);
}

TEST_F(StoreWatchTest, NODE_6_a_process_whose_database_is_gone_is_alive_and_not_ready_and_says_so_in_the_log) {
  ailing.state = fail(FailureKind::unavailable, "database_unreachable", "it is gone");
  EXPECT_TRUE(watch.alive());
  EXPECT_EQ(watch.ready().error().code(), "database_unreachable");
  EXPECT_FALSE(watch.ready());
  EXPECT_EQ(sink->count("writes nothing now"), 1u);
  EXPECT_EQ(sink->count("database_unreachable"), 1u) << "why, and once";
  EXPECT_EQ(writes(), 0);
  ailing.state = {};
  EXPECT_TRUE(watch.ready());
  EXPECT_EQ(sink->count("writes again"), 1u);
  EXPECT_EQ(writes(), 1);
}

}  // namespace
}  // namespace sluice::server
