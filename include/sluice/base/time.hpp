// Two kinds of time that are never compared: Instant (monotonic, for durations inside a node)
// and WallTime (what stores, TTLs and people use). Both come from an injected Clock.
#pragma once
#include <chrono>
#include <cstdint>

namespace sluice {

using Duration = std::chrono::nanoseconds;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

/// Tag of the monotonic time line. It has no now(): ask a Clock.
struct MonotonicLine {
  using rep = Duration::rep;
  using period = Duration::period;
  using duration = Duration;
};
using Instant = std::chrono::time_point<MonotonicLine, Duration>;
using WallTime = std::chrono::sys_time<milliseconds>;

inline constexpr Instant kNever = Instant::max();

/// Source of both times. Thread-safe. Real: base/runtime; virtual: sim.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Instant now() noexcept = 0;
  virtual WallTime wall() noexcept = 0;
  /// The same, up to a kernel tick (4 ms) late, at a quarter of the cost: for ids.
  virtual WallTime coarse_wall() noexcept { return wall(); }
};

}  // namespace sluice
