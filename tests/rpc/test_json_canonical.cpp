#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "sim/random.hpp"
#include "sluice/rpc/json_canonical.hpp"

namespace sluice::rpc {
namespace {

std::string canonical(std::string_view text) {
  EXPECT_FALSE(check_json(text)) << text;
  std::string out;
  const auto problem = canonical_json(text, out);
  return problem ? problem->to_string() : out;
}

TEST(JsonCanonical, IDEM_5_texts_of_one_value_have_one_form) {
  EXPECT_EQ(canonical(" { \"b\" : [ 1 , { } , \"x\" ] ,\n\t\"a\" : null } "), R"({"a":null,"b":[1,{},"x"]})");
  EXPECT_EQ(canonical(R"({"c":{"z":1,"y":{"b":2,"a":1}},"a":[]})"), R"({"a":[],"c":{"y":{"a":1,"b":2},"z":1}})");
  EXPECT_EQ(canonical(R"({"\u0061b":1,"a":2,"":3})"), R"({"":3,"a":2,"ab":1})");
  EXPECT_EQ(canonical(R"("\u0041\/\u00e4\u20AC\ud83d\uDE00")"), "\"A/ä€😀\"");
  EXPECT_EQ(canonical(R"("\u000a\n\u0008\b\u001F\u000b\u0022\u005c\"\\\u007f")"), "\"\\n\\n\\b\\b\\u001f\\u000b\\\"\\\\\\\"\\\\\x7f\"");
  EXPECT_EQ(canonical("[]"), "[]");
  EXPECT_EQ(canonical(" true "), "true");
  // Commands may tell them apart: a whole number is asked for, and 1.0 is none.
  for (const char* number : {"1", "1.0", "1e0", "-0", "0"}) EXPECT_EQ(canonical(number), number);
}

TEST(JsonCanonical, IDEM_5_a_name_that_stands_twice_is_told_with_its_place) {
  EXPECT_EQ(canonical("{\"a\":1,\n \"b\":2, \"a\":3}"), "line 2, column 9: the name \"a\" stands twice in one object");
  EXPECT_EQ(canonical(R"([{"k":{"x":1,"\u0078":1}}])"), "line 1, column 14: the name \"x\" stands twice in one object");
  EXPECT_EQ(canonical(R"({"a":{"a":1},"b":{"a":1}})"), R"({"a":{"a":1},"b":{"a":1}})") << "one object each";
  const std::string name(70, 'n');
  EXPECT_EQ(canonical("{\"" + name + "\":1,\"" + name + "\":1}"),
            "line 1, column 77: the name \"" + std::string(64, 'n') + "…\" stands twice in one object");
}

// Against another reader and writer of JSON, over values of all shapes.
class Shapes {
 public:
  explicit Shapes(std::uint64_t seed) : random_(seed) {}
  nlohmann::json value(int depth) {
    switch (random_.next() % (depth > 0 ? 7 : 5)) {
      case 0: return nullptr;
      case 1: return random_.next() % 2 == 0;
      case 2: return static_cast<std::int64_t>(random_.next()) >> (random_.next() % 60);
      case 3:
      case 4: return text();
      case 5: {
        auto list = nlohmann::json::array();
        for (auto n = random_.next() % 5; n > 0; --n) list.push_back(value(depth - 1));
        return list;
      }
      default: {
        auto object = nlohmann::json::object();
        for (auto n = random_.next() % 6; n > 0; --n) object[text()] = value(depth - 1);
        return object;
      }
    }
  }
  // The same value with blanks, escapes and an order of its own.
  std::string shuffled(const nlohmann::json& value) {
    std::string out = blanks();
    if (value.is_object()) {
      std::vector<std::string> members;
      for (const auto& [name, member] : value.items()) members.push_back(blanks() + spelt(name) + blanks() + ":" + shuffled(member));
      for (std::size_t i = members.size(); i > 1; --i) std::swap(members[i - 1], members[random_.next() % i]);
      out += '{';
      for (std::size_t i = 0; i < members.size(); ++i) out += (i == 0 ? "" : ",") + members[i];
      out += '}';
    } else if (value.is_array()) {
      out += '[';
      for (std::size_t i = 0; i < value.size(); ++i) out += (i == 0 ? "" : ",") + shuffled(value[i]);
      out += ']';
    } else if (value.is_string()) {
      out += spelt(value.get<std::string>());
    } else {
      out += value.dump();
    }
    return out + blanks();
  }

 private:
  std::string text() {
    static const char* const kPieces[] = {"a", "b", "z", "\"", "\\", "/", "\n", "\x1f", "ä", "€", "😀", " ", "!"};
    std::string out;
    for (auto n = random_.next() % 4; n > 0; --n) out += kPieces[random_.next() % std::size(kPieces)];
    return out;
  }
  std::string spelt(const std::string& text) { return nlohmann::json(text).dump(-1, ' ', random_.next() % 2 == 0); }
  std::string blanks() {
    std::string out;
    for (auto n = random_.next() % 3; n > 0; --n) out += " \n\t\r"[random_.next() % 4];
    return out;
  }
  sim::SimRandom random_;
};

TEST(JsonCanonical, IDEM_5_however_a_value_is_written_its_form_is_the_same_and_means_the_same) {
  for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
    Shapes shapes(seed);
    const nlohmann::json value = shapes.value(4);
    const std::string form = canonical(value.dump());
    ASSERT_EQ(nlohmann::json::parse(form), value) << form;
    ASSERT_EQ(canonical(form), form);
    ASSERT_EQ(canonical(shapes.shuffled(value)), form);
  }
}

}  // namespace
}  // namespace sluice::rpc
