// The words every guard shares: which policy, in which mode, what a call is, how it ended, and the
// Block a refused caller is given.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

#include "sluice/base/failure.hpp"
#include "sluice/base/time.hpp"

namespace sluice::resilience {

/// The policies of a protector, in the order they are asked.
enum class Policy : std::uint8_t {
  breaker,
  throttle,
  rate,
  warm_up,
  hot_keys,
  pacing,
  bulkhead,
  adaptive,
  timeout,
  retry,
  hedge,
  missing_rule,  ///< shadow traffic without a rule, where that is denied
  overflow,      ///< more protectors than the registry holds, where that is denied
};
inline constexpr std::size_t kPolicies = 13;
/// snake_case, as in rule files and metrics.
std::string_view to_string(Policy policy) noexcept;

/// What a policy's verdict is worth.
enum class Mode : std::uint8_t {
  off,      ///< not asked, not counted
  observe,  ///< asked; what it would refuse is counted and passes
  enforce,
};
std::string_view to_string(Mode mode) noexcept;

/// How a guarded call ended.
enum class Outcome : std::uint8_t {
  success,     ///< also a miss, or any other outcome declared benign
  failure,     ///< the dependency failed
  timeout,     ///< a failure, and a drop for the adaptive limit
  overloaded,  ///< the dependency refused for lack of room: a drop; not a consecutive failure
  cancelled,   ///< says nothing about the dependency
};
/// The outcome of a call that failed: business refusals are successes of the dependency.
Outcome outcome_of(const Failure& failure) noexcept;

/// Lower runs first when there is no room for all.
enum class Priority : std::uint8_t { critical, normal, sheddable, background };
inline constexpr std::size_t kPriorities = 4;

/// What the policies are told of a call. One `now` for all of them: read it once.
struct CallInfo {
  Instant now;               ///< when the call starts
  std::string_view hot_key;  ///< for hot-key quotas; empty: not limited by them
  std::uint32_t weight = 1;  ///< permits it takes from rate limits, all or nothing
  Priority priority = Priority::normal;
  std::uint8_t partition = 0;  ///< of the bulkhead or adaptive limit
};

inline constexpr Duration kNoRetryAfter = Duration(-1);

/// A refusal, as plain data: making, moving and dropping it allocates nothing.
struct Block {
  Policy policy = Policy::breaker;
  bool shadow = false;        ///< the call was shadow traffic
  std::uint32_t version = 0;  ///< of the rules that refused
  /// The rule's pattern; lives as long as the registry. Empty for a policy used by itself.
  std::string_view rule;
  double observed = 0;   ///< e.g. failure ratio, calls in flight, tokens asked for
  double threshold = 0;  ///< the bound `observed` met
  /// When to come back; kNoRetryAfter: unknown, or waiting will not help.
  Duration retry_after = kNoRetryAfter;
};

/// The failure a caller sees: limits are `rate_limited` or `overloaded` (RESOURCE_EXHAUSTED, 429
/// or 503), an open breaker `unavailable`, a timeout `timeout`; with policy, rule, version,
/// observed and threshold as details and retry_after rounded up to milliseconds.
Failure to_failure(const Block& block);
FailureKind failure_kind(Policy policy) noexcept;

}  // namespace sluice::resilience
