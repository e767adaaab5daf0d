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

// RFC 8259 lets half a pair pass, but it names no character and whoever reads it later stumbles.
TEST(JsonCheck, CONSOLE_9_half_a_surrogate_pair_is_refused) {
  EXPECT_FALSE(check_json("\"\\ud83d\\uDE00\""));
  EXPECT_FALSE(check_json("\"\\ud7ff\\ue000\""));
  for (const char* text : {"\"\\ud800\"", "\"\\udc00\"", "\"\\uDBFFx\"", "\"\\ud800\\n\"",
                           "\"\\ud800\\ud800\"", "\"\\ud800\\u0041\"", "\"\\ud800\\"}) {
    const auto problem = check_json(text);
    ASSERT_TRUE(problem) << text;
    EXPECT_EQ(problem->to_string(),
              "line 1, column 2: half a surrogate pair after \\u; write both halves")
        << text;
    EXPECT_FALSE(nlohmann::json::accept(text)) << text;
  }
}

// Every reader of the text holds numbers in doubles: past their range there is no value to hold.
// Too small is no mistake: it reads as zero.
TEST(JsonCheck, CONSOLE_9_a_number_past_a_double_is_refused) {
  const std::string large(400, '9');
  for (const std::string& text :
       {std::string("1e999"), std::string("-1E+999"), std::string("1.8e308"), large,
        "0." + std::string(400, '0') + "1e999", std::string("1e99999999999999999999"),
        large + "e-50"}) {
    const auto problem = check_json("[" + text + "]");
    ASSERT_TRUE(problem) << text;
    EXPECT_EQ(problem->to_string(),
              "line 1, column 2: a number past the range of a double (about 1.8e308)");
    EXPECT_FALSE(nlohmann::json::accept(text)) << text;
  }
  for (const std::string& text :
       {std::string("1.7e308"), std::string("1e-999"), std::string("0e999"), std::string("-0e-999"),
        large + "e-150", "0." + std::string(400, '0') + "1e700", std::string("0e") + large,
        "1e-" + large, "0." + large, std::string("18446744073709551616")}) {
    EXPECT_FALSE(check_json(text)) << text;
    EXPECT_TRUE(nlohmann::json::accept(text)) << text;
  }
}

// The judge is another parser: both must agree on every text made by damaging valid ones.
TEST(JsonCheck, CONSOLE_9_agrees_with_another_parser_on_damaged_texts) {
  const std::vector<std::string> seeds{
      "{\"a\":[1,-2.5e+3,true,false,null],\"b\":{\"c\":\"x\\u00e9\\n\"}}",
      "[]",
      "{}",
      " [ { } ] ",
      "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"",
      "\"\\ud83d\\ude00\"",
      "-0.0e-1",
      "[1.5e308,1e-308,0.001e309]",
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
    ASSERT_EQ(ours, theirs) << text;
    ++(ours ? valid : invalid);
  }
  EXPECT_GT(valid, 1000);
  EXPECT_GT(invalid, 1000);
}

}  // namespace
}  // namespace sluice::rpc
