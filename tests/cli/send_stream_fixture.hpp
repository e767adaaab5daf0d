// A file of lines, a server, and `sluice send --stream` between them.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/process.hpp"

namespace sluice::cli_test {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

inline constexpr int kKeys = 20;

class SendStream : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  void write(const std::string& name, const std::string& text) { std::ofstream(folder.file(name), std::ios::binary) << text; }
  void write_rows(int rows) {
    std::ofstream file(folder.file("rows.jsonl"));
    for (int i = 0; i < rows; ++i)
      file << R"({"collection":"bulk","key":"k)" << i % kKeys << R"(","delta":1})" << '\n';
  }
  static std::string row_of(const std::string& key) { return R"({"collection":"bulk","key":")" + key + R"(","delta":5})" + "\n"; }
  Ran send(const Serving& server, Arguments more) {
    Arguments all{"send", "--grpc", server.grpc(), "--stream"};
    all.insert(all.end(), more.begin(), more.end());
    return server.ask(all);
  }
  json row(const Serving& server, const std::string& key) {
    const Ran ran = server.ask({"send", "kv.get", R"({"collection":"bulk","key":")" + key + "\"}"});
    return ran.status == 0 ? json::parse(ran.out) : json();
  }
  void expect_once_each(const Serving& server, int rows) {
    for (int key = 0; key < kKeys; ++key) EXPECT_EQ(row(server, "k" + std::to_string(key))["number"], rows / kKeys) << key;
  }
};

}  // namespace sluice::cli_test
