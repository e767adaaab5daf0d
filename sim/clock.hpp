// Virtual time: moves only when told. Thread-safe, so that thread tests may use it as well.
#pragma once
#include <atomic>

#include "sluice/base/time.hpp"

namespace sluice::sim {

class SimClock final : public Clock {
 public:
  /// Wall time starts on 2026-01-01 and moves with the monotonic time unless stepped.
  static constexpr std::int64_t kWallStartMs = 1767225600000;

  Instant now() noexcept override {
    return Instant(Duration(now_.load(std::memory_order_relaxed)));
  }
  WallTime wall() noexcept override {
    return WallTime(milliseconds(kWallStartMs + wall_offset_ms_.load(std::memory_order_relaxed) +
                                 now_.load(std::memory_order_relaxed) / 1'000'000));
  }
  void advance(Duration by) noexcept { now_.fetch_add(by.count(), std::memory_order_relaxed); }
  /// Never backwards: an instant in the past changes nothing.
  void advance_to(Instant at) noexcept {
    if (at > now()) now_.store(at.time_since_epoch().count(), std::memory_order_relaxed);
  }
  /// What an administrator or NTP does: wall time jumps, monotonic time does not.
  void step_wall(milliseconds by) noexcept { wall_offset_ms_.fetch_add(by.count()); }

 private:
  std::atomic<std::int64_t> now_{1'000'000'000};
  std::atomic<std::int64_t> wall_offset_ms_{0};
};

}  // namespace sluice::sim
