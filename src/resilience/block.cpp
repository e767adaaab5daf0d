#include "sluice/resilience/block.hpp"

#include <fmt/core.h>

namespace sluice::resilience {

std::string_view to_string(Policy policy) noexcept {
  static constexpr std::array<std::string_view, kPolicies> kNames{
      "breaker",  "throttle", "rate",  "warm_up", "hot_keys",     "pacing",  "bulkhead",
      "adaptive", "timeout",  "retry", "hedge",   "missing_rule", "overflow"};
  return kNames[static_cast<std::size_t>(policy)];
}

std::string_view to_string(Mode mode) noexcept {
  switch (mode) {
    case Mode::off:
      return "off";
    case Mode::observe:
      return "observe";
    case Mode::enforce:
      return "enforce";
  }
  return "off";
}

FailureKind failure_kind(Policy policy) noexcept {
  switch (policy) {
    case Policy::rate:
    case Policy::warm_up:
    case Policy::hot_keys:
    case Policy::pacing:
    case Policy::retry:
    case Policy::hedge:
      return FailureKind::rate_limited;
    case Policy::bulkhead:
    case Policy::adaptive:
    case Policy::throttle:
    case Policy::overflow:
      return FailureKind::overloaded;
    case Policy::breaker:
      return FailureKind::unavailable;
    case Policy::timeout:
      return FailureKind::timeout;
    case Policy::missing_rule:
      return FailureKind::forbidden;
  }
  return FailureKind::internal;
}

Outcome outcome_of(const Failure& failure) noexcept {
  switch (failure.kind()) {
    case FailureKind::timeout:
      return Outcome::timeout;
    case FailureKind::rate_limited:
    case FailureKind::overloaded:
      return Outcome::overloaded;
    case FailureKind::cancelled:
      return Outcome::cancelled;
    case FailureKind::unavailable:
    case FailureKind::unknown_outcome:
    case FailureKind::shutting_down:
    case FailureKind::corrupt:
    case FailureKind::resource_limit:
    case FailureKind::internal:
      return Outcome::failure;
    default:
      return Outcome::success;
  }
}

namespace {
// What `observed` and `threshold` count, in words.
std::string measured(const Block& block) {
  const double observed = block.observed, threshold = block.threshold;
  switch (block.policy) {
    case Policy::rate:
    case Policy::hot_keys:
      return fmt::format("{:.6g} asked for, {:.6g} to be had now", observed, threshold);
    case Policy::pacing:
    case Policy::warm_up:
      if (block.retry_after == kNoRetryAfter)
        return fmt::format("{:.6g} asked for, at most {:.6g} pass at once", observed, threshold);
      return fmt::format("its turn comes after {:.3g} s, and at most {:.3g} s may be waited", observed, threshold);
    default:
      return fmt::format("observed {:.6g}, limit {:.6g}", observed, threshold);
  }
}
}  // namespace

Failure to_failure(const Block& block) {
  const std::string_view policy = to_string(block.policy);
  Failure failure(failure_kind(block.policy), fmt::format("blocked_by_{}", policy),
                  fmt::format("refused by {} of rule '{}' (version {}): {}", policy, block.rule, block.version, measured(block)));
  failure = failure.with("policy", std::string(policy))
                .with("rule", std::string(block.rule))
                .with("rule_version", std::to_string(block.version))
                .with("observed", fmt::format("{:.6g}", block.observed))
                .with("threshold", fmt::format("{:.6g}", block.threshold));
  if (block.shadow) failure = failure.with("shadow", "true");
  if (block.retry_after < Duration::zero()) return failure;
  return failure.with_retry_after(std::chrono::ceil<milliseconds>(block.retry_after));
}

}  // namespace sluice::resilience
