// The bound on connections is one that the process can keep.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "server/open_files.hpp"

namespace sluice::server {
namespace {

class Warnings final : public Logger {
 public:
  int count = 0;

 private:
  void write(const LogRecord& record) noexcept override { count += record.level == LogLevel::warn; }
};

// In a process of its own, whose limits are lost with it: 0 when it is as it should be.
int with_limits(rlim_t soft, rlim_t hard, std::size_t fit, int warnings) {
  const rlimit limit{soft, hard};
  Warnings told;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
  if (connections_that_fit(1000, told) != fit) return 2;
  return told.count == warnings ? 0 : 3;
}

TEST(OpenFilesDeathTest, G6_connections_are_bounded_by_the_files_a_process_may_open) {
  rlimit now{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &now), 0);
  if (now.rlim_max < 2000) GTEST_SKIP() << "this machine lets a process open few files";
  EXPECT_EXIT(std::_Exit(with_limits(1024, 2000, 1000, 0)), ::testing::ExitedWithCode(0), "") << "raised";
  EXPECT_EXIT(std::_Exit(with_limits(1024, 1024, 768, 1)), ::testing::ExitedWithCode(0), "") << "as many as fit";
  EXPECT_EXIT(std::_Exit(with_limits(100, 100, 50, 1)), ::testing::ExitedWithCode(0), "") << "some, always";
}

}  // namespace
}  // namespace sluice::server
