#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "sim/random.hpp"
#include "sluice/rpc/json_check.hpp"

namespace sluice::rpc {
namespace {

TEST(JsonCheck, CONSOLE_9_says_where_the_text_stops_being_json) {
  const auto problem = check_json("{\"a\": 1,\n \"b\" 2}");
  ASSERT_TRUE(problem);
  EXPECT_EQ(problem->to_string(), "line 2, column 6: expected ':' after a name");
  EXPECT_EQ(check_json("")->to_string(), "line 1, column 1: expected a value");
  EXPECT_EQ(check_json("{} x")->column, 4u);
}

TEST(JsonCheck, CONSOLE_9_depth_is_bounded) {
  EXPECT_FALSE(check_json(std::string(8, '[') + std::string(8, ']'), 8));
  const auto problem = check_json(std::string(100'000, '['), 8);
  ASSERT_TRUE(problem && problem->too_deep);
  EXPECT_EQ(problem->offset, 8u);
}

// The judge is another parser: both must agree on every text made by damaging valid ones.
TEST(JsonCheck, CONSOLE_9_agrees_with_another_parser_on_damaged_texts) {
  const std::vector<std::string> seeds{
      "{\"a\":[1,-2.5e+3,true,false,null],\"b\":{\"c\":\"x\\u00e9\\n\"}}",
      "[]",
      "{}",
      " [ { } ] ",
      "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"",
      "-0.0e-1",
      "[0,1.5,10]"};
  sim::SimRandom random(7);
  const std::string_view letters = "{}[]\",:0123.eE+-\\utfn \x80\xC3\xED\xF4\x01";
  int valid = 0, invalid = 0;
  for (int i = 0; i < 30'000; ++i) {
    std::string text = seeds[random.below(seeds.size())];
    for (auto n = random.below(3); n > 0; --n) {
      const auto at = random.below(text.size() + 1);
      const char c = letters[random.below(letters.size())];
      if (random.below(2) == 0 && at < text.size())
        text[at] = c;
      else if (random.below(2) == 0)
        text.insert(at, 1, c);
      else if (at < text.size())
        text.erase(at, 1);
    }
    const bool theirs = nlohmann::json::accept(text);
    const bool ours = !check_json(text);
    // Lone surrogate escapes are text that RFC 8259 allows and the other parser refuses.
    if (text.find("\\ud") != std::string::npos || text.find("\\uD") != std::string::npos) continue;
    ASSERT_EQ(ours, theirs) << text;
    ++(ours ? valid : invalid);
  }
  EXPECT_GT(valid, 1000);
  EXPECT_GT(invalid, 1000);
}

}  // namespace
}  // namespace sluice::rpc
