#include "sluice/resilience/guards.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <set>
#include <utility>

#include "sluice/base/text.hpp"

namespace sluice::resilience {
namespace {

constexpr std::string_view kOverflowName = "(overflow)";
constexpr std::size_t kMaxForcedName = 256;
constexpr std::size_t kAppsTold = 10;
constexpr std::size_t kCallsTold = 20;

std::string of_app(std::string_view app) { return app.empty() ? std::string() : fmt::format(" of app '{}'", app); }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }
bool letter(char c) { return lower(c) >= 'a' && lower(c) <= 'z'; }

std::string lowered(std::string_view text) {
  std::string low(text);
  std::ranges::transform(low, low.begin(), lower);
  return low;
}

// Of lowered names: they end in two regions, or in words that have no letter in common at its place.
bool of_another_region(std::string_view one, std::string_view other) {
  const auto last = [](std::string_view name) { return name.substr(name.rfind('.') + 1); };
  const std::string_view a = last(one), b = last(other);
  if (a == b || a.size() != b.size()) return false;
  if (a.size() == 2 && std::ranges::all_of(a, letter) && std::ranges::all_of(b, letter)) return true;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (a[i] == b[i]) return false;
  return true;
}

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

Guards::Entry& Guards::add(Key key) {
  auto made = std::make_unique<Protector>(key.name, key.shadow, random_, options_.on_transition, key.app);
  const Resolved resolved = resolve(*index_, *made);
  made->apply(resolved.rule, version_, clock_.now(), resolved.deny);
  // An order for every app is one for those too that come later.
  if (Protector* const every = known({key.name, std::string(kEveryApp), key.shadow}); every != nullptr && every->breaker() != nullptr)
    if (const BreakerState order = every->breaker()->state(); by_order(order)) made->inherit(order, clock_.now());
  Entry& entry = protectors_[std::move(key)];
  entry.protector = std::move(made);
  return entry;
}

Protector& Guards::find(std::string_view command, const Namespace& ns) {
  const std::lock_guard lock(mutex_);
  const auto called = [&](Key key, std::size_t max) -> Protector* {
    const auto found = protectors_.find(key);
    if (found == protectors_.end() && protectors_.size() >= max) return nullptr;
    Entry& entry = found != protectors_.end() ? found->second : add(std::move(key));
    entry.called = true;
    return entry.protector.get();
  };
  if (Protector* own = called({std::string(command), std::string(ns.app()), ns.shadow()}, options_.max_protectors)) return *own;
  // At most one more for each kind of traffic.
  return *called({std::string(kOverflowName), std::string(kEveryApp), ns.shadow()}, SIZE_MAX);
}

Protector* Guards::known(const Key& key) const {
  const auto found = protectors_.find(key);
  return found == protectors_.end() ? nullptr : found->second.protector.get();
}

// Of real apps.
template <class Do>
void Guards::each_app(std::string_view name, bool shadow, Do work) const {
  for (auto at = protectors_.lower_bound({std::string(name), {}, false}); at != protectors_.end() && at->first.name == name; ++at)
    if (at->first.shadow == shadow && at->first.app != kEveryApp) work(at->second);
}

std::vector<ProtectorSnapshot> Guards::list() const {
  const Instant now = clock_.now();
  const std::lock_guard lock(mutex_);
  std::vector<ProtectorSnapshot> all;
  for (const auto& [key, entry] : protectors_) all.push_back(entry.protector->snapshot(now));
  return all;
}

Result<ProtectorSnapshot> Guards::show(std::string_view name, bool shadow, std::string_view app) const {
  const std::lock_guard lock(mutex_);
  std::vector<const Protector*> found;
  if (app.empty())
    each_app(name, shadow, [&](const Entry& entry) { found.push_back(entry.protector.get()); });
  if (found.empty())
    if (const Protector* one = known({std::string(name), std::string(app.empty() ? kEveryApp : app), shadow})) found.push_back(one);
  if (found.empty())
    return fail(FailureKind::not_found, "unknown_protector",
                fmt::format("no call of {}'{}' has been guarded yet{}", shadow ? "shadow " : "", name, of_app(app)));
  if (found.size() == 1) return found[0]->snapshot(clock_.now());
  std::string apps;
  for (std::size_t i = 0; i < std::min(found.size(), kAppsTold); ++i)
    apps += fmt::format("{}'{}'", i == 0 ? "" : ", ", found[i]->app());
  return fail(FailureKind::invalid_argument, "which_app",
              fmt::format("{} apps call {}'{}', each with a protector of its own: say which (app): {}{}", found.size(),
                          shadow ? "shadow " : "", name, apps, found.size() > kAppsTold ? " and others" : ""));
}

bool Guards::called(std::string_view name, bool shadow, std::string_view app) const {
  const std::lock_guard lock(mutex_);
  bool any = false;
  each_app(name, shadow, [&](const Entry& entry) { any = any || (entry.called && (app.empty() || app == entry.protector->app())); });
  return any;
}

// Also before its first call, or nobody could keep a service from being called. Null: no rule gives it a breaker.
Protector* Guards::added_for_order(Key key) {
  if (key.name.size() > kMaxForcedName || protectors_.size() >= options_.max_protectors) return nullptr;
  Protector* const made = add(key).protector.get();
  if (made->breaker() != nullptr) return made;
  protectors_.erase(key);
  return nullptr;
}

// Whom an order is for; the one that stands for every app is the last.
std::vector<Protector*> Guards::ordered(std::string_view name, bool shadow, BreakerState state, std::string_view app) {
  std::vector<Protector*> all;
  if (app.empty())
    each_app(name, shadow, [&](const Entry& entry) { all.push_back(entry.protector.get()); });
  Key last{std::string(name), std::string(app.empty() ? kEveryApp : app), shadow};
  Protector* one = known(last);
  if (one == nullptr && (all.empty() || by_order(state))) one = added_for_order(std::move(last));
  if (one != nullptr) all.push_back(one);
  std::erase_if(all, [](Protector* each) { return each->breaker() == nullptr; });
  return all;
}

// An order under a pattern would stop nobody: calls ask under their own names.
Failure Guards::no_call(std::string_view pattern, bool shadow) const {
  const std::string_view prefix = pattern.substr(0, pattern.find('*'));
  const std::lock_guard lock(mutex_);
  std::set<std::string_view> names;
  for (const auto& [key, entry] : protectors_)
    if (key.shadow == shadow && entry.called && key.name != kOverflowName && key.name.starts_with(prefix)) names.insert(key.name);
  std::string told;
  std::size_t n = 0;
  for (const std::string_view name : names)
    if (n++ < kCallsTold) told += fmt::format("{}{}", told.empty() ? "" : ", ", name);
  if (n > kCallsTold) told += fmt::format(" and {} more", n - kCallsTold);
  return {FailureKind::invalid_argument, "pattern_is_no_call",
          fmt::format("'{}' is the pattern of a rule, and an order is for one call: expected its name, once for each; it fits {}",
                      beginning_of(pattern, kMaxForcedName), told.empty() ? "none of those called so far" : told)};
}

Status Guards::force(std::string_view name, bool shadow, BreakerState state, std::string_view by,
                     std::string_view why, std::string_view app) {
  if (name.find('*') != std::string_view::npos) return fail(no_call(name, shadow));
  std::vector<Protector*> all;
  {
    const std::lock_guard lock(mutex_);
    all = ordered(name, shadow, state, app);
  }
  if (all.empty())
    return fail(
        FailureKind::not_found, "unknown_breaker",
        fmt::format("{}'{}' has no breaker: no rule that fits the name gives it one; expected the name of a call, as "
                    "`sluice breakers list` shows it, or a [guard.\"NAME\".breaker] in the rules",
                    shadow ? "shadow " : "", beginning_of(name, kMaxForcedName)));
  const BreakerState before = all[0]->breaker()->state();
  // Done if it is done anywhere: elsewhere it was so already, or cannot be.
  Status refused;
  bool done = false;
  for (Protector* const one : all) {
    // Nobody tries a service through the one that stands for every app.
    const bool lifted = state == BreakerState::half_open && one->app() == kEveryApp && by_order(one->breaker()->state());
    Status status = one->force(lifted ? BreakerState::closed : state, clock_.now());
    done = done || status;
    if (!status && refused) refused = std::move(status);
  }
  audit(by, fmt::format("breaker of {}'{}'{}: {} -> {}{}: {}", shadow ? "shadow " : "", name, of_app(app),
                        to_string(before), to_string(state), done ? "" : " (refused)", why),
        !done);
  return done ? Status{} : refused;
}

std::optional<std::string> Guards::nearest(std::string_view name, bool shadow) const {
  std::optional<std::string> best;
  std::size_t distance = std::max<std::size_t>(2, name.size() / 10) + 1;  // further apart they are no slips of one another
  const std::string wanted = lowered(name.substr(0, kMaxForcedName));
  const auto look = [&](std::string_view one) {
    if (one == name || one.find('*') != std::string_view::npos || one == kOverflowName) return;
    const std::string known = lowered(one);
    if (of_another_region(known, wanted)) return;
    if (const std::size_t apart = edits(known, wanted); apart < distance) {
      distance = apart;
      best = one;
    }
  };
  const std::lock_guard lock(mutex_);
  for (const auto& [key, entry] : protectors_)
    if (key.shadow == shadow && entry.called) look(key.name);
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
