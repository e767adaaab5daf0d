// What the breaker knows. State and generation are one atomic word, so that a closed breaker is
// entered with one load; everything that changes them is under the lock.
#pragma once
#include <mutex>
#include <optional>

#include "resilience/window.hpp"

namespace sluice::resilience {

struct Breaker::Impl {
  Impl(BreakerOptions o, Random& r, Listener l);

  static constexpr std::uint64_t kStateBits = 3;
  static BreakerState state_of(std::uint64_t word) noexcept {
    return static_cast<BreakerState>(word & ((1u << kStateBits) - 1));
  }
  static std::uint64_t generation_of(std::uint64_t word) noexcept { return word >> kStateBits; }

  bool refuse(Duration retry_after, Block& block) noexcept;

  // Healthy calls are counted without the lock. `quick` is armed while the breaker is closed, its
  // window is of time, and a success cannot trip it: there are no failures, or enough calls and no
  // threshold reached, so that a success only lowers the ratios. Then a success in the newest slot
  // adds one to `quick`, and whoever takes the lock folds it into the window first. It carries the
  // generation and is disarmed before anything changes: nothing is counted where it does not
  // belong.
  static constexpr std::uint64_t kQuickArmed = std::uint64_t{1} << 63;
  static constexpr std::uint64_t kQuickCountMax = (1u << 24) - 1;
  static std::uint64_t quick_of(std::uint64_t generation) noexcept {
    return kQuickArmed | (generation & 0x7f'ffff'ffffull) << 24;
  }
  bool count_quickly(std::uint64_t generation, Duration latency, Instant now) noexcept;
  void disarm() noexcept;
  void arm() noexcept;
  /// Holds the lock, with what was counted quickly in the window.
  struct Locked {
    explicit Locked(Impl& owner) : impl(owner), lock(owner.mutex) { impl.disarm(); }
    ~Locked() { impl.arm(); }
    Impl& impl;
    std::lock_guard<std::mutex> lock;
  };

  // Under the lock. A transition is returned to be told once the lock is released.
  using Told = std::optional<BreakerTransition>;
  bool take_trial(Instant now, BreakerTicket& ticket) noexcept;
  bool renew_trial(const BreakerTicket& ticket, Instant now) noexcept;
  /// The trial of this ticket, if it is still out.
  bool end_trial(const BreakerTicket& ticket) noexcept;
  void expire_trials(Instant now) noexcept;
  Instant trial_end(Instant now) const noexcept {
    return options.trial_timeout < kNever - now ? now + options.trial_timeout : kNever;
  }
  struct Reached {
    BreakerReason reason;
    double value, bound;
  };
  /// The first threshold that the window has reached.
  std::optional<Reached> reached() const noexcept;
  Told judge_window(Instant now);
  Told judge_trials(Instant now);
  Told change(BreakerState to, BreakerReason reason, Instant now, double observed = 0,
              double threshold = 0);
  Duration next_isolation(Instant now);
  std::uint32_t trials() const noexcept;
  void tell(const Told& told) const {
    if (told && listener) listener(*told);
  }

  alignas(64) std::atomic<std::uint64_t> word{0};
  std::atomic<std::uint64_t> quick{0};
  std::atomic<std::int64_t> slot_begin{0};  // of the newest slot, while armed
  std::atomic<std::int64_t> slot_end{0};
  std::atomic<Duration> slow_after{Duration::max()};
  std::atomic<std::int64_t> open_until{0};
  std::atomic<double> observed{0};
  std::atomic<double> threshold{0};
  std::atomic<std::uint64_t> blocked{0};
  std::atomic<std::uint64_t> stale{0};

  mutable std::mutex mutex;
  BreakerOptions options;
  Random& random;
  const Listener listener;
  Window window;
  std::uint32_t consecutive = 0;
  std::uint32_t streak = 0;  // openings without a quiet period between them
  bool opened_before = false;
  Instant closed_at;

  struct Trial {
    bool out = false;
    std::uint32_t serial = 0;
    Instant expires;
  };
  std::array<Trial, kMaxTrials> trial_slots;
  std::uint32_t next_serial = 0;
  std::uint32_t running = 0, passed = 0, failed = 0, slow = 0;
  std::vector<BreakerTransition> history;
};

}  // namespace sluice::resilience
