// Trying again, on a lane: the policy says whether and when, the budget whether the system can
// afford it.
#pragma once
#include <cstdint>
#include <utility>

#include "sluice/base/task.hpp"
#include "sluice/resilience/retry.hpp"

namespace sluice::resilience {

/// What one attempt tells the loop beside its result.
struct AttemptNote {
  std::uint32_t number = 1;  ///< counts from 1
  /// Set by an attempt that was refused here, before it was sent: that is neither retried (a
  /// refusal is meant) nor charged to the budget.
  bool refused_here = false;
  /// Set by an attempt that has settled with the budget itself (hedging).
  bool settled = false;
};

/// `make(AttemptNote&)` gives the Task<Result<T>> of one attempt; it is kept until the end.
/// Gives the first success or the last failure; after a cancelled wait, why it was cut. No retry
/// starts at or after the caller's deadline. `refused` is told when the last attempt was refused here. What is
/// referred to outlives the task.
template <class F, class Made = std::invoke_result_t<F&, AttemptNote&>>
Made retrying(RetryPolicy policy, RetryBudget& budget, Random& random, F make, bool* refused = nullptr) {
  TaskContext& context = co_await current_context();
  Clock& clock = context.lane->clock();
  Instant began{};
  bool timed = false;
  for (std::uint32_t attempt = 1;; ++attempt) {
    AttemptNote note{.number = attempt};
    if (!timed && policy.attempts > 1) {
      began = clock.now();
      timed = true;
    }
    Made one = make(note);
    auto answer = co_await one;
    if (answer) {
      if (!note.settled) budget.on_success();
      co_return answer;
    }
    const Failure& failure = answer.error();
    if (note.refused_here && refused != nullptr) *refused = true;
    if (note.refused_here || failure.kind() == FailureKind::cancelled) co_return answer;
    // A failure that trying again cannot help says nothing about load.
    if (!policy.worth(failure)) co_return answer;
    const bool affordable = note.settled ? budget.may_retry() : budget.on_failure();
    if (!affordable || attempt >= policy.attempts) co_return answer;
    const Instant now = clock.now();
    const auto wait = policy.next_delay(attempt, failure, random, now - began);
    if (!wait || (context.deadline != kNever && *wait >= context.deadline - now)) co_return answer;
    const FailureKind cut = co_await sleep_for(*wait);
    if (cut != FailureKind::none) {
      Failure why(cut, {}, "cancelled while waiting to try again");
      co_return fail(std::move(why));
    }
  }
}

}  // namespace sluice::resilience
