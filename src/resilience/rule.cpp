#include "sluice/resilience/rule.hpp"

#include <algorithm>

#include "resilience/rule_text.hpp"

namespace sluice::resilience {
namespace {

constexpr std::array<std::string_view, 3> kModes{"off", "observe", "enforce"};

std::string out_of_range(const Rule& rule) {
  std::string problem;
  policies(rule, [&](Policy policy, const auto& ruled) {
    if (!ruled || !problem.empty()) return;
    FieldChecker checker;
    checker.choice("mode", ruled->mode, kModes);
    auto copy = ruled->options;
    fields(checker, copy);
    if (!checker.problem.empty()) problem = fmt::format("{}.{}", to_string(policy), checker.problem);
  });
  return problem;
}

std::string contradiction(const Rule& rule) {
  if (rule.breaker) {
    const BreakerOptions& o = rule.breaker->options;
    if (o.failure_ratio <= 0 && o.slow_ratio <= 0 && o.failures == 0 && o.consecutive == 0)
      return "breaker: nothing trips it; set failure_ratio, slow_ratio, failures or consecutive";
    if (o.window == BreakerWindow::count && o.minimum_calls > o.window_calls)
      return "breaker: minimum_calls is above window_calls, so it would never trip";
    if (o.window == BreakerWindow::count && o.failures > o.window_calls)
      return "breaker: failures is above window_calls, so it would never be reached";
    if (o.isolation > o.isolation_max) return "breaker: isolation is above isolation_max";
    if (o.trials > kMaxTrials || o.trials == 0)
      return fmt::format("breaker: trials must be from 1 to {}", kMaxTrials);
    if (o.trial_failures > o.trials) return "breaker: trial_failures is above trials";
  }
  if (rule.bulkhead && rule.adaptive)
    return "bulkhead and adaptive both bound what runs at once; keep one";
  const auto shares = [](const BulkheadOptions& o) {
    double sum = 0;
    for (const double share : o.shares) sum += share;
    return sum > 1 + 1e-9;
  };
  if (rule.bulkhead && shares(rule.bulkhead->options)) return "bulkhead: shares add up to over 1";
  if (rule.adaptive) {
    const AdaptiveOptions& o = rule.adaptive->options;
    if (o.floor > o.ceiling) return "adaptive: floor is above ceiling";
    if (shares(o.places)) return "adaptive: shares add up to over 1";
  }
  if (rule.timeout && rule.timeout->options.margin >= rule.timeout->options.timeout)
    return "timeout: margin is not below timeout";
  if (rule.retry && rule.retry->options.base > rule.retry->options.max)
    return "retry: base is above max";
  return {};
}

auto key_of(const Rule* rule) {
  return std::pair<bool, std::string_view>(rule->shadow, rule->pattern);
}

}  // namespace

Status check_rule(const Rule& rule) {
  if (!good_pattern(rule.pattern)) return fail(FailureKind::invalid_argument, "bad_rule", bad_pattern(rule.pattern));
  std::string problem = out_of_range(rule);
  if (problem.empty()) problem = contradiction(rule);
  if (problem.empty()) return {};
  return fail(FailureKind::invalid_argument, "bad_rule", name_of(rule) + ": " + problem);
}

RuleIndex::RuleIndex(RuleSet set) : set_(std::move(set)) {
  for (const Rule& rule : set_.rules)
    (rule.pattern.ends_with('*') ? prefixes_ : exact_).push_back(&rule);
  std::ranges::sort(exact_, {}, key_of);
  std::ranges::sort(prefixes_, std::greater<>(),
                    [](const Rule* rule) { return rule->pattern.size(); });
}

const Rule* RuleIndex::find(std::string_view command, bool shadow) const noexcept {
  const auto wanted = std::pair<bool, std::string_view>(shadow, command);
  const auto found = std::ranges::lower_bound(exact_, wanted, {}, key_of);
  if (found != exact_.end() && key_of(*found) == wanted) return *found;
  for (const Rule* rule : prefixes_) {
    const std::string_view prefix =
        std::string_view(rule->pattern).substr(0, rule->pattern.size() - 1);
    if (rule->shadow == shadow && command.starts_with(prefix)) return rule;
  }
  return nullptr;
}

}  // namespace sluice::resilience
