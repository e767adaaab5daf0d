// Seeded randomness: the same seed gives the same numbers on every machine. Not thread-safe.
#pragma once
#include "sluice/base/random.hpp"

namespace sluice::sim {

// SplitMix64 (Steele, Lea, Flood, 2014): any seed is good, one addition per step.
class SimRandom final : public Random {
 public:
  explicit SimRandom(std::uint64_t seed) noexcept : state_(seed) {}
  std::uint64_t next() noexcept override {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  void secret(std::byte* out, std::size_t size) noexcept override {
    for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(next());
  }
  /// True once in `in` times on average.
  bool one_in(std::uint64_t in) noexcept { return below(in) == 0; }
  /// An independent generator: what one part draws does not shift what another draws.
  SimRandom fork() noexcept { return SimRandom(next()); }

 private:
  std::uint64_t state_;
};

}  // namespace sluice::sim
