// How often and how long a guarded call may try. Plain values, as rule files give them.
#pragma once
#include "sluice/resilience/retry.hpp"

namespace sluice::resilience {

struct TimeoutOptions {
  Duration timeout = seconds(1);  ///< of one attempt
  /// What the next hop is told is earlier by so much, so that its answer still arrives.
  Duration margin = milliseconds(5);
};

struct RetryOptions {
  std::uint32_t attempts = 3;  ///< in all, the first included
  /// Calls may run twice without harm though they carry no idempotency key.
  bool safe = false;
  Growth growth = Growth::exponential;
  Jitter jitter = Jitter::full;
  Duration base = milliseconds(50);
  Duration max = seconds(2);
  double factor = 2;
  double budget_tokens = 10;  ///< shared with hedging
  double budget_ratio = 0.1;
};

struct HedgeOptions {
  std::uint32_t extra = 1;  ///< further attempts beside the first, 1 to kMaxHedges
  Duration delay{};         ///< before each; zero: the quantile of the latencies seen
  double quantile = 0.95;
  std::uint32_t warm_up = 100;  ///< latencies to have seen before the first hedge by quantile
};
inline constexpr std::uint32_t kMaxHedges = 4;

}  // namespace sluice::resilience
