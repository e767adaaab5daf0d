// What is old is deleted in bounded batches, beside the requests, until the server stops.
#include <gtest/gtest.h>

#include "server/purger.hpp"
#include "sim/random.hpp"
#include "sim/scheduler.hpp"
#include "sluice/store/memory.hpp"

namespace sluice::server {
namespace {

struct PurgerTest : ::testing::Test {
  PurgerTest() {
    options.interval = seconds(60);
    options.retention = std::chrono::hours(1);
    options.batch = 10;
    clock.advance(std::chrono::hours(24));
  }
  void audit(std::size_t rows) {
    store::Commit commit;
    for (std::size_t i = 0; i < rows; ++i) commit.then.push_back(store::Mutation(store::AuditAppend()));
    ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
  }
  std::size_t left() {
    const auto rows = store::ask_now(*store, store::ListAudit{0, 1000});
    return rows ? rows->size() : 0;
  }
  void pass(Duration time) { scheduler.run_to(clock.now() + time, 1'000'000); }

  sim::SimRandom random{1};
  sim::SimClock clock;
  sim::SimScheduler scheduler{clock, 1};
  Lane& lane = scheduler.add_lane("background");
  std::unique_ptr<store::Store> store = store::make_memory_store(clock, random);
  Metrics metrics;
  PurgeOptions options;
};

TEST_F(PurgerTest, CORE_11_old_rows_go_in_batches_and_young_ones_stay) {
  Backroom backroom(scheduler);
  Purger purger(*store, backroom, lane, options, metrics, null_logger());
  audit(35);
  pass(std::chrono::hours(2));
  audit(5);
  ASSERT_TRUE(purger.start());
  pass(seconds(59));
  EXPECT_EQ(left(), 40u) << "the first sweep begins after one interval";
  pass(seconds(1) + milliseconds(10));
  EXPECT_EQ(left(), 30u) << "one batch, then a pause";
  pass(seconds(1));
  EXPECT_EQ(left(), 5u);
  EXPECT_NE(metrics.prometheus_text().find("sluice_purge_rows_total{table=\"audit\"} 35"),
            std::string::npos)
      << metrics.prometheus_text();
  pass(std::chrono::hours(2));
  EXPECT_LE(left(), 1u);
}

TEST_F(PurgerTest, CORE_11_marks_of_streams_that_have_not_moved_for_long_go) {
  Backroom backroom(scheduler);
  Purger purger(*store, backroom, lane, options, metrics, null_logger());
  const auto mark = [&](int n, WallTime moved_at) {
    stream::Progress progress;
    progress.moved_at = moved_at;
    store::Commit commit;
    commit.then.push_back(store::KvPut{{std::string(stream::kMarksApp), std::string(stream::kMarks), std::to_string(n)},
                                       progress.encode(), 0});
    ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit)));
  };
  const auto marks = [&] {
    store::ListRows list;
    list.ns = stream::kMarksApp, list.collection = stream::kMarks;
    return store::ask_now(*store, list)->size();
  };
  for (int n = 100; n < 125; ++n) mark(n, store->now());  // more than a batch
  clock.advance(stream::kMarksKept - std::chrono::hours(1));
  mark(200, store->now());
  ASSERT_TRUE(purger.start());
  pass(seconds(60) + milliseconds(10));
  EXPECT_EQ(marks(), 26u) << "none is old enough";
  pass(std::chrono::hours(1));
  EXPECT_EQ(marks(), 1u);
  EXPECT_NE(metrics.prometheus_text().find("sluice_purge_rows_total{table=\"streams\"} 25"), std::string::npos);
}

TEST_F(PurgerTest, CORE_11_after_the_drain_nothing_is_deleted) {
  Backroom backroom(scheduler);
  Purger purger(*store, backroom, lane, options, metrics, null_logger());
  audit(35);
  pass(std::chrono::hours(2));
  ASSERT_TRUE(purger.start());
  pass(seconds(60) + milliseconds(10));
  purger.drain();
  pass(milliseconds(1));
  EXPECT_TRUE(purger.drained());
  const auto before = left();
  pass(std::chrono::hours(1));
  EXPECT_EQ(left(), before);
  EXPECT_GT(before, 0u);
}

TEST_F(PurgerTest, CORE_11_a_failing_store_is_counted_and_tried_again) {
  Backroom backroom(scheduler);
  Purger purger(*store, backroom, lane, options, metrics, null_logger());
  ASSERT_TRUE(purger.start());
  store->close();
  pass(seconds(125));
  EXPECT_NE(metrics.prometheus_text().find("sluice_purge_failures_total 2"), std::string::npos)
      << metrics.prometheus_text();
}

}  // namespace
}  // namespace sluice::server
