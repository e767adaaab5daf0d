// docs/errors.md carries the failure table as the code has it. To renew it after a change:
//   SLUICE_UPDATE_DOCS=1 ./test -R Docs
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "sluice/base/failure.hpp"

namespace sluice {
namespace {

constexpr const char* kBegin = "<!-- table: begin -->\n";
constexpr const char* kEnd = "<!-- table: end -->\n";

std::string_view remember_word(Remember remember) {
  switch (remember) {
    case Remember::store: return "stored";
    case Remember::release: return "released";
    case Remember::rerun: return "re-run";
    case Remember::status: return "status";
  }
  return "?";
}

std::string table() {
  std::ostringstream out;
  out << "| kind | gRPC | HTTP | ISO 8583 | retryable | ends a stream | breaks order | key | meaning |\n"
         "|---|---|---|---|---|---|---|---|---|\n";
  const auto mark = [](bool yes) { return yes ? "yes" : ""; };
  for (const auto& row : failure_table()) {
    if (row.kind == FailureKind::none) continue;
    out << "| `" << row.name << "` | " << row.grpc_code << " | " << row.http_status << " | "
        << row.iso8583 << " | " << mark(row.retryable) << " | " << mark(row.terminal) << " | "
        << mark(row.breaks_order) << " | " << remember_word(row.remember) << " | " << row.meaning
        << " |\n";
  }
  return out.str();
}

TEST(Docs, errors_page_carries_the_failure_table) {
  const std::string path = SLUICE_SOURCE_DIR "/docs/errors.md";
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  std::string page = text.str();
  const auto begin = page.find(kBegin);
  const auto end = page.find(kEnd);
  ASSERT_NE(begin, std::string::npos) << path;
  ASSERT_NE(end, std::string::npos) << path;
  const auto first = begin + std::string(kBegin).size();
  if (std::getenv("SLUICE_UPDATE_DOCS") != nullptr) {
    std::ofstream(path) << page.substr(0, first) + table() + page.substr(end);
    return;
  }
  EXPECT_EQ(page.substr(first, end - first), table())
      << "renew it with SLUICE_UPDATE_DOCS=1 ./test -R Docs";
}

}  // namespace
}  // namespace sluice
