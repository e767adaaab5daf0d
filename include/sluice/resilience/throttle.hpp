// Client-side adaptive throttling: a client whose requests are mostly refused sends only some of
// them (Google SRE book, "Handling Overload"). Without a lock: ten slots of one word each.
#pragma once
#include <array>
#include <atomic>

#include "sluice/base/random.hpp"
#include "sluice/resilience/block.hpp"

namespace sluice::resilience {

struct ThrottleOptions {
  double k = 2;                    ///< requests per accepted one before anything is refused; over 1
  Duration window = seconds(120);  ///< in ten slots
  std::uint32_t minimum = 20;      ///< requests in the window; below it nothing is refused
  double max_refusal = 0.95;       ///< so that some always go through and notice a recovery
};

/// Thread-safe, lock-free. Counts up to 16 million requests a slot.
class Throttle {
 public:
  /// `random` must outlive this.
  Throttle(ThrottleOptions options, Random& random) noexcept;
  /// False: refused, with the probability (requests - k × accepts) / (requests + 1), and counted.
  bool try_pass(Instant now, Block& block) noexcept;
  /// The same without counting a refusal: for calls that are made anyway.
  bool would_pass(Instant now, Block& block) const noexcept;
  /// How a passed call ended. It counts as accepted unless the dependency failed; cancelled calls
  /// count as nothing.
  void on_end(Outcome outcome, Instant now) noexcept;
  /// The probability that the next one is refused.
  double refusal(Instant now) const noexcept;
  /// Keeps what was counted; for another length of the window it counts as new.
  void reconfigure(ThrottleOptions options, Instant now) noexcept;

 private:
  struct Sums {
    std::uint64_t requests = 0, accepts = 0;
  };
  static std::int64_t slot_length(const ThrottleOptions& options) noexcept;
  void set(const ThrottleOptions& options) noexcept;
  Sums sums(Instant now) const noexcept;
  double refusal_of(const Sums& sums) const noexcept;
  void count(Instant now, bool accepted) noexcept;
  std::int64_t slot_of(Instant now) const noexcept;

  static constexpr std::size_t kSlots = 10;
  Random& random_;
  std::atomic<std::int64_t> slot_ns_{1};
  std::atomic<double> k_{2};
  std::atomic<double> max_refusal_{1};
  std::atomic<std::uint32_t> minimum_{0};
  // From the low end: 24 bits of accepts, 24 of requests, 16 of the slot's number.
  alignas(64) std::array<std::atomic<std::uint64_t>, kSlots> slots_{};
};

}  // namespace sluice::resilience
