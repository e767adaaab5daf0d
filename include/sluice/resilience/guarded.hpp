// A call with everything its protector asks for, outermost first: retry, hedge, then for each
// attempt breaker, throttle, rates, bulkhead, timeout, and the call itself. (Shadow is the choice
// of the protector; the deadline is that of the task; a CacheAside goes around this.)
#pragma once
#include <string>
#include <utility>

#include "sluice/resilience/attempt.hpp"
#include "sluice/resilience/hedge.hpp"
#include "sluice/resilience/protector.hpp"
#include "sluice/resilience/retrying.hpp"

namespace sluice::resilience {

struct GuardedCall {
  std::string hot_key;       ///< for hot-key quotas; empty: none
  std::uint32_t weight = 1;  ///< as in CallInfo
  Priority priority = Priority::normal;
  std::uint8_t partition = 0;
  /// Every attempt carries the same idempotency key: it may be retried and hedged.
  bool has_key = false;
  /// How a failure counts for the dependency; null: outcome_of. A failure that is no fault of the
  /// dependency (a miss, a refusal) is Outcome::success.
  Outcome (*outcome)(const Failure&) = nullptr;
};

namespace detail {

template <class F>
using Made = std::invoke_result_t<F&, AttemptNote&>;

/// One attempt: enter, call within the rule's timeout, tell the protector how it ended.
template <class F>
Made<F> guarded_attempt(Protector& protector, const GuardedCall& call, F& make, AttemptNote& note) {
  TaskContext& context = co_await current_context();
  Clock& clock = context.lane->clock();
  CallInfo info;
  info.now = clock.now();  // the one time all policies see
  info.hot_key = call.hot_key;
  info.weight = call.weight;
  info.priority = call.priority;
  info.partition = call.partition;
  GuardPermit permit;
  FailureKind cancelled = FailureKind::none;
  Task<std::optional<Block>> entering = protector.enter(info, context.deadline, permit, cancelled);
  const std::optional<Block> block = co_await entering;
  if (block) {
    note.refused_here = true;
    Failure refusal = to_failure(*block);
    if (!refusal.retry_after()) refusal = given_up(refusal, "refused");
    co_return fail(std::move(refusal));
  }
  if (cancelled != FailureKind::none) {
    note.refused_here = true;
    Failure cut(cancelled, {}, "cancelled while waiting to be let through");
    co_return fail(std::move(cut));
  }
  const Instant deadline = protector.attempt_deadline(clock.now(), context.deadline);
  // An exception leaves with the permit, which gives back what it holds.
  Made<F> one = make(note);
  Made<F> bounded = with_deadline(std::move(one), deadline, protector.deadline_margin());
  auto answer = co_await bounded;
  Outcome outcome = Outcome::success;
  if (!answer)
    outcome = call.outcome != nullptr ? call.outcome(answer.error()) : outcome_of(answer.error());
  const Instant ended = clock.now();
  if (outcome == Outcome::success && protector.mode(Policy::hedge) != Mode::off)
    protector.latencies().record(ended - info.now);
  permit.complete(outcome, ended);
  co_return answer;
}

/// Remembers whether any of several attempts got past us.
template <class M>
M noting(M attempt, AttemptNote& note, bool& all_refused) {
  auto answer = co_await attempt;
  all_refused = all_refused && note.refused_here;
  co_return answer;
}

template <class F>
Made<F> guarded_hedge(Protector& protector, const GuardedCall& call, HedgePlan plan,
                      bool may_repeat, F& make, AttemptNote& note) {
  if (plan.extra == 0) {
    Made<F> only = guarded_attempt(protector, call, make, note);
    auto answer = co_await only;
    co_return answer;
  }
  bool all_refused = true;
  auto lap = [&](AttemptNote& inner) {
    if (inner.number > 1) protector.count_hedge();
    return noting(guarded_attempt(protector, call, make, inner), inner, all_refused);
  };
  Made<F> race = hedged(plan, protector.budget(), may_repeat, std::move(lap));
  auto answer = co_await race;
  note.refused_here = !answer && all_refused;
  note.settled = true;
  co_return answer;
}

}  // namespace detail

/// Calls through `protector`. `make(AttemptNote&)` gives a Task<Result<T>> that does the call once;
/// it is asked again for each retry and hedge, which happen only with a key or where the rule says
/// `safe`. Fails with to_failure(Block) when refused here, timeout when an attempt took too long,
/// otherwise as the call did. A refusal is not retried. What it gave up on is marked so, that nobody above tries it
/// all again: a refusal that names no time, and what was tried by a rule's retry or hedge. protector and random
/// outlive the task.
template <class F>
detail::Made<F> guarded(Protector& protector, GuardedCall call, Random& random, F make) {
  RetryOptions retry;
  if (protector.mode(Policy::retry) != Mode::off) retry = protector.retry_options();
  const bool may_repeat = call.has_key || retry.safe;
  HedgePlan plan;
  if (may_repeat && protector.mode(Policy::hedge) == Mode::enforce) {
    const HedgeOptions hedge = protector.hedge_options();
    plan.delay = hedge.delay > Duration::zero()
                     ? std::optional<Duration>(hedge.delay)
                     : protector.latencies().at(hedge.quantile, hedge.warm_up);
    // None during warm-up: not even after failures, so that its latencies are plain ones.
    plan.extra = plan.delay ? hedge.extra : 0;
  }
  RetryPolicy policy;
  policy.attempts =
      may_repeat && protector.mode(Policy::retry) == Mode::enforce ? retry.attempts : 1;
  policy.has_key = may_repeat;
  policy.backoff.growth = retry.growth;
  policy.backoff.jitter = retry.jitter;
  policy.backoff.base = retry.base;
  policy.backoff.max = retry.max;
  policy.backoff.factor = retry.factor;
  auto one = [&](AttemptNote& note) {
    if (note.number > 1) protector.count_retry();
    return detail::guarded_hedge(protector, call, plan, may_repeat, make, note);
  };
  const bool repeats = policy.attempts > 1 || plan.extra > 0;
  bool refused = false;
  detail::Made<F> all = retrying(std::move(policy), protector.budget(), random, std::move(one), &refused);
  auto answer = co_await all;
  if (!answer && repeats && !refused && worth_retrying(answer.error(), may_repeat)) {
    Failure over = given_up(answer.error(), "tried as often as its rule and budget allow");
    co_return fail(std::move(over));
  }
  co_return answer;
}

}  // namespace sluice::resilience
