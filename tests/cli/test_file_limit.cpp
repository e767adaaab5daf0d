// The disk refuses the real server process by a limit on the size of files, or a quota: no ENOSPC,
// yet full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "cli/process.hpp"
#include "support/http_client.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;

class FileLimit : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  std::string token;

  static test::HttpResponse ask(const Serving& serving, const std::string& request) {
    test::HttpClient client(static_cast<std::uint16_t>(
        std::stoi(serving.address().substr(serving.address().rfind(':') + 1))));
    return client.ask(request).value_or(test::HttpResponse{});
  }
  static std::string value_of(int n) { return std::to_string(n) + std::string(8000, 'v'); }
  test::HttpResponse put(const Serving& serving, int n) const {
    const std::string body = R"({"collection":"c","key":"k)" + std::to_string(n) +
                             R"(","value":")" + value_of(n) + "\"}";
    return ask(serving, test::post("kv.put", body,
                                   "Authorization: Bearer " + token + "\r\nIdempotency-Key: k" +
                                       std::to_string(n) + "\r\n"));
  }
  test::HttpResponse read(const Serving& serving, int n) const {
    return ask(serving,
               test::post("kv.get", R"({"collection":"c","key":"k)" + std::to_string(n) + "\"}",
                          "Authorization: Bearer " + token + "\r\n"));
  }
  static void limit(pid_t pid, rlim_t bytes) {
    rlimit to{bytes, RLIM_INFINITY};
    ASSERT_EQ(prlimit(pid, RLIMIT_FSIZE, &to, nullptr), 0);
  }
};

TEST_F(FileLimit,
       NODE_6_a_file_past_its_limit_is_a_full_disk_reads_go_on_and_service_returns_with_the_space) {
  std::vector<int> acknowledged;
  {
    Serving serving(folder.path());
    ASSERT_FALSE(serving.address().empty()) << read_file(folder.file("server.err"));
    token = serving.token();
    ASSERT_EQ(put(serving, 0).status, 200);
    acknowledged.push_back(0);
    struct stat log{};
    ASSERT_EQ(stat(folder.file("sluice.db-wal").c_str(), &log), 0);
    limit(serving.pid(), static_cast<rlim_t>(log.st_size) + 200'000);

    test::HttpResponse refused;
    int next = 1;
    for (; next < 200; ++next) {
      refused = put(serving, next);
      if (refused.status != 200) break;
      acknowledged.push_back(next);
    }
    ASSERT_GT(acknowledged.size(), 3u) << refused.body;
    EXPECT_EQ(refused.status, 503) << refused.body;
    EXPECT_THAT(refused.body, HasSubstr("sluice.db"));
    EXPECT_THAT(refused.body, HasSubstr("free space on the disk"));
    EXPECT_THAT(refused.body, HasSubstr("nothing was written"));
    for (int again = 0; again < 5; ++again) EXPECT_EQ(put(serving, next).status, 503);

    EXPECT_EQ(kill(serving.pid(), 0), 0) << "the process lives";
    EXPECT_THAT(read(serving, acknowledged.back()).body, HasSubstr(value_of(acknowledged.back())));
    const auto replay = put(serving, acknowledged.back());
    EXPECT_EQ(replay.status, 200) << replay.body;
    EXPECT_EQ(replay.headers.count("idempotency-replayed"), 1u);
    EXPECT_EQ(read(serving, next).status, 404) << "what was refused is not there";

    limit(serving.pid(), RLIM_INFINITY);
    const auto returned = put(serving, next);
    EXPECT_EQ(returned.status, 200) << returned.body;
    acknowledged.push_back(next);
    ASSERT_EQ(put(serving, next + 1).status, 200);
    acknowledged.push_back(next + 1);
    serving.crash();
  }
  Serving again(folder.path());
  ASSERT_FALSE(again.address().empty()) << read_file(folder.file("server.err"));
  for (const int n : acknowledged) EXPECT_THAT(read(again, n).body, HasSubstr(value_of(n))) << n;
  EXPECT_EQ(again.stop(), 0);
}

}  // namespace
}  // namespace sluice::cli_test
