#include "sluice/resilience/guards.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "sluice/base/text.hpp"

namespace sluice::resilience {
namespace {

constexpr std::string_view kOverflowName = "(overflow)";
constexpr std::size_t kMaxForcedName = 256;

// Letters to change, add or leave out to get from one to the other (Levenshtein).
std::size_t edits(std::string_view from, std::string_view to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < to.size(); ++j) {
      const std::size_t changed = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({row[j + 1] + 1, row[j] + 1, changed}));
    }
  }
  return row.back();
}

}  // namespace

Guards::Guards(Clock& clock, Random& random, GuardsOptions options)
    : clock_(clock),
      random_(random),
      options_(std::move(options)),
      index_(std::make_unique<const RuleIndex>()) {}

Guards::Resolved Guards::resolve(const RuleIndex& index, const Protector& protector) const {
  const bool shadow = protector.shadow();
  if (protector.name() == kOverflowName) {
    if (options_.overflow == GuardOverflow::deny) return {nullptr, Policy::overflow};
    if (options_.overflow == GuardOverflow::pass) return {};
  }
  if (const Rule* rule = index.find(protector.name(), shadow)) return {rule, std::nullopt};
  if (!shadow || options_.missing_shadow == MissingShadow::pass) return {};
  if (options_.missing_shadow == MissingShadow::deny) return {nullptr, Policy::missing_rule};
  return {index.find(protector.name(), false), std::nullopt};
}

Protector& Guards::add(Key key) {
  auto made = std::make_unique<Protector>(key.first, key.second, random_, options_.on_transition);
  const Resolved resolved = resolve(*index_, *made);
  made->apply(resolved.rule, version_, clock_.now(), resolved.deny);
  return *(protectors_[std::move(key)] = std::move(made));
}

Protector& Guards::find(std::string_view command, bool shadow) {
  const std::lock_guard lock(mutex_);
  if (Protector* protector = known(command, shadow)) return *protector;
  if (protectors_.size() < options_.max_protectors) return add({std::string(command), shadow});
  // At most one more for each kind of traffic.
  if (Protector* protector = known(kOverflowName, shadow)) return *protector;
  return add({std::string(kOverflowName), shadow});
}

Protector* Guards::known(std::string_view name, bool shadow) const {
  const auto found = protectors_.find(Key(std::string(name), shadow));
  return found == protectors_.end() ? nullptr : found->second.get();
}

std::vector<ProtectorSnapshot> Guards::list() const {
  const Instant now = clock_.now();
  const std::lock_guard lock(mutex_);
  std::vector<ProtectorSnapshot> all;
  for (const auto& [key, protector] : protectors_) all.push_back(protector->snapshot(now));
  return all;
}

Result<ProtectorSnapshot> Guards::show(std::string_view name, bool shadow) const {
  const std::lock_guard lock(mutex_);
  if (const Protector* protector = known(name, shadow)) return protector->snapshot(clock_.now());
  return fail(FailureKind::not_found, "unknown_protector",
              fmt::format("no call of {}'{}' has been guarded yet", shadow ? "shadow " : "", name));
}

Status Guards::force(std::string_view name, bool shadow, BreakerState state, std::string_view by,
                     std::string_view why) {
  Protector* protector = nullptr;
  {
    const std::lock_guard lock(mutex_);
    protector = known(name, shadow);
    // Also before its first call, or nobody could keep a service from being called.
    if (protector == nullptr && name.size() <= kMaxForcedName && protectors_.size() < options_.max_protectors) {
      protector = &add({std::string(name), shadow});
      if (protector->breaker() == nullptr) {
        protectors_.erase(Key(std::string(name), shadow));
        protector = nullptr;
      }
    }
  }
  Breaker* const breaker = protector != nullptr ? protector->breaker() : nullptr;
  if (breaker == nullptr)
    return fail(
        FailureKind::not_found, "unknown_breaker",
        fmt::format("{}'{}' has no breaker: no rule that fits the name gives it one; expected the name of a call, as "
                    "`sluice breakers list` shows it, or a [guard.\"NAME\".breaker] in the rules",
                    shadow ? "shadow " : "", beginning_of(name, kMaxForcedName)));
  const BreakerState before = breaker->state();
  Status status = protector->force(state, clock_.now());
  audit(by, fmt::format("breaker of {}'{}': {} -> {}{}: {}", shadow ? "shadow " : "", name,
                        to_string(before), to_string(state), status ? "" : " (refused)", why),
        !status);
  return status;
}

std::optional<std::string> Guards::nearest(std::string_view name, bool shadow) const {
  std::optional<std::string> best;
  std::size_t distance = std::max<std::size_t>(2, name.size() / 10) + 1;  // further apart they are no slips of one another
  const auto look = [&](std::string_view one) {
    if (one == name || one.find('*') != std::string_view::npos || one == kOverflowName) return;
    if (const std::size_t apart = edits(one, name.substr(0, kMaxForcedName)); apart < distance) {
      distance = apart;
      best = one;
    }
  };
  const std::lock_guard lock(mutex_);
  for (const auto& [key, protector] : protectors_)
    if (key.second == shadow) look(key.first);
  for (const Rule& rule : index_->set().rules) look(rule.pattern);
  return best;
}

void Guards::audit(std::string_view by, std::string what, bool refused) {
  GuardAudit entry{.at = clock_.wall(), .by = std::string(by), .what = std::move(what), .refused = refused};
  {
    const std::lock_guard lock(mutex_);
    if (audits_.size() == kGuardAudits) audits_.erase(audits_.begin());
    audits_.push_back(entry);
  }
  if (options_.on_audit) options_.on_audit(entry);
}

std::vector<GuardAudit> Guards::audits() const {
  const std::lock_guard lock(mutex_);
  return audits_;
}

}  // namespace sluice::resilience
