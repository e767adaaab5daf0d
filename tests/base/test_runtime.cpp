// The real runtime: goal is that wake-ups are never lost, that stopping is clean at any moment,
// and that file failures tell a person what to do. Nothing here sleeps to synchronise.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <set>

#include "sluice/base/runtime.hpp"

namespace sluice {
namespace {

Task<int> doubled(int value) {
  co_await sleep_for(milliseconds(1));
  co_return value * 2;
}
Task<int> at_once(int value) { co_return value; }
Task<int> throwing() {
  co_await sleep_for(milliseconds(1));
  throw std::runtime_error("no");
  co_return 0;
}

TEST(Runtime, BlockOnReturnsTheValueOfTasksThatSuspendOrNot) {
  RealClock clock;
  LaneThread lane(clock);
  EXPECT_EQ(block_on(lane, doubled(21)), 42);
  EXPECT_EQ(block_on(lane, at_once(7)), 7);
  EXPECT_THROW(block_on(lane, throwing()), std::runtime_error);
}

TEST(Runtime, LaneThreadStartsAndStopsAnyNumberOfTimes) {
  RealClock clock;
  LaneThread lane(clock);
  lane.stop();
  lane.join();
  for (int round = 0; round < 3; ++round) {
    lane.start();
    lane.start();
    EXPECT_EQ(block_on(lane, at_once(round)), round);
    lane.stop();
    lane.stop();
    lane.join();
    lane.join();
  }
}

TEST(Runtime, WorkPostedBeforeStopIsRun) {
  RealClock clock;
  std::atomic<int> ran{0};
  {
    LaneThread lane(clock);
    lane.start();
    for (int i = 0; i < 1000; ++i) lane.lane().post([&] { ++ran; });
  }
  EXPECT_EQ(ran.load(), 1000);
}

TEST(Runtime, ParkerRemembersOneWakeAndTimesOut) {
  Parker parker;
  EXPECT_FALSE(parker.park(Duration::zero()));
  EXPECT_FALSE(parker.park(microseconds(50)));
  parker.wake();
  parker.wake();
  EXPECT_TRUE(parker.park());
  EXPECT_FALSE(parker.park(Duration(1)));
}

TEST(Runtime, PingPongBetweenParkersLosesNoWake) {
  constexpr int kRounds = 20'000;
  Parker here, there;
  int ball = 0;
  Thread other("pong", [&] {
    for (int i = 0; i < kRounds; ++i) {
      there.park();
      ++ball;
      here.wake();
    }
  });
  for (int i = 0; i < kRounds; ++i) {
    ++ball;
    there.wake();
    here.park();
  }
  other.join();
  EXPECT_EQ(ball, 2 * kRounds);
}

TEST(Runtime, CrossThreadPostsKeepTheirOrderAndWakeTheLane) {
  constexpr int kPosters = 3, kJobs = 20'000;
  RealClock clock;
  LaneThread lane(clock);
  lane.start();
  std::vector<int> next(kPosters, 0);
  int bad = 0;
  int ran = 0;
  Parker all_ran;
  std::vector<Thread> posters;
  for (int poster = 0; poster < kPosters; ++poster)
    posters.emplace_back("poster", [&, poster] {
      for (int i = 0; i < kJobs; ++i)
        lane.lane().post([&, poster, i] {
          if (next[poster]++ != i) ++bad;
          if (++ran == kPosters * kJobs) all_ran.wake();
        });
    });
  EXPECT_TRUE(all_ran.park(seconds(60)));
  for (auto& poster : posters) poster.join();
  EXPECT_EQ(bad, 0);
}

TEST(Runtime, ALoneJobWakesASleepingLaneEveryTime) {
  RealClock clock;
  LaneThread lane(clock);
  lane.start();
  for (int i = 0; i < 3000; ++i) ASSERT_EQ(block_on(lane, at_once(i)), i);
}

TEST(Runtime, ExecutorStepsOnWakeAndAtTheTimeAsked) {
  RealClock clock;
  RealExecutor executor(clock);
  Parker stepped;
  std::atomic<int> steps{0};
  auto worker = executor.start("steps", [&]() noexcept {
    const int step = ++steps;
    stepped.wake();
    if (step == 2) return Instant::min();  // at once, without a wake
    return step < 5 ? clock.now() + microseconds(100) : kNever;
  });
  while (steps < 5) ASSERT_TRUE(stepped.park(seconds(30)));
  while (stepped.park(Duration::zero())) {
  }
  worker->wake();
  while (steps < 6) ASSERT_TRUE(stepped.park(seconds(30)));
  worker.reset();
  EXPECT_EQ(steps, 6);
}

TEST(Runtime, RandomDiffersBetweenThreadsAndCalls) {
  RealRandom random;
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.next());
  std::uint64_t elsewhere = 0;
  Thread("random", [&] { elsewhere = random.next(); }).join();
  seen.insert(elsewhere);
  EXPECT_EQ(seen.size(), 1001u);
  std::array<std::byte, 300> a{}, b{};
  random.secret(a.data(), a.size());
  random.secret(b.data(), b.size());
  EXPECT_NE(a, b);
  for (int i = 0; i < 1000; ++i) EXPECT_LT(random.below(7), 7u);
  EXPECT_EQ(random.below(0), 0u);
}

class RealFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "sluice-files-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string path(std::string_view name) const { return directory_ + "/" + std::string(name); }
  std::string directory_;
  RealFiles files_;
};

TEST_F(RealFilesTest, AMissingFileIsNamedAndNotCreatedUnlessAsked) {
  auto missing = files_.open(path("a"), OpenMode::read_write);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().kind(), FailureKind::not_found);
  EXPECT_NE(missing.error().detail().find(path("a")), std::string::npos);
  EXPECT_FALSE(*files_.exists(path("a")));
  EXPECT_TRUE(files_.open(path("a"), OpenMode::create));
  EXPECT_TRUE(*files_.exists(path("a")));
}

TEST_F(RealFilesTest, ADirectoryOrAPathThroughAFileIsRefused) {
  ASSERT_TRUE(files_.open(path("file"), OpenMode::create));
  EXPECT_EQ(files_.open(directory_, OpenMode::read).error().kind(), FailureKind::invalid_argument);
  EXPECT_EQ(files_.open(path("file/x"), OpenMode::create).error().kind(),
            FailureKind::invalid_argument);
  EXPECT_FALSE(files_.remove(path("nothing"), true));
  EXPECT_FALSE(files_.rename(path("nothing"), path("x")));
}

TEST_F(RealFilesTest, AFullDiskIsSaidInWords) {
  // /dev/full refuses every write with ENOSPC.
  auto full = files_.open("/dev/full", OpenMode::read_write);
  ASSERT_TRUE(full);
  const auto status = (*full)->write_at(0, "data");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().kind(), FailureKind::unavailable);
  EXPECT_EQ(status.error().code(), "disk_full");
  EXPECT_NE(status.error().detail().find("free space"), std::string::npos);
}

TEST_F(RealFilesTest, WritesReadBackAndReadsStopAtTheEnd) {
  auto file = std::move(*files_.open(path("f"), OpenMode::create));
  ASSERT_TRUE(file->write_at(3, "hello"));
  EXPECT_EQ(*file->size(), 8u);
  char buffer[16] = {};
  EXPECT_EQ(*file->read_at(0, buffer, sizeof buffer), 8u);
  EXPECT_EQ(ByteView(buffer + 3, 5), "hello");
  EXPECT_EQ(*file->read_at(100, buffer, sizeof buffer), 0u);
  ASSERT_TRUE(file->sync());
  ASSERT_TRUE(file->truncate(4));
  EXPECT_EQ(*file->size(), 4u);
  ASSERT_TRUE(files_.rename(path("f"), path("g")));
  EXPECT_FALSE(*files_.exists(path("f")));
  ASSERT_TRUE(files_.remove(path("g"), true));
  EXPECT_FALSE(*files_.exists(path("g")));
}

TEST_F(RealFilesTest, WritingThroughAReadOnlyHandleFailsClearly) {
  ASSERT_TRUE(files_.open(path("f"), OpenMode::create));
  auto file = std::move(*files_.open(path("f"), OpenMode::read));
  EXPECT_FALSE(file->write_at(0, "x"));
  EXPECT_FALSE(file->truncate(0));
}

}  // namespace
}  // namespace sluice
