// Every probe is on the list of what the simulation must reach, and nothing else is.
#include <gtest/gtest.h>

#include <regex>
#include <set>

#include "structure/source_tree.hpp"

namespace sluice::structure {
namespace {

std::set<std::string> matches(const std::vector<std::string>& folders, const std::string& only, const std::regex& pattern) {
  std::set<std::string> found;
  for (const auto& file : read_sources(folders)) {
    if (!file.path.ends_with(only)) continue;
    for (const auto& line : file.lines)
      for (std::sregex_iterator at(line.begin(), line.end(), pattern), end; at != end; ++at) found.insert((*at)[1]);
  }
  return found;
}

TEST(Structure, PROOF_1_every_probe_is_a_rare_path_that_the_simulation_must_reach) {
  const auto placed = matches({"src", "apps"}, "pp", std::regex(R"rx(SLUICE_PROBE\("([^"]+)"\))rx"));
  const auto listed = matches({"tests/simulate"}, "rare_paths.hpp", std::regex(R"rx(^\s+"([a-z_.]+)",)rx"));
  EXPECT_GT(placed.size(), 20u);
  EXPECT_EQ(placed, listed);
}

}  // namespace
}  // namespace sluice::structure
