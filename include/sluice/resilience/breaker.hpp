// The circuit breaker: stops calling what fails, tries again with a few calls, and closes when they
// succeed. Closed: one atomic load to enter, one short lock to record. Open: refusing takes no lock
// and allocates nothing.
#pragma once
#include <atomic>
#include <expected>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "sluice/base/random.hpp"
#include "sluice/resilience/block.hpp"

namespace sluice::resilience {

enum class BreakerState : std::uint8_t {
  closed,
  open,
  half_open,
  forced_open,    ///< by an operator: refuses until told otherwise
  forced_closed,  ///< by an operator: counts, passes, does not trip
  disabled,       ///< passes and counts nothing
  metrics_only,   ///< by configuration: counts, passes, does not trip
};
std::string_view to_string(BreakerState state) noexcept;
/// A state that calls do not lead out of.
constexpr bool by_order(BreakerState state) noexcept {
  return state != BreakerState::closed && state != BreakerState::open && state != BreakerState::half_open;
}

enum class BreakerWindow : std::uint8_t { count, time };

struct BreakerOptions {
  BreakerWindow window = BreakerWindow::time;
  std::uint32_t window_calls = 100;    ///< count: the last so many calls
  Duration window_time = seconds(10);  ///< time: in ten slots
  std::uint32_t minimum_calls = 10;    ///< in the window; below it never trips
  // Each trips when its value is reached; 0: not looked at.
  double failure_ratio = 0.5;
  double slow_ratio = 0;
  Duration slow_after = seconds(1);  ///< a call is slow from this latency on
  std::uint32_t failures = 0;
  std::uint32_t consecutive = 0;
  Duration isolation = seconds(5);  ///< the first time; doubles each time it opens, until `quiet`
  Duration isolation_max = seconds(60);
  double isolation_jitter = 0.1;  ///< shortens each by up to this part
  Duration quiet = seconds(60);   ///< closed for so long: isolation starts over
  std::uint32_t trials = 3;       ///< half-open: so many calls, 1 to kMaxTrials
  /// Failures among them that reopen; 0: from the ratios, or one.
  std::uint32_t trial_failures = 0;
  Duration trial_timeout = seconds(30);  ///< a trial that did not end by then gives its place back
};
inline constexpr std::uint32_t kMaxTrials = 32;

struct BreakerTally {
  std::uint64_t calls = 0, failures = 0, slow = 0;
};

enum class BreakerReason : std::uint8_t {
  failure_ratio,
  slow_ratio,
  failures,
  consecutive,
  isolation_over,
  trials_failed,
  trials_passed,
  operator_order,
  configuration,
};
std::string_view to_string(BreakerReason reason) noexcept;

struct BreakerTransition {
  BreakerState from = BreakerState::closed;
  BreakerState to = BreakerState::closed;
  BreakerReason reason = BreakerReason::configuration;
  Instant at;
  std::uint64_t generation = 0;  ///< of the new state; grows by one with each transition
  double observed = 0, threshold = 0;
  Duration isolation{};  ///< when opened
};

/// Everything to show, read under the lock.
struct BreakerSnapshot {
  BreakerState state = BreakerState::closed;
  std::uint64_t generation = 0;
  BreakerTally window;
  std::uint32_t consecutive = 0;
  Instant open_until;
  std::uint32_t trials_running = 0, trials_passed = 0, trials_failed = 0;
  std::uint64_t blocked = 0;  ///< refused in all
  std::uint64_t stale = 0;    ///< results of earlier generations or expired trials, not counted
  std::vector<BreakerTransition> transitions;  ///< the last kBreakerHistory, oldest first
  BreakerOptions options;                      ///< what the window is held against
};
inline constexpr std::size_t kBreakerHistory = 16;

/// The right to one call, as plain data: for owners that give it back themselves (see Permit).
struct BreakerTicket {
  static constexpr std::uint8_t kNoTrial = 0xff;
  std::uint64_t generation = 0;
  std::uint32_t serial = 0;
  std::uint8_t trial = kNoTrial;
};

class Breaker {
 public:
  /// Called after each transition, outside any lock, on the thread that caused it; transitions of
  /// different threads may be told out of order (see generation). Must not throw.
  using Listener = std::function<void(const BreakerTransition&)>;

  /// A ticket that goes back by itself. The breaker must outlive it. Destroyed without complete():
  /// as if cancelled.
  class Permit {
   public:
    Permit() = default;
    Permit(Permit&& other) noexcept
        : breaker_(std::exchange(other.breaker_, nullptr)), ticket_(other.ticket_) {}
    Permit& operator=(Permit&& other) noexcept;
    ~Permit() { cancel(); }
    void complete(Outcome outcome, Duration latency, Instant now) noexcept;
    void cancel() noexcept;

   private:
    friend class Breaker;
    Breaker* breaker_ = nullptr;
    BreakerTicket ticket_;
  };

  /// `random` (jitter) must outlive this.
  Breaker(BreakerOptions options, Random& random, Listener listener = {});
  ~Breaker();
  Breaker(const Breaker&) = delete;
  Breaker& operator=(const Breaker&) = delete;

  std::expected<Permit, Block> try_enter(Instant now) noexcept;
  /// True: `ticket` is to be given to leave() or give_back(), once. False: `block` says why.
  bool enter(Instant now, BreakerTicket& ticket, Block& block) noexcept;
  /// For a call that waited since it entered: asks anew if the state has changed or its trial has expired; a
  /// trial that is still its own has its time from now on. False, as enter(): the ticket is void.
  bool enter_again(Instant now, BreakerTicket& ticket, Block& block) noexcept;
  void leave(const BreakerTicket& ticket, Outcome outcome, Duration latency, Instant now) noexcept;
  /// The call was not made, or its end says nothing.
  void give_back(const BreakerTicket& ticket) noexcept;

  BreakerState state() const noexcept;
  BreakerSnapshot snapshot(Instant now) const;
  /// An operator's order: forced_open, forced_closed, disabled, metrics_only; closed (with an empty
  /// window); half_open, from open and forced_open only. Anything else, and the state it is in
  /// already, fails precondition_failed and changes nothing.
  Status force(BreakerState state, Instant now,
               BreakerReason reason = BreakerReason::operator_order);
  /// An operator's order that was given, and told, before this breaker was made. The listener is not told.
  void inherit(BreakerState order, Instant now);
  /// Keeps state, window, isolation and trials. False: the kind of window changed, it is empty.
  bool reconfigure(const BreakerOptions& options, Instant now);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::resilience
