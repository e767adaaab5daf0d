// The guide's rules are accepted as printed, and its table names every field there is.
#include <fstream>
#include <sstream>

#include "resilience/rule_text.hpp"

namespace sluice::resilience {
namespace {

std::string guide(const std::string& page = "guard-calls.md") {
  std::ifstream in(SLUICE_SOURCE_DIR "/docs/how-to/" + page);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(Guide, RES_40_the_printed_rules_are_accepted) {
  const std::string text = guide();
  const auto begin = text.find("```toml\n");
  ASSERT_NE(begin, std::string::npos);
  const std::string toml = text.substr(begin + 8, text.find("```\n", begin + 8) - begin - 8);
  const auto rules = parse_rules(toml, "guard-calls.md");
  ASSERT_TRUE(rules) << rules.error().to_string();
  EXPECT_EQ(rules->rules.size(), 2u);
}

TEST(Guide, RES_40_the_rules_of_the_voucher_services_are_accepted) {
  const std::string text = guide("voucher-services.md");
  const auto begin = text.find("```toml\n");
  ASSERT_NE(begin, std::string::npos);
  const auto rules = parse_rules(text.substr(begin + 8, text.find("```\n", begin + 8) - begin - 8), "voucher-services.md");
  ASSERT_TRUE(rules) << rules.error().to_string();
  EXPECT_EQ(rules->rules.size(), 2u);
}

TEST(Guide, RES_40_the_table_names_every_field) {
  const std::string text = guide();
  Rule all;
  policies(all, [&](Policy policy, auto& ruled) {
    const auto row = text.find(fmt::format("| `{}` |", to_string(policy)));
    ASSERT_NE(row, std::string::npos) << to_string(policy);
    const std::string line = text.substr(row, text.find('\n', row) - row);
    ruled.emplace();
    for (const auto& [name, value] : texts_of(ruled)) {
      const bool shared = policy == Policy::adaptive &&
                          line.find("those of `bulkhead`") != line.npos &&
                          text.find(fmt::format("`{}`", name)) != text.npos;
      if (name != "mode")
        EXPECT_TRUE(shared || line.find(fmt::format("`{}`", name)) != line.npos)
            << to_string(policy) << "." << name;
    }
  });
}

}  // namespace
}  // namespace sluice::resilience
