// The simulated disk: goal is that everything a real disk may do to unsynced data happens under
// some seed, and that nothing synced is ever touched.
#include <gtest/gtest.h>

#include <set>

#include "sim/files.hpp"

namespace sluice::sim {
namespace {

std::unique_ptr<File> open(SimFiles& files, const std::string& path) {
  auto file = files.open(path, OpenMode::create);
  EXPECT_TRUE(file);
  return std::move(*file);
}

TEST(SimFiles, SyncedDataSurvivesEveryCrash) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SimFiles files(seed);
    auto file = open(files, "f");
    const Bytes synced(3000, 's');
    ASSERT_TRUE(file->write_at(0, synced));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(file->write_at(3000, Bytes(5000, 'u')));
    files.power_off();
    files.restart();
    ASSERT_EQ(files.visible("f").substr(0, 3000), synced);
  }
}

TEST(SimFiles, UnsyncedDataMaySurviveWholeTornReorderedOrNotAtAll) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    SimFiles files(seed);
    auto file = open(files, "f");
    ASSERT_TRUE(file->write_at(0, Bytes(2048, '0')));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(file->write_at(0, Bytes(1024, 'a')));
    ASSERT_TRUE(file->write_at(1024, Bytes(1024, 'b')));
    files.power_off();
    files.restart();
    const Bytes left = files.visible("f");
    ASSERT_EQ(left.size(), 2048u);
    std::string shape;
    for (std::size_t at = 0; at < left.size(); at += SimFiles::kSector) {
      ASSERT_EQ(left.substr(at, SimFiles::kSector), Bytes(SimFiles::kSector, left[at]))
          << "a sector is written whole or not at all";
      shape.push_back(left[at]);
    }
    seen.insert(shape);
  }
  EXPECT_TRUE(seen.contains("0000"));
  EXPECT_TRUE(seen.contains("aabb"));
  EXPECT_TRUE(seen.contains("aa00"));
  EXPECT_TRUE(seen.contains("00bb")) << "the later write survived the earlier one";
  EXPECT_TRUE(seen.contains("a000") || seen.contains("0a00"));
}

TEST(SimFiles, AFailedSyncDropsWhatItShouldHaveSavedAndALaterSyncDoesNotBringItBack) {
  bool lost = false;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Faults faults{SimRandom(seed)};
    SimFiles files(seed, &faults);
    auto file = open(files, "f");
    ASSERT_TRUE(file->write_at(0, "precious"));
    faults.arm("files.sync", 1, 1);
    const auto failed = file->sync();
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code(), "io_error");
    EXPECT_EQ(files.visible("f"), "precious");
    ASSERT_TRUE(file->sync());
    files.power_off();
    files.restart();
    lost |= files.visible("f") != "precious";
  }
  EXPECT_TRUE(lost);
}

TEST(SimFiles, APowerFailureInsideAWriteEndsEverythingUntilRestart) {
  Faults faults{SimRandom(1)};
  SimFiles files(1, &faults);
  auto file = open(files, "f");
  faults.arm("files.power", 1, 1);
  EXPECT_FALSE(file->write_at(0, "abc"));
  EXPECT_FALSE(files.powered());
  EXPECT_FALSE(file->sync());
  EXPECT_FALSE(files.open("g", OpenMode::create));
  EXPECT_FALSE(files.exists("f"));
  files.restart();
  EXPECT_TRUE(files.open("f", OpenMode::read_write));
  EXPECT_FALSE(file->size()) << "handles from before the failure stay dead";
}

TEST(SimFiles, AFullDiskTakesWhatFitsAndRefusesTheRest) {
  SimFiles files(1);
  auto file = open(files, "f");
  files.set_budget(1000);
  ASSERT_TRUE(file->write_at(0, Bytes(900, 'x')));
  const auto full = file->write_at(900, Bytes(200, 'y'));
  ASSERT_FALSE(full);
  EXPECT_EQ(full.error().code(), "disk_full");
  EXPECT_EQ(files.used(), 1000u);
  EXPECT_TRUE(file->write_at(0, Bytes(1000, 'z'))) << "overwriting needs no space";
  files.set_budget(UINT64_MAX);
  EXPECT_TRUE(file->write_at(1000, "more"));
}

TEST(SimFiles, TruncationIsAChangeLikeAnyOther) {
  std::set<std::size_t> sizes;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    SimFiles files(seed);
    auto file = open(files, "f");
    ASSERT_TRUE(file->write_at(0, Bytes(2000, 'x')));
    ASSERT_TRUE(file->sync());
    ASSERT_TRUE(file->truncate(100));
    files.power_off();
    files.restart();
    sizes.insert(files.visible("f").size());
  }
  EXPECT_EQ(sizes, (std::set<std::size_t>{100, 2000}));
}

TEST(SimFiles, ANonDurableRemovalMayBeUndoneByACrash) {
  std::set<bool> seen;
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    SimFiles files(seed);
    open(files, "a");
    open(files, "b");
    ASSERT_TRUE(files.remove("a", false));
    ASSERT_TRUE(files.remove("b", true));
    files.power_off();
    files.restart();
    seen.insert(*files.exists("a"));
    EXPECT_FALSE(*files.exists("b"));
  }
  EXPECT_EQ(seen.size(), 2u);
}

TEST(SimFiles, TheSameSeedSurvivesTheSameWay) {
  const auto history = [](std::uint64_t seed) {
    History h;
    SimFiles files(seed, nullptr, &h);
    auto file = open(files, "f");
    for (int i = 0; i < 20; ++i)
      EXPECT_TRUE(file->write_at(static_cast<std::uint64_t>(i) * 700, Bytes(900, 'x')));
    files.power_off();
    files.restart();
    return h.hash();
  };
  EXPECT_EQ(history(7), history(7));
  EXPECT_NE(history(7), history(8));
}

}  // namespace
}  // namespace sluice::sim
