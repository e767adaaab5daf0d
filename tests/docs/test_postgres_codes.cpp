// docs/how-to/postgres.md has a row for every code that the PostgreSQL store tells.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace sluice {
namespace {

std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// Of each kind that is followed by a literal: of a failure that is made there, or of a row of the table of SQLSTATEs.
std::set<std::string> codes_told() {
  const std::regex code(R"re((FailureKind::[a-z_]+|\bkind),\s*"([a-z]+(_[a-z]+)*)")re");
  std::set<std::string> codes;
  for (const auto& entry : std::filesystem::directory_iterator(SLUICE_SOURCE_DIR "/src/store/postgres")) {
    if (entry.path().extension() != ".cpp") continue;
    const std::string text = text_of(entry.path());
    for (std::sregex_iterator at(text.begin(), text.end(), code), end; at != end; ++at)
      codes.insert((*at)[2]);
  }
  return codes;
}

TEST(Docs, NODE_6_every_code_of_the_postgres_store_has_a_row_in_its_page) {
  const std::string page = text_of(SLUICE_SOURCE_DIR "/docs/how-to/postgres.md");
  const auto begin = page.find("## Every code of this store");
  ASSERT_NE(begin, std::string::npos);
  const std::string table = page.substr(begin, page.find("\n## ", begin) - begin);
  const auto codes = codes_told();
  for (const char* const one : {"too_many_connections", "nodes_alive", "schema_too_new", "commit_unknown"})
    EXPECT_TRUE(codes.contains(one)) << "found in no source: " << one;
  std::set<std::string> told;
  const std::regex row(R"re(\n\|([^|]*)\|)re"), word(R"re(`([a-z_]+)`)re");
  for (std::sregex_iterator at(table.begin(), table.end(), row), end; at != end; ++at) {
    const std::string first = (*at)[1];
    for (std::sregex_iterator w(first.begin(), first.end(), word); w != end; ++w) told.insert((*w)[1]);
  }
  for (const auto& code : codes) EXPECT_TRUE(told.contains(code)) << "no row says what to do about " << code;
}

}  // namespace
}  // namespace sluice
