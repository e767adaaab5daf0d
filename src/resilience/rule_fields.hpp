// Every field of every policy, once: the visitor reads it from TOML or writes it as text. Names,
// ranges and order are those of rule files.
#pragma once
#include <array>

#include "sluice/resilience/rule.hpp"

namespace sluice::resilience {

inline constexpr Duration kMicrosecond = microseconds(1);
inline constexpr Duration kHour = std::chrono::hours(1);
inline constexpr Duration kDay = std::chrono::hours(24);
inline constexpr double kMillion = 1e6;

// In the order of the enumerations.
inline constexpr std::array<std::string_view, 2> kWindowNames{"count", "time"};
inline constexpr std::array<std::string_view, 2> kOrderNames{"fifo", "lifo_under_overload"};
inline constexpr std::array<std::string_view, 2> kFullNames{"evict", "refuse"};
inline constexpr std::array<std::string_view, 3> kGrowthNames{"constant", "linear", "exponential"};
inline constexpr std::array<std::string_view, 3> kJitterNames{"none", "full", "equal"};

template <class V>
void fields(V& v, BreakerOptions& o) {
  v.choice("window", o.window, kWindowNames);
  v.number("window_calls", o.window_calls, 1, 100'000);
  v.duration("window_time", o.window_time, milliseconds(10), kHour);
  v.number("minimum_calls", o.minimum_calls, 1, 100'000);
  v.number("failure_ratio", o.failure_ratio, 0, 1);
  v.number("slow_ratio", o.slow_ratio, 0, 1);
  v.duration("slow_after", o.slow_after, kMicrosecond, kHour);
  v.number("failures", o.failures, 0, kMillion);
  v.number("consecutive", o.consecutive, 0, kMillion);
  v.duration("isolation", o.isolation, milliseconds(1), kDay);
  v.duration("isolation_max", o.isolation_max, milliseconds(1), kDay);
  v.number("isolation_jitter", o.isolation_jitter, 0, 1);
  v.duration("quiet", o.quiet, Duration(0), kDay);
  v.number("trials", o.trials, 1, kMaxTrials);
  v.number("trial_failures", o.trial_failures, 0, kMaxTrials);
  v.duration("trial_timeout", o.trial_timeout, milliseconds(1), kHour);
}

template <class V>
void fields(V& v, ThrottleOptions& o) {
  v.number("k", o.k, 1, 100);
  v.duration("window", o.window, milliseconds(100), kHour);
  v.number("minimum", o.minimum, 0, kMillion);
  v.number("max_refusal", o.max_refusal, 0, 1);
}

template <class V>
void fields(V& v, RateOptions& o) {
  v.number("limit", o.limit, 0, 1e9);
  v.duration("period", o.period, kMicrosecond, kDay);
  v.number("burst", o.burst, 0, 1e9);
}

template <class V>
void fields(V& v, WarmUpOptions& o) {
  v.number("limit", o.limit, 0, 1e9);
  v.duration("period", o.period, kMicrosecond, kDay);
  v.duration("warm_up", o.warm_up, milliseconds(1), kDay);
  v.number("cold_factor", o.cold_factor, 1, 1000);
  v.duration("max_wait", o.max_wait, Duration(0), kHour);
}

template <class V>
void fields(V& v, HotKeyOptions& o) {
  v.number("limit", o.limit, 0, 1e9);
  v.duration("period", o.period, kMicrosecond, kDay);
  v.number("burst", o.burst, 0, 1e9);
  v.number("max_keys", o.max_keys, 1, kMillion);
  v.choice("on_full", o.on_full, kFullNames);
  v.limits("overrides", o.overrides, 10'000);
}

template <class V>
void fields(V& v, PacerOptions& o) {
  v.number("limit", o.limit, 0, 1e9);
  v.duration("period", o.period, kMicrosecond, kDay);
  v.duration("max_wait", o.max_wait, Duration(0), kHour);
}

template <class V>
void place_fields(V& v, BulkheadOptions& o) {
  v.shares("shares", o.shares);
  v.number("lend", o.lend, 0, 1);
  v.shares("priorities", o.priorities);
  v.number("max_queue", o.max_queue, 0, 100'000);
  v.duration("max_wait", o.max_wait, Duration(0), kHour);
  v.choice("order", o.order, kOrderNames);
}

template <class V>
void fields(V& v, BulkheadOptions& o) {
  v.number("limit", o.limit, 0, kMaxInFlight);
  place_fields(v, o);
}

template <class V>
void fields(V& v, AdaptiveOptions& o) {
  v.number("initial", o.initial, 1, kMaxInFlight);
  v.number("floor", o.floor, 1, kMaxInFlight);
  v.number("ceiling", o.ceiling, 1, kMaxInFlight);
  v.duration("window", o.window, milliseconds(1), kHour);
  v.number("minimum_samples", o.minimum_samples, 1, kMillion);
  v.number("tolerance", o.tolerance, 1, 100);
  v.number("smoothing", o.smoothing, 0.01, 1);
  v.number("backoff", o.backoff, 0.1, 0.99);
  v.number("drop_ratio", o.drop_ratio, 0, 1);
  v.duration("drop_latency", o.drop_latency, kMicrosecond, kHour);
  v.number("probe_every", o.probe_every, 1, kMillion);
  place_fields(v, o.places);
}

template <class V>
void fields(V& v, TimeoutOptions& o) {
  v.duration("timeout", o.timeout, kMicrosecond, kDay);
  v.duration("margin", o.margin, Duration(0), kHour);
}

template <class V>
void fields(V& v, RetryOptions& o) {
  v.number("attempts", o.attempts, 1, 100);
  v.flag("safe", o.safe);
  v.choice("growth", o.growth, kGrowthNames);
  v.choice("jitter", o.jitter, kJitterNames);
  v.duration("base", o.base, Duration(0), kHour);
  v.duration("max", o.max, Duration(0), kHour);
  v.number("factor", o.factor, 1, 100);
  v.number("budget_tokens", o.budget_tokens, 0, kMillion);
  v.number("budget_ratio", o.budget_ratio, 0, 1000);
}

template <class V>
void fields(V& v, HedgeOptions& o) {
  v.number("extra", o.extra, 1, kMaxHedges);
  v.duration("delay", o.delay, Duration(0), kHour);
  v.number("quantile", o.quantile, 0, 1);
  v.number("warm_up", o.warm_up, 1, 100'000);
}

/// Calls f(policy, optional<Ruled<...>>&) for each policy a rule may have.
template <class R, class F>
void policies(R& rule, F&& f) {
  f(Policy::breaker, rule.breaker);
  f(Policy::throttle, rule.throttle);
  f(Policy::rate, rule.rate);
  f(Policy::warm_up, rule.warm_up);
  f(Policy::hot_keys, rule.hot_keys);
  f(Policy::pacing, rule.pacing);
  f(Policy::bulkhead, rule.bulkhead);
  f(Policy::adaptive, rule.adaptive);
  f(Policy::timeout, rule.timeout);
  f(Policy::retry, rule.retry);
  f(Policy::hedge, rule.hedge);
}

}  // namespace sluice::resilience
