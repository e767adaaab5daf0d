// sluice audit goes on by itself: one answer of the server looks at so many rows only.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "cli/process.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;
using testing::Not;

/// Gives these bodies to as many requests, one a connection, and keeps what was asked.
class Answers {
 public:
  explicit Answers(std::vector<std::string> bodies) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    listen(fd_, 8);
    socklen_t size = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    server = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this, bodies] {
      for (const auto& body : bodies) answer(body);
    });
  }
  ~Answers() {
    end();
    close(fd_);
  }
  void end() {
    shutdown(fd_, SHUT_RDWR);  // ends an accept that nobody came to
    if (thread_.joinable()) thread_.join();
  }
  std::string server;
  std::vector<nlohmann::json> asked;

 private:
  void answer(const std::string& body) {
    const int one = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (one < 0) return;
    std::string request;
    char some[4096];
    for (ssize_t got; (got = ::read(one, some, sizeof some)) > 0;) {
      request.append(some, static_cast<std::size_t>(got));
      const auto end = request.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      const auto payload = nlohmann::json::parse(request.substr(end + 4), nullptr, false);
      if (payload.is_discarded()) continue;
      asked.push_back(payload);
      break;
    }
    const std::string reply = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    (void)!::write(one, reply.data(), reply.size());
    close(one);
  }
  int fd_ = -1;
  std::thread thread_;
};

std::string one_row(int sequence) {
  return R"({"sequence":)" + std::to_string(sequence) + R"(,"at_ms":0,"principal":"till","command":"kv.add","outcome":"denied","detail":""})";
}

TEST(AuditSearch, CONSOLE_6_the_search_goes_on_until_the_limit_is_met) {
  const testing_support::TempFolder folder;
  Answers answers({R"({"rows":[],"before":20001})", R"({"rows":[)" + one_row(700) + R"(],"before":600})",
                   R"({"rows":[)" + one_row(500) + R"(],"before":500})"});
  const Ran ran = run(folder.path(), {"audit", "--outcome", "denied", "--limit", "2"}, {{"SLUICE_SERVER", answers.server}});
  EXPECT_EQ(ran.status, 0) << ran.err;
  answers.end();
  EXPECT_THAT(ran.out, Not(HasSubstr("No such rows")));
  EXPECT_THAT(ran.out, HasSubstr("till"));
  EXPECT_THAT(ran.out, HasSubstr("More: --before 500"));
  EXPECT_THAT(ran.err, HasSubstr("before 20001"));
  ASSERT_EQ(answers.asked.size(), 3u);
  EXPECT_EQ(answers.asked[1]["before"], 20001);
  EXPECT_EQ(answers.asked[2]["limit"], 1);
}

TEST(AuditSearch, CONSOLE_6_no_such_rows_is_said_once_all_were_looked_at) {
  const testing_support::TempFolder folder;
  Answers answers({R"({"rows":[],"before":20001})", R"({"rows":[]})"});
  const Ran ran = run(folder.path(), {"audit", "--outcome", "denied"}, {{"SLUICE_SERVER", answers.server}});
  EXPECT_EQ(ran.status, 0) << ran.err;
  answers.end();
  EXPECT_EQ(answers.asked.size(), 2u);
  EXPECT_THAT(ran.out, HasSubstr("No such rows"));
  Answers both({R"({"rows":[],"before":20001})", R"({"rows":[)" + one_row(7) + "]}"});
  const Ran json = run(folder.path(), {"audit", "--outcome", "denied", "--json"}, {{"SLUICE_SERVER", both.server}});
  EXPECT_EQ(nlohmann::json::parse(json.out)["rows"].size(), 1u) << json.out;
}

}  // namespace
}  // namespace sluice::cli_test
