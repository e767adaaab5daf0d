// Replacing the rules: checked whole, told as a difference, applied in place.
#include <map>
#include <set>

#include "resilience/rule_text.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {
namespace {

std::string policies_of(const Rule& rule) {
  std::string names;
  policies(rule, [&](Policy policy, const auto& ruled) {
    if (ruled) names += fmt::format("{}{}", names.empty() ? "" : ", ", to_string(policy));
  });
  return names.empty() ? "nothing" : names;
}

// A line for each field that differs; empty if none does.
std::string changes(const Rule& before, const Rule& after) {
  std::string lines;
  std::vector<FieldTexts> old;
  policies(before, [&](Policy, const auto& ruled) { old.push_back(texts_of(ruled)); });
  std::size_t i = 0;
  policies(after, [&](Policy policy, const auto& ruled) {
    const FieldTexts& had = old[i++];
    const FieldTexts gets = texts_of(ruled);
    if (had == gets) return;
    const std::string where = fmt::format("~ {} {}", name_of(after), to_string(policy));
    if (had.empty() || gets.empty()) {
      lines += fmt::format("{}: {}\n", where, had.empty() ? "added" : "removed");
      return;
    }
    for (std::size_t f = 0; f < gets.size(); ++f)
      if (had[f].second != gets[f].second)
        lines +=
            fmt::format("{}.{}: {} -> {}\n", where, gets[f].first, had[f].second, gets[f].second);
  });
  return lines;
}

// What the rule to come lacks of the one in force. Of the same rule each change is told already.
std::string lost(const Rule* had, const Rule* gets) {
  if (had == nullptr || (gets != nullptr && gets->pattern == had->pattern && gets->shadow == had->shadow)) return {};
  std::vector<bool> kept;
  const auto on = [](const auto& ruled) { return ruled && ruled->mode != Mode::off; };
  static const Rule none;
  policies(gets != nullptr ? *gets : none, [&](Policy, const auto& ruled) { kept.push_back(on(ruled)); });
  std::string names;
  std::size_t i = 0;
  policies(*had, [&](Policy policy, const auto& ruled) {
    if (!kept[i++] && on(ruled)) names += fmt::format("{}{}", names.empty() ? "" : ", ", to_string(policy));
  });
  if (names.empty()) return {};
  return fmt::format("{} of '{}'{}", names, had->pattern, gets == nullptr ? ": no rule fits it any more" : "");
}

using Rules = std::map<std::pair<std::string_view, bool>, const Rule*>;

Rules by_name(const RuleSet& set) {
  Rules rules;
  for (const Rule& rule : set.rules)
    rules.emplace(std::pair(std::string_view(rule.pattern), rule.shadow), &rule);
  return rules;
}

Status check(const RuleSet& set) {
  for (const Rule& rule : set.rules) SLUICE_TRY(check_rule(rule));
  if (by_name(set).size() != set.rules.size())
    return fail(FailureKind::invalid_argument, "bad_rule", "two rules have the same pattern");
  return {};
}

}  // namespace

ReloadPlan Guards::difference(const RuleIndex& next) const {
  ReloadPlan plan;
  const Rules before = by_name(index_->set()), after = by_name(next.set());
  for (const auto& [key, rule] : after) {
    const auto found = before.find(key);
    if (found == before.end()) {
      ++plan.rules_added;
      plan.text += fmt::format("+ {}: {}\n", name_of(*rule), policies_of(*rule));
    } else if (const std::string lines = changes(*found->second, *rule); !lines.empty()) {
      ++plan.rules_changed;
      plan.text += lines;
    }
  }
  for (const auto& [key, rule] : before)
    if (!after.contains(key)) {
      ++plan.rules_removed;
      plan.text += fmt::format("- {}: {}\n", name_of(*rule), policies_of(*rule));
    }
  std::set<const Rule*> met;
  std::set<std::pair<std::string_view, bool>> told;  // once for all apps: the rule is theirs alike
  for (const auto& [key, entry] : protectors_) {
    const Rule* const rule = resolve(next, *entry.protector).rule;
    if (entry.called) met.insert(rule);
    const Protector::Effect effect = entry.protector->preview(rule);
    plan.protectors_changed += effect.changes ? 1 : 0;
    plan.closes += effect.closes ? 1 : 0;
    plan.resets += effect.resets ? 1 : 0;
    if (effect.closes || effect.resets)
      plan.text += fmt::format("! {}'{}' of app '{}' {}\n", key.shadow ? "shadow " : "", key.name, key.app,
                               effect.closes ? "closes" : "starts with an empty window");
    if (!entry.called) continue;
    const std::string loss = lost(resolve(*index_, *entry.protector).rule, rule);
    if (loss.empty() || !told.emplace(key.name, key.shadow).second) continue;
    ++plan.loses;
    plan.text += fmt::format("! {}'{}' loses {}\n", key.shadow ? "shadow " : "", key.name, loss);
  }
  // Misspelt names are seen here, or nowhere.
  for (const Rule& rule : next.set().rules)
    if (rule.pattern != "*" && !met.contains(&rule)) {
      ++plan.rules_unmet;
      plan.text += fmt::format("? {}: nothing it names has been called yet\n", name_of(rule));
    }
  plan.version = version_ + (plan.empty() ? 0 : 1);
  plan.text += fmt::format(
      "rules: {} added, {} removed, {} changed; protectors: {} changed; closes {}, resets {}\n",
      plan.rules_added, plan.rules_removed, plan.rules_changed, plan.protectors_changed,
      plan.closes, plan.resets);
  return plan;
}

Result<ReloadPlan> Guards::plan(const RuleSet& rules) const {
  SLUICE_TRY(check(rules));
  const RuleIndex next(rules);
  const std::lock_guard lock(mutex_);
  return difference(next);
}

Result<ReloadPlan> Guards::reload(RuleSet rules, std::string_view by) {
  SLUICE_TRY(check(rules));
  auto next = std::make_unique<const RuleIndex>(std::move(rules));
  ReloadPlan plan;
  // Reloads one after another; the registry's own lock is not held while breakers tell their
  // listeners that they close.
  const std::lock_guard one_at_a_time(reload_mutex_);
  std::vector<std::pair<Protector*, Resolved>> resolved;
  {
    const std::lock_guard lock(mutex_);
    plan = difference(*next);
    if (plan.empty()) return plan;
    version_ = plan.version;
    index_ = std::move(next);
    for (const auto& [key, entry] : protectors_)
      resolved.emplace_back(entry.protector.get(), resolve(*index_, *entry.protector));
  }
  for (const auto& [protector, to] : resolved)
    protector->apply(to.rule, plan.version, clock_.now(), to.deny);
  audit(by, fmt::format("rules version {}: {} added, {} removed, {} changed, closes {}, resets {}",
                        plan.version, plan.rules_added, plan.rules_removed, plan.rules_changed,
                        plan.closes, plan.resets));
  return plan;
}

}  // namespace sluice::resilience
