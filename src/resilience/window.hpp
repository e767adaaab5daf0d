// The last outcomes of a breaker: of the last n calls, or of a stretch of time in ten slots.
// Under the breaker's lock.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "sluice/resilience/breaker.hpp"

namespace sluice::resilience {

class Window {
 public:
  void configure(const BreakerOptions& options);
  /// Keeps what was counted: a shorter count window keeps the newest calls, another length of time
  /// counts them all as new. False: the kind changed, and it is empty.
  bool reconfigure(const BreakerOptions& options);
  void clear() noexcept;
  void record(Instant now, bool failed, bool slow) noexcept;
  /// So many calls in the newest slot that neither failed nor were slow; time windows only.
  void add_healthy(std::uint64_t calls) noexcept;
  std::int64_t slot_begin() const noexcept { return head_ * slot_ns_; }
  std::int64_t slot_end() const noexcept { return slot_begin() + slot_ns_; }
  /// Forgets what is too old by `now`.
  void age(Instant now) noexcept;
  const BreakerTally& tally() const noexcept { return tally_; }

 private:
  static constexpr std::size_t kSlots = 10;
  // A call of the count window, in bits.
  static constexpr std::uint8_t kFailed = 1, kSlow = 2;
  void add(std::uint8_t call) noexcept;
  static void add(BreakerTally& to, std::uint8_t call) noexcept;

  BreakerWindow kind_ = BreakerWindow::time;
  BreakerTally tally_;
  std::vector<std::uint8_t> calls_;  // ring: next_ is the oldest once it is full
  std::size_t next_ = 0;
  std::array<BreakerTally, kSlots> slots_{};
  std::int64_t slot_ns_ = 1;
  std::int64_t head_ = 0;  // number of the newest slot since the beginning of time
};

}  // namespace sluice::resilience
