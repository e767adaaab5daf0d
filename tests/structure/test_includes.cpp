// Who may include whom, and who owns which outside library. The table is the law of the house; a
// file that breaks it is named with the line and the rule.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <set>

#include "structure/source_tree.hpp"

namespace sluice::structure {
namespace {

// A room may include itself and every room of a smaller rank. Rooms of one rank keep apart.
const std::map<std::string, int> kRank{
    {"base", 0},        {"iso8583", 1}, {"admission", 1}, {"store", 1},  {"resilience", 2},
    {"idempotency", 2}, {"flow", 3},    {"rpc", 4},       {"events", 5}, {"stream", 5},
    {"script", 6},      {"transport", 6}, {"server", 7},  {"apps", 8},   {"cli", 9},
};

// Which rooms may see an outside library's headers.
struct Owned {
  std::string prefix;
  std::set<std::string> rooms;
};
const std::vector<Owned> kOwned{
    {"boost/container/", {"flow"}},
    {"boost/intrusive/", {"admission"}},
    {"boost/", {"transport", "cli"}},
    {"sqlite3.h", {"store"}},
    {"libpq", {"store"}},
    {"grpc", {"transport"}},
    {"google/protobuf/", {"transport", "apps"}},
    {"sluice/wire/", {"transport"}},
    {"sluice/v1/", {"transport"}},
    {"lua", {"script"}},
    {"openssl/", {"base", "transport", "server"}},
    {"spdlog/", {"base"}},
    {"prometheus/", {"base"}},
    {"toml++/", {"resilience", "server"}},
    {"CLI/", {"cli"}},
    {"nlohmann/", {"base", "rpc", "transport", "server", "apps", "cli"}},
};

std::optional<std::string> room_of(std::string path) {
  if (path.starts_with("apps/")) return "apps";
  for (const std::string prefix : {"include/sluice/", "src/", "sluice/"})
    if (path.starts_with(prefix)) path = path.substr(prefix.size());
  const auto slash = path.find('/');
  std::string room = path.substr(0, slash);
  if (slash == std::string::npos && room.ends_with(".hpp")) room.resize(room.size() - 4);
  if (!kRank.contains(room)) return std::nullopt;
  return room;
}

std::optional<std::string> included(const std::string& line) {
  const auto hash = line.find_first_not_of(' ');
  if (hash == std::string::npos || !line.substr(hash).starts_with("#include")) return std::nullopt;
  const auto open = line.find_first_of("<\"");
  const auto close = line.find_first_of(">\"", open + 1);
  if (open == std::string::npos || close == std::string::npos) return std::nullopt;
  return line.substr(open + 1, close - open - 1);
}

std::string broken_rule(const SourceFile& file, const std::string& target) {
  const auto from = room_of(file.path);
  if (!from) return "stands in no room of the table";
  if (target.starts_with("sim/") || target.starts_with("tests/"))
    return "product code may not include the simulator or tests";
  const bool outside = target.find('/') == std::string::npos || !room_of(target);
  if (!outside) {
    const auto to = *room_of(target);
    if (to != *from && kRank.at(to) >= kRank.at(*from))
      return "room '" + *from + "' may not include room '" + to + "'";
  }
  for (const auto& owned : kOwned) {
    if (!target.starts_with(owned.prefix)) continue;
    if (!owned.rooms.contains(*from)) return "<" + target + "> is not for room '" + *from + "'";
    // For those who have gRPC services of their own: its reactor is typed by their messages.
    if (file.path == "include/sluice/transport/grpc_stream.hpp" && target.starts_with("grpc")) return {};
    if (file.path.starts_with("include/")) return "<" + target + "> in a public header";
    return {};  // the first, most particular line decides
  }
  return {};
}

TEST(Structure, rooms_include_only_what_the_table_allows) {
  const auto files = read_sources({"include", "src", "apps"});
  ASSERT_GT(files.size(), 20u) << "the sources were not found";
  for (const auto& file : files)
    for (std::size_t i = 0; i < file.lines.size(); ++i)
      if (const auto target = included(file.lines[i]))
        EXPECT_EQ(broken_rule(file, *target), "") << file.path << ":" << i + 1;
}

TEST(Structure, the_check_finds_each_kind_of_broken_include) {
  const auto rule = [](std::string path, std::string target) {
    return broken_rule(SourceFile{std::move(path), {}}, target);
  };
  EXPECT_NE(rule("src/base/a.cpp", "sluice/store/rows.hpp"), "");
  EXPECT_NE(rule("src/store/a.cpp", "sluice/admission/gate.hpp"), "");
  EXPECT_NE(rule("src/flow/a.cpp", "sqlite3.h"), "");
  EXPECT_NE(rule("include/sluice/transport/http.hpp", "boost/beast.hpp"), "");
  EXPECT_NE(rule("src/flow/a.cpp", "sim/clock.hpp"), "");
  EXPECT_NE(rule("src/elsewhere/a.cpp", "string"), "");
  EXPECT_EQ(rule("src/flow/a.cpp", "sluice/store/rows.hpp"), "");
  EXPECT_NE(rule("src/server/a.cpp", "grpcpp/server.h"), "");
  EXPECT_NE(rule("src/rpc/a.cpp", "google/protobuf/message.h"), "");
  EXPECT_EQ(rule("src/transport/grpc/a.cpp", "grpcpp/server.h"), "");
  EXPECT_EQ(rule("src/store/sqlite/a.cpp", "sqlite3.h"), "");
}

}  // namespace
}  // namespace sluice::structure
