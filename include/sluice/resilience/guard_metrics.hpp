// Shows the protectors in the metrics, refreshed at each exposition; calls pay nothing for it.
//   sluice_guard_passed_total, sluice_guard_blocked_total, sluice_guard_would_block_total
//   sluice_guard_breaker_state (the number of BreakerState), sluice_guard_breaker_transitions_total
//   sluice_guard_window_calls, sluice_guard_window_failures, sluice_guard_window_slow
//   sluice_guard_in_flight, sluice_guard_limit, sluice_guard_waiting
//   sluice_guard_tokens, sluice_guard_retry_budget, sluice_guard_retries_total, sluice_guard_hedges_total
// Labels: app, command, traffic (live or shadow), and policy where it applies. What a rule took away is not exposed.
// Past the metrics' bound the figures are summed as "other"; states, which have no sum, are left out.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>

#include "sluice/base/metrics.hpp"
#include "sluice/resilience/guards.hpp"

namespace sluice::resilience {

/// `guards` and `metrics` outlive it. Series are bounded by the metrics' own bound.
class GuardMetrics {
 public:
  GuardMetrics(Guards& guards, Metrics& metrics);
  GuardMetrics(const GuardMetrics&) = delete;
  GuardMetrics& operator=(const GuardMetrics&) = delete;

 private:
  void refresh();
  void show(const ProtectorSnapshot& one);
  /// Counters only grow: adds what is new since the last time.
  void count(std::string_view name, std::string_view help, const Labels& labels,
             std::uint64_t total);

  enum class Past : std::uint8_t { sum, leave_out };  ///< what becomes of a gauge past the bound
  void set(std::string_view name, std::string_view help, const Labels& labels, std::int64_t value, Past past = Past::sum);
  void expose();

  Guards& guards_;
  Metrics& metrics_;
  using Series = std::pair<std::string, Labels>;
  std::map<Series, std::uint64_t> counted_;  // under the hooks' lock, as the next
  struct Figure {
    std::string_view help;
    std::int64_t value = 0;
    Past past = Past::sum;
  };
  std::map<Series, Figure> gauges_;  // of this time
  std::set<Series> shown_;           // exposed the last time, "other" included
  std::unique_ptr<Metrics::Hook> hook_;                              // last: it uses the above
};

}  // namespace sluice::resilience
