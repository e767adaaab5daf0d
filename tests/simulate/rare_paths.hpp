// The probes of src/: places that histories must have taken, or nobody has tested them. A test of
// tests/structure holds this list to them.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/probe.hpp"

namespace sluice::simulate {

inline constexpr std::string_view kRarePaths[] = {
    // The store does not say, or says no.
    "flow.intent_or_pause_unknown",
    "flow.decision_not_taken",
    "flow.decision_left_to_recovery",
    "flow.refused_after_an_intent",
    "flow.fence_applied",
    "flow.fence_found_a_commit",
    "flow.fence_found_a_refusal",
    "flow.fence_unknown",
    "flow.abort_decided_again",
    "flow.end_not_written",
    "flow.wake_up_not_written",
    // Time and order.
    "flow.pending_at_the_deadline",
    "flow.pause_timed_out",
    "flow.woken_before_it_slept",
    "flow.second_phase_given_up",
    // What a crash left.
    "flow.recovered_asleep",
    "flow.recovered_awake",
    "recovery.not_decided",
    "recovery.commit_not_begun",
    "recovery.commit_half_done",
    "recovery.abort_not_begun",
    "recovery.abort_half_done",
    "recovery.ended_meanwhile",
    "recovery.journal_not_readable",
    // Keys.
    "keys.asked_again_after_a_release",
    "keys.asked_for_nobody",
    "keys.held_by_an_exchange_of_before",
};

/// Those that no history of this process has taken.
inline std::vector<std::string> never_taken() {
  const auto hits = probe_hits();
  std::vector<std::string> missing;
  for (const auto path : kRarePaths)
    if (!hits.contains(std::string(path))) missing.emplace_back(path);
  return missing;
}

}  // namespace sluice::simulate
