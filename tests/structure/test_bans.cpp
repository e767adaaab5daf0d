// What may not be written, and what to write instead.
#include <gtest/gtest.h>

#include <regex>

#include "structure/source_tree.hpp"

namespace sluice::structure {
namespace {

struct Ban {
  const char* pattern;
  const char* instead;
};

const std::vector<Ban> kBans{
    {R"(\b(system_clock|steady_clock|high_resolution_clock)::now)", "an injected sluice::Clock"},
    {R"(\b(clock_gettime|gettimeofday)\s*\(|\btime\s*\(\s*(NULL|nullptr|0)\s*\))",
     "an injected sluice::Clock"},
    {R"(\bstd::random_device\b|\bs?rand\s*\(\s*\)|\bgetrandom\s*\(|\bgetentropy\s*\()",
     "an injected sluice::Random"},
    {R"(\bsleep_for\s*\(\s*std::|this_thread::sleep|\busleep\s*\(|\bnanosleep\s*\()",
     "a sluice::Timer or sleep_for on a lane"},
    {R"(\bstd::j?thread\b(?!::)|\bstd::async\b|\bpthread_create\b)", "sluice::LaneThread or Thread"},
    {R"(\bstd::(mt19937|default_random_engine))", "an injected sluice::Random"},
    {R"(\b(strcpy|strcat|sprintf|gets)\s*\()", "std::string or fmt"},
    {R"(\busing namespace std\b)", "qualified names"},
    {R"(\bstd::(cout|cerr)\b)", "the logger, or fmt::print in the command line"},
    {R"(#include <(format|print|iostream)>)", "fmt (the shipped library has no std::format)"},
};

bool exempt(const std::string& path, const Ban& ban) {
  if (path.starts_with("src/base/runtime/real_")) return true;
  // The simulator's generator is a fixed algorithm under a seed.
  if (path.starts_with("sim/") && std::string(ban.pattern).find("mt19937") != std::string::npos)
    return true;
  return false;
}

std::vector<std::string> findings(const SourceFile& file) {
  std::vector<std::string> found;
  for (const auto& ban : kBans) {
    if (exempt(file.path, ban)) continue;
    const std::regex pattern(ban.pattern);
    for (std::size_t i = 0; i < file.lines.size(); ++i)
      if (std::regex_search(code_of(file.lines[i]), pattern))
        found.push_back(file.path + ":" + std::to_string(i + 1) + ": use " + ban.instead +
                        " instead of: " + file.lines[i]);
  }
  return found;
}

TEST(Structure, nothing_banned_stands_in_product_code) {
  for (const auto& file : read_sources({"include", "src", "apps", "sim"}))
    for (const auto& finding : findings(file)) ADD_FAILURE() << finding;
}

TEST(Structure, the_ban_check_sees_code_but_not_comments_and_strings) {
  const auto count = [](std::string line) {
    return findings(SourceFile{"src/flow/a.cpp", {std::move(line)}}).size();
  };
  EXPECT_EQ(count("auto t = std::chrono::steady_clock::now();"), 1u);
  EXPECT_EQ(count("std::thread worker(run);"), 1u);
  EXPECT_EQ(count("auto n = std::thread::hardware_concurrency();"), 0u);
  EXPECT_EQ(count("// std::thread is banned"), 0u);
  EXPECT_EQ(count("log(\"std::thread\");"), 0u);
}

TEST(Structure, files_speak_of_the_project_alone) {
  const std::regex private_words(R"(/work/|farm-|\bhelper-[0-9])");
  for (const auto& file : read_sources({"include", "src", "apps", "sim", "bench", "examples"}))
    for (std::size_t i = 0; i < file.lines.size(); ++i)
      EXPECT_FALSE(std::regex_search(file.lines[i], private_words))
          << file.path << ":" << i + 1 << ": " << file.lines[i];
}

}  // namespace
}  // namespace sluice::structure
