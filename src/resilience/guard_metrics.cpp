#include "sluice/resilience/guard_metrics.hpp"

#include <algorithm>
#include <utility>

namespace sluice::resilience {

GuardMetrics::GuardMetrics(Guards& guards, Metrics& metrics)
    : guards_(guards), metrics_(metrics), hook_(metrics.before_exposition([this] { refresh(); })) {}

void GuardMetrics::refresh() {
  gauges_.clear();
  for (const ProtectorSnapshot& one : guards_.list()) show(one);
  expose();
}

void GuardMetrics::set(std::string_view name, std::string_view help, const Labels& labels, std::int64_t value, Past past) {
  gauges_.emplace(Series(name, labels), Figure{help, value, past});
}

void GuardMetrics::expose() {
  // What is gone goes first: it makes room. So does the sum, which is made anew.
  for (const auto& [name, labels] : shown_)
    if (!gauges_.contains({name, labels})) metrics_.forget_gauge(name, labels);
  shown_.clear();
  std::map<std::string, Figure> others;
  Labels other;
  for (const auto& [series, figure] : gauges_) {
    const auto& [name, labels] = series;
    if (metrics_.has_room(name, labels)) {
      metrics_.gauge(name, figure.help, labels).set(figure.value);
      shown_.insert(series);
    } else if (figure.past == Past::sum) {
      Figure& sum = others.emplace(name, Figure{figure.help, 0, Past::sum}).first->second;
      sum.value += figure.value;
      other = labels;
    }
  }
  for (auto& [label, value] : other) value = "other";
  for (const auto& [name, figure] : others) {
    metrics_.gauge(name, figure.help, other).set(figure.value);
    shown_.emplace(name, other);
  }
}

void GuardMetrics::count(std::string_view name, std::string_view help, const Labels& labels,
                         std::uint64_t total) {
  std::uint64_t& last = counted_[{std::string(name), labels}];
  metrics_.counter(name, help, labels).add(total - last);
  last = total;
}

void GuardMetrics::show(const ProtectorSnapshot& one) {
  const Labels labels{{"app", one.app}, {"command", one.name}, {"traffic", one.shadow ? "shadow" : "live"}};
  count("sluice_guard_passed_total", "Calls that were let through.", labels, one.passed);
  for (const PolicyCounts& policy : one.policies) {
    Labels of = labels;
    of.emplace_back("policy", std::string(to_string(policy.policy)));
    count("sluice_guard_blocked_total", "Calls refused, by policy.", of, policy.blocked);
    count("sluice_guard_would_block_total", "Calls that an observing policy would refuse.", of,
          policy.would_block);
  }
  if (one.breaker) {
    set("sluice_guard_breaker_state",
        "0 closed, 1 open, 2 half-open, 3 forced open, 4 forced closed, 5 disabled, "
        "6 metrics only.",
        labels, static_cast<std::int64_t>(one.breaker->state), Past::leave_out);
    const BreakerTally& window = one.breaker->window;
    set("sluice_guard_window_calls", "Calls in the breaker's window.", labels, static_cast<std::int64_t>(window.calls));
    set("sluice_guard_window_failures", "Failed calls in the breaker's window.", labels,
        static_cast<std::int64_t>(window.failures));
    set("sluice_guard_window_slow", "Slow calls in the breaker's window.", labels, static_cast<std::int64_t>(window.slow));
    count("sluice_guard_breaker_transitions_total", "Changes of a breaker's state.", labels,
          one.breaker->generation);
  }
  if (one.tokens)
    set("sluice_guard_tokens", "Calls that the rate would let through at once.", labels, static_cast<std::int64_t>(*one.tokens));
  const auto has = [&](Policy policy) {
    return std::ranges::any_of(one.policies, [&](const PolicyCounts& counts) { return counts.policy == policy; });
  };
  if (has(Policy::retry) || has(Policy::hedge)) {
    set("sluice_guard_retry_budget", "Whole tokens left for retries and hedges.", labels, static_cast<std::int64_t>(one.retry_budget));
    count("sluice_guard_retries_total", "Attempts after the first of a call.", labels, one.retries);
    count("sluice_guard_hedges_total", "Attempts beside one that was slow.", labels, one.hedges);
  }
  const BulkheadStats* places = one.adaptive   ? &one.adaptive->places
                                : one.bulkhead ? &*one.bulkhead
                                               : nullptr;
  if (places == nullptr) return;
  set("sluice_guard_in_flight", "Calls running now.", labels, places->in_flight);
  set("sluice_guard_limit", "Calls that may run at once.", labels, places->limit);
  set("sluice_guard_waiting", "Calls waiting for a place.", labels, places->waiting);
}

}  // namespace sluice::resilience
