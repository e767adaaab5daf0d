// Someone in a bulkhead's queue. It is a block of its own and not part of the waiting coroutine:
// once granted it is on its way through the lane, and the coroutine may be gone before it arrives.
#pragma once
#include "sluice/resilience/bulkhead.hpp"

namespace sluice::resilience {

struct Bulkhead::Waiter : Job {
  static void* operator new(std::size_t size) { return allocate_frame(size); }
  static void operator delete(void* waiter, std::size_t size) noexcept { free_frame(waiter, size); }
  Bulkhead* bulkhead = nullptr;
  BulkheadTurn* turn = nullptr;  // on the lane only; null: nobody waits any more
  Lane* lane = nullptr;
  std::uint8_t partition = 0;
  Priority priority = Priority::normal;
  bool queued = false;  // under the lock
  Waiter* older = nullptr;
  Waiter* newer = nullptr;
};

}  // namespace sluice::resilience
