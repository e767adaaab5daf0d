// Wall time as the store has it: the ids of nodes on one database, whatever their clocks say, stand in the order of
// their audit rows, which are looked for by the time of the id, and their journals are kept equally long.
#pragma once
#include "sluice/store.hpp"

namespace sluice::server {

/// Thread-safe.
class StoreTime final : public Clock {
 public:
  /// Both must outlive it.
  StoreTime(Clock& clock, store::Store& store) noexcept : clock_(clock), store_(store) {}
  Instant now() noexcept override { return clock_.now(); }
  WallTime wall() noexcept override { return store_.now(); }

 private:
  Clock& clock_;
  store::Store& store_;
};

}  // namespace sluice::server
