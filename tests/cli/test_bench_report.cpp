// What `sluice bench --json` prints is for programs: one JSON object a line.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/report.hpp"

namespace sluice::bench {
namespace {

TEST(BenchReport, CONSOLE_2_each_line_for_programs_is_json_whatever_a_note_quotes) {
  testing::internal::CaptureStdout();
  Report report("voucher", true);
  report.add("a \"sale\"", 64, "rate", "1/s", {1, 2, 3});
  report.note(R"(asked and saved: {"code_calls":6})");
  std::istringstream lines(testing::internal::GetCapturedStdout());
  std::vector<nlohmann::json> all;
  for (std::string line; std::getline(lines, line);) {
    all.push_back(nlohmann::json::parse(line, nullptr, false));
    EXPECT_FALSE(all.back().is_discarded()) << line;
  }
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].value("case", ""), "a \"sale\"");
  EXPECT_EQ(all[1].value("note", ""), R"(asked and saved: {"code_calls":6})");
}

}  // namespace
}  // namespace sluice::bench
