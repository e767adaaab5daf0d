#include "sluice/resilience/guard_metrics.hpp"

namespace sluice::resilience {

GuardMetrics::GuardMetrics(Guards& guards, Metrics& metrics)
    : guards_(guards), metrics_(metrics), hook_(metrics.before_exposition([this] { refresh(); })) {}

void GuardMetrics::refresh() {
  for (const ProtectorSnapshot& one : guards_.list()) show(one);
}

void GuardMetrics::count(std::string_view name, std::string_view help, const Labels& labels,
                         std::uint64_t total) {
  std::uint64_t& last = counted_[{std::string(name), labels}];
  metrics_.counter(name, help, labels).add(total - last);
  last = total;
}

void GuardMetrics::show(const ProtectorSnapshot& one) {
  const Labels labels{{"command", one.name}, {"traffic", one.shadow ? "shadow" : "live"}};
  count("sluice_guard_passed_total", "Calls that were let through.", labels, one.passed);
  for (const PolicyCounts& policy : one.policies) {
    Labels of = labels;
    of.emplace_back("policy", std::string(to_string(policy.policy)));
    count("sluice_guard_blocked_total", "Calls refused, by policy.", of, policy.blocked);
    count("sluice_guard_would_block_total", "Calls that an observing policy would refuse.", of,
          policy.would_block);
  }
  if (one.breaker) {
    metrics_
        .gauge("sluice_guard_breaker_state",
               "0 closed, 1 open, 2 half-open, 3 forced open, 4 forced closed, 5 disabled, "
               "6 metrics only.",
               labels)
        .set(static_cast<std::int64_t>(one.breaker->state));
    count("sluice_guard_breaker_transitions_total", "Changes of a breaker's state.", labels,
          one.breaker->generation);
  }
  const BulkheadStats* places = one.adaptive   ? &one.adaptive->places
                                : one.bulkhead ? &*one.bulkhead
                                               : nullptr;
  if (places == nullptr) return;
  metrics_.gauge("sluice_guard_in_flight", "Calls running now.", labels).set(places->in_flight);
  metrics_.gauge("sluice_guard_limit", "Calls that may run at once.", labels).set(places->limit);
  metrics_.gauge("sluice_guard_waiting", "Calls waiting for a place.", labels).set(places->waiting);
}

}  // namespace sluice::resilience
