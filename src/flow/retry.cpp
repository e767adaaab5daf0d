#include <algorithm>

#include "flow/combined.hpp"
#include "sluice/flow/combine.hpp"

namespace sluice::flow {

namespace {
// More than half must be left for a retry: one exchange at a time may always use all its attempts.
resilience::RetryBudgetOptions enough_for(std::uint32_t attempts) noexcept {
  resilience::RetryBudgetOptions options;
  options.tokens = std::max(options.tokens, 2.0 * attempts);
  return options;
}
}  // namespace

RetryStage::RetryStage(StagePtr stage, Random& random, resilience::RetryPolicy policy, resilience::RetryBudget* shared)
    : inner_(std::move(stage)),
      random_(random),
      policy_(std::move(policy)),
      own_(enough_for(policy_.attempts)),
      budget_(shared != nullptr ? *shared : own_) {}

// Forgets what a failed attempt drafted.
void RetryStage::rewind(Exchange& exchange, const Mark& mark) {
  exchange.response_ = mark.response;
  exchange.responded_at_ = mark.responded_at;
  if (exchange.snapshot_moved_) exchange.begin_snapshot();
  Draft& draft = exchange.draft();
  const auto cut = [](auto& list, std::size_t size) {
    if (list.size() > size) list.erase(list.begin() + static_cast<std::ptrdiff_t>(size), list.end());  // it may have cleared all
  };
  cut(draft.guards, mark.guards);
  cut(draft.mutations, mark.mutations);
  cut(draft.events, mark.events);
}

Task<Result<Vote>> RetryStage::attempt(Exchange& exchange) {
  Result<Vote> vote = Vote();
  try {
    if (inner_->asynchronous()) {
      auto task = inner_->prepare_task(exchange);
      vote = co_await task;
    } else {
      vote = inner_->prepare(exchange);
    }
  } catch (const std::exception& error) {
    vote = fail(FailureKind::internal, "exception", std::string("a stage threw: ") + error.what());
  } catch (...) {
    vote = fail(FailureKind::internal, "exception", "a stage threw something that is no std::exception");
  }
  co_return vote;
}

Task<Result<Vote>> RetryStage::prepare_task(Exchange& exchange) {
  TaskContext& context = co_await current_context();
  Clock& clock = context.lane->clock();
  const Draft& draft = exchange.draft();
  const Mark mark{draft.guards.size(), draft.mutations.size(), draft.events.size(), exchange.response_,
                  exchange.responded_at_};
  const Instant began = clock.now();
  bool nothing_left = true;
  for (std::uint32_t made = 1;; ++made) {
    exchange.attempt_ = made;
    exchange.left_nothing_ = false;
    auto trying = attempt(exchange);
    Result<Vote> vote = co_await trying;
    nothing_left = nothing_left && exchange.left_nothing_;
    exchange.left_nothing_ = nothing_left;
    if (!vote && may_have_happened(vote.error().kind())) exchange.unsure_before_ = true;
    if (vote) exchange.unsure_before_ = false;  // asked under the same token, so it speaks of the earlier attempts too
    if (vote) budget_.on_success();
    if (vote || exchange.aborting() || context.scope->cancelled()) co_return vote;
    // Another attempt would read beside the same old rows: the whole first phase runs again.
    if (exchange.snapshot_moved_ && inner_->effect() != Effect::external) co_return vote;
    if (policy_.worth(vote.error()) && !budget_.on_failure()) co_return vote;
    const auto delay = policy_.next_delay(made, vote.error(), random_, clock.now() - began);
    if (!delay) co_return vote;
    if (context.deadline != kNever && context.deadline - clock.now() <= *delay) co_return vote;
    auto waiting = sleep_for(*delay);
    const FailureKind cut = co_await waiting;
    if (cut != FailureKind::none) {
      Result<Vote> given_up = fail(vote.error().with("cut_short", std::string(traits(cut).name)));
      co_return given_up;
    }
    rewind(exchange, mark);
  }
}

StagePtr retry(StagePtr stage, Random& random, resilience::RetryPolicy policy, resilience::RetryBudget* budget) {
  return std::make_shared<RetryStage>(std::move(stage), random, std::move(policy), budget);
}

}  // namespace sluice::flow
