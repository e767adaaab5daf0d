// The real server on a real file system that fills up while it is used.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

/// A file system of a few MiB of its own. Needs root; without it there is none.
class SmallDisk {
 public:
  explicit SmallDisk(std::string at) : at_(std::move(at)) {
    mkdir(at_.c_str(), 0700);
    mounted_ = mount("tmpfs", at_.c_str(), "tmpfs", 0, "size=4m") == 0;
    if (!mounted_) why_ = std::strerror(errno);
  }
  ~SmallDisk() {
    if (mounted_) umount2(at_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  explicit operator bool() const { return mounted_; }
  const std::string& why() const { return why_; }
  bool grow(const char* size) const {
    return mount("tmpfs", at_.c_str(), "tmpfs", MS_REMOUNT, size) == 0;
  }

 private:
  std::string at_, why_;
  bool mounted_ = false;
};

TEST(DiskFull, G1_G3_the_server_says_so_keeps_answering_and_goes_on_when_there_is_room) {
  testing_support::TempFolder folder;
  const SmallDisk disk(folder.file("disk"));
  if (!disk) GTEST_SKIP() << "mounting a small disk needs root: " << disk.why();
  const Arguments store{"--store", "disk/sluice.db"};
  std::vector<std::string> acknowledged;
  const auto put = [&](const Serving& server, const std::string& key) {
    const std::string value(60'000, key.back());
    return server.ask({"send", "kv.put", R"({"collection":"c","key":")" + key + R"(","value":")" + value + "\"}",
                       "--key", key});
  };
  std::string token;
  {
    Serving server(folder.path(), store);
    ASSERT_FALSE(server.address().empty()) << read_file(folder.file("server.err"));
    token = server.token();
    Ran refused;
    for (int i = 0; i < 500; ++i) {
      const std::string key = "k" + std::to_string(i);
      refused = put(server, key);
      if (refused.status != 0) break;
      acknowledged.push_back(key);
    }
    ASSERT_NE(refused.status, 0) << "the disk did not fill";
    ASSERT_GT(acknowledged.size(), 5u);
    EXPECT_THAT(refused.err, HasSubstr("sluice.db")) << "which file";
    EXPECT_THAT(refused.err, HasSubstr("full"));
    EXPECT_THAT(refused.err, HasSubstr("free space")) << "what to do";

    const Ran read = server.ask({"send", "kv.get", R"({"collection":"c","key":"k0"})"});
    EXPECT_EQ(read.status, 0) << "reads need no room: " << read.err;
    const Ran again = put(server, acknowledged.front());
    EXPECT_EQ(again.status, 0) << "replays need none: " << again.err;

    ASSERT_TRUE(disk.grow("size=64m"));
    const Ran after = put(server, "after");
    EXPECT_EQ(after.status, 0) << "there is room again, and no restart was needed: " << after.err;
    if (after.status == 0) acknowledged.push_back("after");
    EXPECT_EQ(server.stop(), 0);
  }
  Serving server(folder.path(), store);
  for (const auto& key : acknowledged) {
    const Ran read = run(folder.path(), {"send", "kv.get", R"({"collection":"c","key":")" + key + "\"}"},
                         {{"SLUICE_SERVER", server.address()}, {"SLUICE_TOKEN", token}});
    EXPECT_EQ(read.status, 0) << key << " was acknowledged: " << read.err;
  }
}

}  // namespace
}  // namespace sluice::cli_test
