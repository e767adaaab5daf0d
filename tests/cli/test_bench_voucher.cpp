// `sluice bench voucher`, briefly: that it runs and what its lines are, not how fast this machine is.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/process.hpp"
#include "support/sanitized.hpp"

namespace sluice::cli_test {
namespace {

using testing_support::kSanitized;

TEST(BenchVoucher, VOUCHER_10_a_short_run_reports_the_sale_the_outage_and_what_was_saved) {
  if (kSanitized) GTEST_SKIP() << "benches are not run there";
  testing_support::TempFolder folder;
  const Ran ran = run(folder.path(), {"bench", "voucher", "--rounds", "1", "--seconds", "0.1", "--json", "--directory", folder.path()});
  ASSERT_EQ(ran.status, 0) << ran.err << ran.out;
  std::map<std::string, std::map<std::string, double>> told;
  std::string notes;
  std::istringstream lines(ran.out);
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    ASSERT_TRUE(json.is_object()) << line;
    if (json.contains("note"))
      notes += json["note"].get<std::string>() + "\n";
    else
      told[json.value("case", "")][json.value("metric", "")] = json.value("median", -1.0);
  }
  ASSERT_EQ(told.size(), 3u) << ran.out;
  for (const char* sale : {"flash sale, own codes", "flash sale, code service"}) EXPECT_EQ(told[sale]["issued"], 1000) << sale;
  for (const char* name : {"flash sale, code service", "code service hangs for SG"}) {
    auto& rows = told[name];
    for (const char* row : {"calls of the code service", "saved by cache", "saved by single-flight", "saved by breaker"})
      EXPECT_TRUE(rows.contains(row)) << name << ": " << row;
    EXPECT_GE(rows["calls of the code service"], 1) << name;
    EXPECT_GE(rows["saved by cache"], 1) << name;
  }
  EXPECT_GE(told["flash sale, code service"]["calls of the code service"] + told["flash sale, code service"]["saved by cache"] +
                told["flash sale, code service"]["saved by single-flight"],
            1000)
      << "each code that was issued was asked for, at hand or brought by another's call";
  for (const char* row : {"TH before", "TH meanwhile", "TH kept", "SG answered, p99", "answers past deadline"})
    EXPECT_TRUE(told["code service hangs for SG"].contains(row)) << row;
  EXPECT_NE(notes.find("verdict: TH kept "), std::string::npos) << notes;
}

}  // namespace
}  // namespace sluice::cli_test
