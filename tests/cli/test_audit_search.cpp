// sluice audit goes on by itself: one answer of the server looks at so many rows only.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "cli/process.hpp"
#include "support/loopback_listener.hpp"

namespace sluice::cli_test {
namespace {

using testing::HasSubstr;
using testing::Not;

/// Gives these bodies to as many requests, one a connection, and keeps what was asked.
class Answers {
 public:
  explicit Answers(std::vector<std::string> bodies) : thread_([this, bodies] {
    for (const auto& body : bodies) answer(body);
  }) {}
  ~Answers() { end(); }
  void end() {
    listener_.end();
    if (thread_.joinable()) thread_.join();
  }
  std::string server() const { return listener_.url(); }
  std::vector<nlohmann::json> asked;

 private:
  void answer(const std::string& body) {
    const int one = listener_.accept();
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
  testing_support::LoopbackListener listener_;
  std::thread thread_;
};

std::string one_row(int sequence) {
  return R"({"sequence":)" + std::to_string(sequence) + R"(,"at_ms":0,"principal":"till","command":"kv.add","outcome":"denied","detail":""})";
}

TEST(AuditSearch, CONSOLE_6_the_search_goes_on_until_the_limit_is_met) {
  const testing_support::TempFolder folder;
  Answers answers({R"({"rows":[],"before":20001})", R"({"rows":[)" + one_row(700) + R"(],"before":600})",
                   R"({"rows":[)" + one_row(500) + R"(],"before":500})"});
  const Ran ran = run(folder.path(), {"audit", "--outcome", "denied", "--limit", "2"}, {{"SLUICE_SERVER", answers.server()}});
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
  const Ran ran = run(folder.path(), {"audit", "--outcome", "denied"}, {{"SLUICE_SERVER", answers.server()}});
  EXPECT_EQ(ran.status, 0) << ran.err;
  answers.end();
  EXPECT_EQ(answers.asked.size(), 2u);
  EXPECT_THAT(ran.out, HasSubstr("No such rows"));
  Answers both({R"({"rows":[],"before":20001})", R"({"rows":[)" + one_row(7) + "]}"});
  const Ran json = run(folder.path(), {"audit", "--outcome", "denied", "--json"}, {{"SLUICE_SERVER", both.server()}});
  EXPECT_EQ(nlohmann::json::parse(json.out)["rows"].size(), 1u) << json.out;
}

}  // namespace
}  // namespace sluice::cli_test
