// Samples in the documentation are the files that are compiled, to the letter.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

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

// Without blanks at the ends of lines: a page may indent a sample less than the program.
std::string trimmed(const std::string& text) {
  std::istringstream lines(text);
  std::string all;
  for (std::string line; std::getline(lines, line);) {
    const auto from = line.find_first_not_of(' ');
    if (from != std::string::npos) all += line.substr(from) + '\n';
  }
  return all;
}

TEST(Docs, how_tos_quote_what_is_compiled_and_what_it_prints) {
  const std::vector<std::pair<std::string, std::string>> pages{{"reach-outside", "card_hold"},
                                                               {"wait-for-an-answer", "approval"},
                                                               {"my-service", "my_service"}};
  for (const auto& [page, example] : pages) {
    const std::string text = text_of(kRoot / "docs/how-to" / (page + ".md"));
    const std::string program = trimmed(text_of(kRoot / "examples" / (example + ".cpp")));
    const fs::path printed = kRoot / "tests/install" / (example + ".txt");
    if (fs::exists(printed))
      EXPECT_NE(text.find("```\n" + text_of(printed) + "```"), std::string::npos)
        << page << " does not show what " << example << " prints";
    std::size_t samples = 0;
    for (std::size_t at = text.find("```cpp\n"); at != std::string::npos; at = text.find("```cpp\n", at + 1)) {
      const std::string sample = text.substr(at + 7, text.find("```", at + 7) - at - 7);
      EXPECT_NE(program.find(trimmed(sample)), std::string::npos) << page << " quotes what is not in " << example << ":\n" << sample;
      ++samples;
    }
    EXPECT_GT(samples, 0u) << page;
  }
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
