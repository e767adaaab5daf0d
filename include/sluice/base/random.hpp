// Injected randomness. Real: the operating system seeds a fast generator; sim: a fixed seed.
#pragma once
#include <cstddef>
#include <cstdint>

namespace sluice {

__extension__ typedef unsigned __int128 Uint128;  // GCC calls it an extension, -Wpedantic objects

/// Thread-safe. next() is for jitter and sampling; secret() is for tokens and must be
/// unpredictable in the real runtime.
class Random {
 public:
  virtual ~Random() = default;
  virtual std::uint64_t next() noexcept = 0;
  virtual void secret(std::byte* out, std::size_t size) noexcept = 0;
  /// Uniform in [0, bound); bound 0 yields 0.
  std::uint64_t below(std::uint64_t bound) noexcept {
    if (bound == 0) return 0;
    return static_cast<std::uint64_t>((static_cast<Uint128>(next()) * bound) >> 64);
  }
  /// Uniform in [0, 1).
  double unit() noexcept { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
};

}  // namespace sluice
