// What lets work in and what shuts it down stand once: one gate, one lifecycle. A second one would have
// bounds, orders and graces of its own.
#include <gtest/gtest.h>

#include <map>
#include <regex>

#include "structure/source_tree.hpp"

namespace sluice::structure {
namespace {

/// What is named like one, and why it is none, or may stand.
const std::map<std::string, std::string> kKnown{
    {"Gate", "the gate"},
    {"Permits", "the gate's counter"},
    {"RegistryGate", "puts the registry's commands before the gate"},
    {"Lifecycle", "the shutdown of every component"},
    {"Bulkhead", "of guarded calls that go out: docs/adr/0006"},
    {"GuardPermit", "what a guarded call holds of its bulkhead and breaker"},
    {"Permit", "a half-open breaker's probe"},
};

std::vector<std::string> second_ones(const SourceFile& file) {
  static const std::regex named(
      R"(^\s*(?:class|struct)\s+(\w*(?:Semaphore|Permits?|Gate|Bulkhead|Lifecycle|Coordinator|Drainer|Shutdowner))\b[^;]*$)");
  static const std::regex standard(R"(\bstd::(counting_semaphore|binary_semaphore|latch|barrier)\b)");
  std::vector<std::string> found;
  for (std::size_t i = 0; i < file.lines.size(); ++i) {
    const std::string code = code_of(file.lines[i]);
    std::smatch match;
    const bool other = std::regex_search(code, match, named) && !kKnown.contains(match[1]);
    if (other || std::regex_search(code, standard)) found.push_back(file.path + ":" + std::to_string(i + 1) + ": " + file.lines[i]);
  }
  return found;
}

TEST(Structure, STREAM_12_one_gate_lets_in_and_one_lifecycle_shuts_down) {
  for (const auto& file : read_sources({"include", "src", "apps"}))
    for (const auto& one : second_ones(file))
      ADD_FAILURE() << one << "\n  use admission::Gate or Lifecycle, or name it here with a page in docs/adr";
}

// Who drains is a component, and so drained by the lifecycle.
TEST(Structure, STREAM_12_whatever_drains_is_a_component) {
  const std::regex drains(R"(\bvoid drain\(\) noexcept override\b)");
  int components = 0;
  for (const auto& file : read_sources({"include", "src", "apps"})) {
    bool has_one = false, is_one = false;
    for (const auto& line : file.lines) {
      has_one = has_one || std::regex_search(line, drains);
      is_one = is_one || line.find(": public Component") != std::string::npos;
    }
    if (!has_one) continue;
    ++components;
    EXPECT_TRUE(is_one) << file.path << " drains and is no Component";
  }
  EXPECT_GE(components, 6) << "gate, streams, both doors, all doors, the purger";
}

TEST(Structure, the_check_sees_a_second_gate) {
  const auto count = [](std::string line) { return second_ones(SourceFile{"src/rpc/a.cpp", {std::move(line)}}).size(); };
  EXPECT_EQ(count("class CallGate final {"), 1u);
  EXPECT_EQ(count("struct Semaphore {"), 1u);
  EXPECT_EQ(count("  std::counting_semaphore<8> slots;"), 1u);
  EXPECT_EQ(count("class ShutdownCoordinator {"), 1u);
  EXPECT_EQ(count("class Gate;"), 0u);
  EXPECT_EQ(count("class Gate final : public Component {"), 0u);
  EXPECT_EQ(count("// class CallGate {"), 0u);
}

}  // namespace
}  // namespace sluice::structure
