// Samples in the documentation are the files that are compiled, to the letter.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

namespace sluice {
namespace {

namespace fs = std::filesystem;
const fs::path kRoot = SLUICE_SOURCE_DIR;

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(Docs, readme_shows_the_first_flow_as_it_is_compiled) {
  EXPECT_NE(text_of(kRoot / "README.md").find(text_of(kRoot / "examples/first_flow.cpp")), std::string::npos)
      << "README.md quotes examples/first_flow.cpp; renew the quotation";
}

TEST(Docs, links_between_pages_lead_somewhere) {
  const std::regex link(R"(\]\(([^)#:]+)(#[^)]*)?\))");
  std::vector<fs::path> pages{kRoot / "README.md"};
  for (const auto& entry : fs::recursive_directory_iterator(kRoot / "docs"))
    if (entry.path().extension() == ".md") pages.push_back(entry.path());
  ASSERT_GT(pages.size(), 5u);
  for (const auto& page : pages) {
    const std::string text = text_of(page);
    for (std::sregex_iterator at(text.begin(), text.end(), link), end; at != end; ++at)
      EXPECT_TRUE(fs::exists(page.parent_path() / (*at)[1].str())) << page << " links to " << (*at)[1];
  }
}

}  // namespace
}  // namespace sluice
