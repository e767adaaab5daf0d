// How often the calling thread has allocated: for benches that claim not to.
#pragma once
#include <cstdint>

namespace sluice::bench {

/// Calls of operator new by this thread since it began; always 0 under sanitizers.
std::uint64_t allocations() noexcept;

}  // namespace sluice::bench
