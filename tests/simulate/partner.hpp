// The outside party of the simulation: holds, confirms and releases amounts under a key that its
// callers derive. It lives in another process, so it survives every crash, sees calls late, twice
// or not at all, and its answers get lost. It behaves as a careful partner should: every call is
// idempotent by its token, and a release that comes before its hold forbids the hold.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sim/faults.hpp"
#include "sim/scheduler.hpp"
#include "sluice/base/task.hpp"

namespace sluice::simulate {

class PartnerCall;

class Partner {
 public:
  enum class Verb : std::uint8_t { hold, confirm, release };

  Partner(sim::SimScheduler& scheduler, sim::SimRandom random, sim::Faults& faults,
          sim::History& history)
      : scheduler_(scheduler), random_(random), faults_(faults), history_(history) {}

  /// A call from a lane. Fails: rejected (declined, for good), unavailable (never sent),
  /// unknown_outcome (no answer in time), cancelled or timeout (the caller's scope ended; the
  /// call may still arrive).
  Task<Status> call(Verb verb, std::string token, std::string key);

  /// Whoever waits for an answer is gone: the process crashed.
  void hang_up() noexcept;

  /// What it holds of each token. `confirmed` and `released` are final.
  enum class State : std::uint8_t { held, confirmed, released };
  struct Entry {
    std::string key;
    State state = State::held;
  };
  const std::map<std::string, Entry>& entries() const noexcept { return entries_; }
  /// What callers did that no caller may do.
  const std::vector<std::string>& violations() const noexcept { return violations_; }
  std::uint64_t calls() const noexcept { return calls_; }

 private:
  friend class PartnerCall;
  Status apply(Verb verb, const std::string& token, const std::string& key);
  Duration latency();

  sim::SimScheduler& scheduler_;
  sim::SimRandom random_;
  sim::Faults& faults_;
  sim::History& history_;
  std::map<std::string, Entry> entries_;
  std::vector<std::string> violations_;
  std::set<PartnerCall*> waiting_;
  std::uint64_t calls_ = 0;
};

}  // namespace sluice::simulate
