// A store that lives in memory: for tests, benches, and commands that are naturally idempotent.
#pragma once
#include <memory>

#include "sluice/base/random.hpp"
#include "sluice/store/store.hpp"

namespace sluice::store {

/// Evaluates each Commit on the submitting thread, under a lock, and answers through the lane (or
/// at once without one). Nothing outlives it. `clock` must outlive it; `random` draws the incarnation.
std::unique_ptr<Store> make_memory_store(Clock& clock, Random& random);

}  // namespace sluice::store
