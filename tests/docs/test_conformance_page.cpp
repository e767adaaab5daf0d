// docs/conformance.md: which tests prove which behaviour. Made from the names of the tests, so that
// it cannot say more than they do. SLUICE_WRITE_DOCS=1 writes it anew.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

namespace sluice::docs {
namespace {

struct Family {
  const char* name;
  const char* about;
  int first, last;
  std::set<int> later;  ///< not built yet: what comes with another part of the system
  std::set<int> unused;
};
const Family kFamilies[] = {
    {"FLOW", "Two-phase staged transactions", 1, 33, {}, {}},
    {"IDEM", "Idempotency keys", 1, 13, {}, {}},
    {"RES", "Guarded outbound calls", 1, 42, {}, {8, 9, 18, 19, 25, 26, 27, 28, 29, 34, 35, 36, 37, 38, 39}},
    {"VOUCHER", "The voucher service", 1, 10, {}, {}},
    {"STREAM", "Client streams", 1, 16, {}, {}},
    {"NODE", "PostgreSQL, several nodes, failover", 1, 8, {7}, {}},
    {"PROOF", "How promises are shown", 1, 9, {3, 6, 7, 8, 9}, {}},
    {"CONSOLE", "Command line, configuration, administration", 1, 12, {2, 3, 4, 5, 6, 7, 8, 10, 11, 12}, {}},
    {"G", "The promises of the whole", 1, 7, {4, 5, 7}, {}},
};

using Proofs = std::map<std::pair<std::string, int>, std::set<std::string>>;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void collect(const std::string& text, const std::regex& pattern, Proofs& proofs) {
  static const std::regex id("(?:^|_)(FLOW|IDEM|RES|VOUCHER|STREAM|NODE|PROOF|CONSOLE|G)_?([0-9]+)((_and_[0-9]+)*)(?=_|$)");
  for (std::sregex_iterator at(text.begin(), text.end(), pattern), end; at != end; ++at) {
    const std::string suite = (*at)[1], name = (*at)[2];
    const std::string label = suite + "." + name;
    for (std::sregex_iterator match(name.begin(), name.end(), id); match != end; ++match) {
      proofs[{(*match)[1], std::stoi((*match)[2])}].insert(label);
      const std::string more = (*match)[3];
      static const std::regex number("_and_([0-9]+)");
      for (std::sregex_iterator n(more.begin(), more.end(), number); n != end; ++n)
        proofs[{(*match)[1], std::stoi((*n)[1])}].insert(label);
    }
  }
}

Proofs proofs_of(const std::filesystem::path& tests) {
  static const std::regex gtest(R"(TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\s*\))");
  static const std::regex ctest(R"(add_test\(NAME (\w+)\.(\w+))");
  Proofs proofs;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(tests)) {
    if (entry.path().extension() == ".cpp") collect(read(entry.path()), gtest, proofs);
    if (entry.path().filename() == "CMakeLists.txt") collect(read(entry.path()), ctest, proofs);
  }
  // Whole suites that run again on each database.
  static const std::regex suite(R"(\nsluice_on_databases\(\w+ (\w+))");
  const std::string lists = read(tests / "CMakeLists.txt");
  for (std::sregex_iterator at(lists.begin(), lists.end(), suite), end; at != end; ++at)
    proofs[{"NODE", 2}].insert((*at)[1].str() + ".NODE_2_the_suite_holds_on_postgres");
  // Each decoder under arbitrary bytes replays its corpus.
  static const std::regex target(R"(\nsluice_fuzz\((\w+))");
  const std::string fuzz = read(tests.parent_path() / "fuzz/CMakeLists.txt");
  for (std::sregex_iterator at(fuzz.begin(), fuzz.end(), target), end; at != end; ++at)
    proofs[{"PROOF", 5}].insert("Fuzz.PROOF_5_corpus_of_" + (*at)[1].str());
  return proofs;
}

std::string page(const Proofs& proofs) {
  std::ostringstream out;
  out << "# Conformance\n\nEach behaviour has an id; a test carries the ids it proves in its name, so `./test -R FLOW_12` runs\n"
         "the proof of FLOW-12. This page is made from those names and checked by a test. \"later\": belongs to a part that\n"
         "is not built yet.\n";
  for (const auto& family : kFamilies) {
    out << "\n## " << family.name << ": " << family.about << "\n\n| id | tests |\n|---|---|\n";
    for (int id = family.first; id <= family.last; ++id) {
      if (family.unused.contains(id)) continue;
      out << "| " << family.name << "-" << id << " | ";
      const auto found = proofs.find({family.name, id});
      if (found == proofs.end())
        out << (family.later.contains(id) ? "later" : "**none**");
      else
        for (const char* between = ""; const auto& name : found->second) out << between << "`" << name << "`", between = "<br>";
      out << " |\n";
    }
  }
  return out.str();
}

TEST(ConformancePage, is_what_the_names_of_the_tests_say) {
  const std::filesystem::path root(SLUICE_SOURCE_DIR), path = root / "docs/conformance.md";
  const std::string now = page(proofs_of(root / "tests"));
  if (std::getenv("SLUICE_WRITE_DOCS") != nullptr) std::ofstream(path, std::ios::binary) << now;
  EXPECT_TRUE(read(path) == now) << "docs/conformance.md is stale: run SLUICE_WRITE_DOCS=1 ./test -R ConformancePage";
}

TEST(ConformancePage, every_behaviour_that_is_built_has_a_test) {
  const Proofs proofs = proofs_of(std::filesystem::path(SLUICE_SOURCE_DIR) / "tests");
  for (const auto& family : kFamilies)
    for (int id = family.first; id <= family.last; ++id)
      if (!family.later.contains(id) && !family.unused.contains(id))
        EXPECT_TRUE(proofs.contains({family.name, id})) << family.name << "-" << id << " has no test";
}

}  // namespace
}  // namespace sluice::docs
