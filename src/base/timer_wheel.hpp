// Hierarchical timing wheel: 6 levels of 64 slots, 1 ms ticks, O(1) arm and cancel.
// Idea: Varghese and Lauck, 1987. Timers farther than 2^36 ms wait in the last slot and are
// placed again when it comes round. Lane-only.
#pragma once
#include <array>
#include <cstdint>

#include "sluice/base/lane.hpp"

namespace sluice {

class TimerWheel {
 public:
  void insert(Timer& timer, std::uint64_t tick) noexcept;
  void remove(Timer& timer) noexcept;
  /// Moves time to `tick`; appends every due timer to the returned list (linked by next_).
  Timer* advance(std::uint64_t tick) noexcept;
  /// A tick not later than the earliest timer's; UINT64_MAX when empty.
  std::uint64_t next_tick() const noexcept;
  /// Forgets every timer, telling `forgotten` about each.
  template <class Forgotten>
  void clear(Forgotten forgotten) noexcept {
    for (auto& level : slots_)
      for (Timer*& head : level)
        while (head != nullptr) {
          Timer* const timer = head;
          remove(*timer);
          forgotten(*timer);
        }
  }
  std::uint64_t now() const noexcept { return now_; }
  void start_at(std::uint64_t tick) noexcept { now_ = tick; }

 private:
  static constexpr unsigned kLevels = 6;
  static constexpr unsigned kBits = 6;
  static constexpr unsigned kSlots = 1u << kBits;
  std::uint64_t now_ = 0;
  std::array<std::uint64_t, kLevels> used_{};  // bit per slot
  std::array<std::array<Timer*, kSlots>, kLevels> slots_{};
};

}  // namespace sluice
