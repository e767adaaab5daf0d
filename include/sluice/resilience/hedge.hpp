// Hedging: when an answer takes longer than most, the call is made once more and the first success
// wins. For calls that may run twice. Bounded by the retry budget, so that a slow dependency is
// not called twice by everybody.
#pragma once
#include <array>
#include <exception>
#include <optional>
#include <utility>

#include "sluice/base/task.hpp"
#include "sluice/resilience/call_options.hpp"
#include "sluice/resilience/retrying.hpp"

namespace sluice::resilience {

/// What hedged() needs of the options at one moment.
struct HedgePlan {
  std::uint32_t extra = 0;        ///< further attempts, up to kMaxHedges
  std::optional<Duration> delay;  ///< before each of them; nothing: only after failures
};

namespace detail {

template <class T, class F>
class HedgeRace final : public Suspension {
 public:
  HedgeRace(HedgePlan plan, RetryBudget& budget, bool has_key, F& make) noexcept
      : most_(1 + std::min(plan.extra, kMaxHedges)),
        delay_(plan.delay),
        budget_(budget),
        has_key_(has_key),
        make_(make) {}
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    if (!suspend(self)) return false;
    starting_ = true;
    start_next();
    advance();
    starting_ = false;
    return !decided_;
  }
  Result<T> await_resume() {
    if (answer_) return std::move(*answer_);
    return fail(cancel_kind(), {}, "cancelled by the caller while calls were running");
  }
  /// Attempts made.
  std::uint32_t made() const noexcept { return made_; }

 private:
  struct Lap {
    HedgeRace* race = nullptr;
    AttemptNote note;
    Task<Result<T>> task;
    CancelScope scope;
    TaskContext context;
    bool running = false;
  };

  void start_next() {
    Lap& lap = laps_[made_++];
    lap.race = this;
    lap.note.number = made_;
    lap.context = {context().lane, &lap.scope, context().deadline, context().outside};
    lap.task = make_(lap.note);
    lap.running = true;
    ++running_;
    if (lap.task.start(lap.context, &HedgeRace::ended, &lap)) judge(lap);
  }
  static void ended(void* owner) noexcept {
    auto* lap = static_cast<Lap*>(owner);
    HedgeRace& race = *lap->race;
    if (!lap->running || race.decided_) return;
    race.judge(*lap);
    race.go_on();
  }
  static void slow(void* owner) noexcept {
    auto* race = static_cast<HedgeRace*>(owner);
    race->slow_ = true;
    race->go_on();
  }
  void go_on() noexcept {
    if (starting_) return;  // await_suspend looks at the outcome itself
    starting_ = true;
    advance();
    starting_ = false;
    if (decided_) finish();
  }
  void judge(Lap& lap) {
    lap.running = false;
    --running_;
    Result<T> answer = taken(lap);
    if (answer) {
      budget_.on_success();
      decided_ = true;
    } else if (lap.note.refused_here) {
      // A refusal of our own does not end calls that are on their way; it only starts no more.
      exhausted_ = true;
    } else if (!worth_retrying(answer.error(), has_key_)) {
      decided_ = true;
    } else {
      // The token of the failure pays for the attempt that follows it.
      exhausted_ = !budget_.on_failure() || exhausted_;
      after_failure_ = true;
      heed(answer.error());
    }
    if (decided_ || !answer_ || stricter(answer, *answer_)) answer_ = std::move(answer);
  }
  // What the callee says about trying again holds for hedges too: never, or at that time.
  void heed(const Failure& failure) noexcept {
    const auto pushback = failure.retry_after();
    if (!pushback) return;
    const Instant now = context().lane->clock().now();
    const bool never = *pushback < milliseconds::zero();
    if (never || (context().deadline != kNever && *pushback >= context().deadline - now))
      exhausted_ = true;
    else
      not_before_ = std::max(not_before_, now + *pushback);
  }
  // Of several failures that are worth a retry, whoever retries is to hear the sternest.
  static bool stricter(const Result<T>& later, const Result<T>& kept) noexcept {
    if (later || kept || !later.error().retry_after()) return false;
    const auto mine = *later.error().retry_after(), others = kept.error().retry_after().value_or(milliseconds::zero());
    return others >= milliseconds::zero() && (mine < milliseconds::zero() || mine > others);
  }
  static Result<T> taken(Lap& lap) noexcept {
    try {
      return lap.task.take();
    } catch (const std::exception& error) {
      return fail(FailureKind::internal, "foreign_exception", error.what());
    } catch (...) {
      return fail(FailureKind::internal, "foreign_exception", "of an unknown type");
    }
  }
  // Starts what is due and settles what is certain.
  void advance() {
    while (!decided_ && (after_failure_ || slow_) && may_start() && !told_to_wait()) {
      const bool paid = std::exchange(after_failure_, false);
      slow_ = false;
      // With an empty budget there are no extra calls; those that run still decide.
      if (!paid && !budget_.try_spend()) {
        exhausted_ = true;
        break;
      }
      start_next();
    }
    const bool waits = (after_failure_ || slow_) && may_start();  // for the time it was told
    if (!decided_ && running_ == 0 && !waits) decided_ = true;
    if (decided_) return stop();
    if (!may_start()) return timer_.cancel();
    if (waits) timer_.cancel();  // that of the delay
    if (timer_.armed() || (!waits && !delay_)) return;
    const Instant due = waits ? not_before_ : context().lane->clock().now() + *delay_;
    timer_.arm(*context().lane, std::max(due, not_before_), &HedgeRace::slow, this);
  }
  bool may_start() const noexcept { return !exhausted_ && made_ < most_; }
  bool told_to_wait() const noexcept { return context().lane->clock().now() < not_before_; }
  void stop() noexcept {
    timer_.cancel();
    for (std::uint32_t i = 0; i < made_; ++i) {
      Lap& lap = laps_[i];
      if (!lap.running) continue;
      lap.scope.cancel();
      lap.running = false;
      lap.task.reset();
    }
    running_ = 0;
  }
  void on_cancel() noexcept override {
    decided_ = true;
    answer_.reset();
    for (std::uint32_t i = 0; i < made_; ++i)
      if (laps_[i].running) laps_[i].scope.cancel(cancel_kind());
    stop();
  }

  const std::uint32_t most_;
  const std::optional<Duration> delay_;
  RetryBudget& budget_;
  const bool has_key_;
  F& make_;
  std::array<Lap, 1 + kMaxHedges> laps_;
  std::uint32_t made_ = 0, running_ = 0;
  bool starting_ = false, decided_ = false, exhausted_ = false;
  bool after_failure_ = false, slow_ = false;  // why a further attempt is due
  Instant not_before_{};                       // by a callee's word
  std::optional<Result<T>> answer_;            // the deciding one, or the first failure
  Timer timer_;
};

template <class M>
struct TaskValue;
template <class T>
struct TaskValue<Task<Result<T>>> {
  using type = T;
};

}  // namespace detail

/// `make(AttemptNote&)` gives the task of one attempt, up to 1 + extra of them at once. The first
/// success, or a failure that trying again cannot help, decides; the others are cancelled and
/// destroyed. Another failure starts the next attempt at once, or at the time it names in retry_after; a
/// negative one means no further attempts. Fails with the first failure, or the one with the sternest
/// retry_after, when all have failed. An empty budget means no extra attempts and fails nothing.
template <class F, class Made = std::invoke_result_t<F&, AttemptNote&>>
Made hedged(HedgePlan plan, RetryBudget& budget, bool has_key, F make) {
  detail::HedgeRace<typename detail::TaskValue<Made>::type, F> race(plan, budget, has_key, make);
  auto answer = co_await race;
  co_return answer;
}

}  // namespace sluice::resilience
