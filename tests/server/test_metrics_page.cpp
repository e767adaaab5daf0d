// docs/operations.md lists the metrics as the server prints them, and none that there is not.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "server/running.hpp"
#include "support/temp_folder.hpp"

namespace sluice::server {
namespace {

struct Family {
  std::string type;
  std::set<std::string> labels;
  bool operator==(const Family&) const = default;
  friend void PrintTo(const Family& family, std::ostream* out) {
    *out << family.type;
    for (const auto& label : family.labels) *out << " " << label;
  }
};
using Families = std::map<std::string, Family>;

std::string read(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::set<std::string> words(const std::string& text, const std::regex& word) {
  std::set<std::string> found;
  for (std::sregex_iterator at(text.begin(), text.end(), word), end; at != end; ++at) found.insert((*at)[1]);
  return found;
}

Families on_the_page() {
  Families out;
  std::istringstream page(read(std::string(SLUICE_SOURCE_DIR) + "/docs/operations.md"));
  const std::regex row(R"(\| `(sluice_[a-z_]+)` \| ([a-z]+) \|([^|]*)\|.*)"), label("`([a-z_]+)`");
  std::smatch match;
  for (std::string line; std::getline(page, line);)
    if (std::regex_match(line, match, row)) out[match[1]] = {match[2], words(match[3], label)};
  return out;
}

Families printed(const std::string& exposition) {
  Families out;
  std::istringstream lines(exposition);
  const std::regex label(R"(([a-z_]+)=")");
  for (std::string line, name; std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) {
      std::string hash, type, kind;
      std::istringstream(line) >> hash >> type >> name >> kind;
      out[name].type = kind;
    } else if (!line.starts_with("#") && line.starts_with(name)) {
      auto labels = words(line, label);
      labels.erase("le");  // of the buckets
      out[name].labels.insert(labels.begin(), labels.end());
    }
  }
  return out;
}

TEST(MetricsPage, CONSOLE_10_every_metric_in_the_sources_is_on_the_page_and_no_other) {
  const std::regex literal("\"(sluice_[a-z_]+)\"");
  std::set<std::string> named;
  for (const char* folder : {"src", "apps"})
    for (const auto& file : std::filesystem::recursive_directory_iterator(std::string(SLUICE_SOURCE_DIR) + "/" + folder))
      if (file.path().extension() == ".cpp" || file.path().extension() == ".hpp") named.merge(words(read(file.path()), literal));
  std::set<std::string> told;
  for (const auto& [name, family] : on_the_page()) told.insert(name);
  EXPECT_GT(named.size(), 20u);
  EXPECT_EQ(named, told);
}

TEST(MetricsPage, CONSOLE_10_what_a_server_prints_has_the_type_and_labels_of_the_page) {
  testing_support::TempFolder folder;
  const std::string rules = folder.file("rules.toml");
  std::ofstream(rules) << "[guard.outside.breaker]\nminimum_calls = 2\nfailure_ratio = 0.5\n[guard.outside.bulkhead]\nlimit = 2\n";
  Config config;
  config.guard_rules = rules;
  config.grpc.listen = "127.0.0.1:0";
  RunningServer running(std::move(config));
  ASSERT_TRUE(running.server->context().guards.find("outside").try_enter({.now = Instant{}}));
  EXPECT_EQ(running.ask(test::post("sluice.echo", "{}")).status, 401);
  const Families page = on_the_page();
  const Families now = printed(running.ask(test::get("/metrics")).body);
  EXPECT_GT(now.size(), 20u);
  for (const auto& [name, family] : now) {
    ASSERT_TRUE(page.contains(name)) << name << " is not in docs/operations.md";
    EXPECT_EQ(page.at(name), family) << name;
  }
}

}  // namespace
}  // namespace sluice::server
