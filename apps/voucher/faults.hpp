// Faults on demand, for demonstrations, tests and benches: makes the handlers of a service slow,
// failing, hanging or wrong, by a plan that can be changed while it runs.
//
//   {"rules":[{"region":"SG","latency_ms":40,"latency_p99_ms":400,"error_rate":0.2,
//              "error":"unavailable","hang_rate":0.1,"wrong_rate":0.05,"slow_start_ms":5000}],
//    "kill_after":1000}
// The first rule whose region matches applies ("" or absent: every request).
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "sluice/base/random.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::voucher {

struct FaultRule {
  std::string region;
  milliseconds latency{0};      ///< median of what is added before the handler
  milliseconds latency_p99{0};  ///< its 99th percentile, no less than it; 0: always the median
  double error_rate = 0;        ///< 0 to 1
  FailureKind error = FailureKind::unavailable;
  double hang_rate = 0;   ///< never answers; the caller's deadline or its leaving ends it
  double wrong_rate = 0;  ///< answers what is no answer to the question
  milliseconds slow_start{0};  ///< so long after the plan was set, latency falls from ten times to one
};

struct FaultPlan {
  std::vector<FaultRule> rules;
  std::uint64_t kill_after = 0;  ///< requests until the process kills itself; 0: never
  /// Fails invalid_argument, naming the field, what was expected and what was found.
  static Result<FaultPlan> parse(std::string_view json);
  std::string to_json() const;
};

/// Thread-safe. `clock` and `random` must outlive it.
class Faults {
 public:
  Faults(Clock& clock, Random& random) : clock_(clock), random_(random) {}
  /// What waits under the plan before goes on at once, to the handler.
  void set(FaultPlan plan);
  FaultPlan plan() const;
  /// The handler, with what the plan says happening before it.
  rpc::Handler around(rpc::Handler handler);
  /// voucher.faults.<service>.set and .get, of the server's app: a plan acts on whoever asks this server.
  Status add_commands(rpc::Registry& registry, const std::string& service);

 private:
  struct Fate {
    milliseconds wait{0};
    bool hang = false, wrong = false;
    std::optional<Failure> failure;
    bool none() const noexcept { return wait == wait.zero() && !hang && !wrong && !failure; }
  };
  class Held;
  /// How a request that waits is found: on its lane, as long as it is there.
  struct Ticket {
    Lane* lane = nullptr;
    Held* held = nullptr;  // null: it is over
  };
  Fate decide(const rpc::Command& command);

  Clock& clock_;
  Random& random_;
  mutable std::mutex mutex_;
  FaultPlan plan_;
  Instant since_{};
  std::atomic<bool> any_{false};  // no plan: no lock
  std::uint64_t seen_ = 0;
  std::set<std::shared_ptr<Ticket>> waiting_;  // bounded by the requests that the gate lets in
};

}  // namespace sluice::voucher
