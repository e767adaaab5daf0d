// Rules from TOML, all or nothing.
#include "resilience/rule_reader.hpp"

namespace sluice::resilience {
namespace {

constexpr std::size_t kMaxRules = 10'000;
constexpr std::array<std::string_view, 3> kModeNames{"off", "observe", "enforce"};

void read_rule(const toml::table& table, Rule& rule, RuleErrors& errors) {
  const std::size_t mistakes = errors.all.size();
  const std::string base =
      fmt::format("[{}.\"{}\"", rule.shadow ? "shadow" : "guard", rule.pattern);
  std::set<std::string_view> known;
  policies(rule, [&](Policy policy, auto& ruled) {
    known.insert(to_string(policy));
    const toml::node* node = table.get(to_string(policy));
    if (node == nullptr) return;
    errors.where = fmt::format("{}.{}]", base, to_string(policy));
    const toml::table* own = node->as_table();
    if (own == nullptr)
      return errors.add(node->source(), "expected a table, got " + text_of(*node));
    ruled.emplace();
    FieldReader reader(*own, errors);
    reader.choice("mode", ruled->mode, kModeNames);
    fields(reader, ruled->options);
    reader.end();
  });
  errors.where = base + "]";
  for (const auto& [key, node] : table)
    if (!known.contains(key.str())) {
      std::string all;
      for (const auto& name : known) all += fmt::format("{}{}", all.empty() ? "" : ", ", name);
      errors.add(key.source(), fmt::format("unknown policy '{}'; known: {}", key.str(), all));
    }
  // Fields that contradict each other are told at the rule's own line, once each of them is right.
  if (errors.all.size() != mistakes) return;
  if (const Status status = check_rule(rule); !status) {
    errors.where.clear();
    errors.add(table.source(), std::string(status.error().detail()));
  }
}

void read_group(const toml::table& root, bool shadow, RuleSet& set, RuleErrors& errors) {
  const std::string_view name = shadow ? "shadow" : "guard";
  const toml::node* group = root.get(name);
  if (group == nullptr) return;
  errors.where = fmt::format("[{}]", name);
  if (!group->is_table())
    return errors.add(group->source(), "expected tables of rules, got " + text_of(*group));
  for (const auto& [key, node] : *group->as_table()) {
    errors.where = fmt::format("[{}]", name);
    if (!good_pattern(key.str())) {
      errors.add(key.source(), bad_pattern(key.str()));
      continue;
    }
    if (!node.is_table()) {
      errors.add(node.source(), "expected a table, got " + text_of(node));
      continue;
    }
    if (set.rules.size() >= kMaxRules) {
      errors.add(key.source(), fmt::format("more than {} rules", kMaxRules));
      return;
    }
    Rule rule{.pattern = std::string(key.str()), .shadow = shadow, .line = key.source().begin.line};
    read_rule(*node.as_table(), rule, errors);
    set.rules.push_back(std::move(rule));
  }
}

}  // namespace

Result<RuleSet> parse_rules(std::string_view text, std::string_view file) {
  RuleErrors errors{.file = std::string(file), .where = {}, .all = {}};
  toml::table root;
  try {
    root = toml::parse(text, file);
  } catch (const toml::parse_error& error) {
    errors.add(error.source(), std::string(error.description()));
    return fail(errors.failure());
  } catch (const TomlAssertion& error) {
    const auto parse = [](std::string_view part) { static_cast<void>(toml::parse(part)); };
    const toml::source_position at{line_of_assertion(text, parse), 1};
    errors.add({at, at, nullptr}, error.what());
    return fail(errors.failure());
  }
  RuleSet set;
  read_group(root, false, set, errors);
  read_group(root, true, set, errors);
  errors.where.clear();
  for (const auto& [key, node] : root)
    if (key.str() != "guard" && key.str() != "shadow")
      errors.add(key.source(), fmt::format("unknown table '{}'; known: guard, shadow", key.str()));
  if (!errors.all.empty()) return fail(errors.failure());
  return set;
}

}  // namespace sluice::resilience
