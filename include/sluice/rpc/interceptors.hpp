// The stock interceptors of a Client. All are thread-safe; what their options refer to outlives
// them.
#pragma once
#include <functional>
#include <memory>

#include "sluice/base/log.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/base/random.hpp"
#include "sluice/resilience/cache_aside.hpp"
#include "sluice/resilience/guards.hpp"
#include "sluice/rpc/client.hpp"

namespace sluice::rpc {

struct CallLogOptions {
  LogLevel level = LogLevel::info;       ///< of calls that succeeded; failures are warnings
  std::uint32_t sample_every = 100;      ///< one success in so many; 0: none. Failures: all
  std::size_t max_body_bytes = 2048;     ///< of each body, after masking; the rest is cut
  /// Fields hidden whole besides those that mask_json() knows for secrets: what of these services'
  /// answers is worth money.
  std::vector<std::string> secret_fields;
  /// Bytes of a named message as JSON text; empty: only their size is shown.
  std::function<std::string(std::string_view type, ByteView body)> show;
};
/// A line for each call: command, namespace, attempt-free outcome, time, bodies masked by the names
/// of their fields.
std::shared_ptr<Interceptor> log_calls(Logger& logger, CallLogOptions options = {});

/// Gives each call a span of its own below the caller's trace, or a new trace without one.
std::shared_ptr<Interceptor> trace_calls(Random& random);

/// sluice_client_calls_total{command,traffic,outcome} and sluice_client_seconds{command,traffic}.
std::shared_ptr<Interceptor> measure_calls(Metrics& metrics);

struct ShadowOptions {
  /// Where shadow traffic goes; null: to the same callee, marked.
  std::shared_ptr<Channel> channel;
  /// Shadow calls of commands that are not read-only fail forbidden instead of being sent: for
  /// callees that do not keep shadow traffic apart.
  bool reads_only = false;
};
/// Marks shadow traffic (`x-sluice-shadow: true`) and sends it where it belongs.
std::shared_ptr<Interceptor> shadow_calls(ShadowOptions options = {});

/// Each call through the protector of its command, live or shadow: resolved once, retried only with
/// a key or if the command is read-only or idempotent (or its rule says safe).
std::shared_ptr<Interceptor> guard_calls(resilience::Guards& guards, Random& random);

struct CallCacheOptions {
  resilience::CacheAsideOptions entries;  ///< for each command and lane
  std::size_t max_caches = 1000;          ///< commands × lanes; further ones are not cached
  /// Which read-only commands; empty: all of them.
  std::function<bool(const RemoteCommand&)> cached;
};
/// Answers of read-only commands by namespace and body; one fetch however many wait for it. A
/// not_found of the callee is remembered for absent_ttl. Fetches may still run when all callers have
/// their answers: destroyed after the threads of its lanes have stopped and before the lanes.
std::shared_ptr<Interceptor> cache_calls(Random& random, CallCacheOptions options = {});

}  // namespace sluice::rpc
