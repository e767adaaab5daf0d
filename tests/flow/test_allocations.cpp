// What an in-memory transaction costs in allocations. Its own operator new counts them; the
// sanitizers keep theirs.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "sluice/base/runtime.hpp"
#include "sluice/flow.hpp"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLUICE_COUNTS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLUICE_COUNTS 0
#endif
#endif
#ifndef SLUICE_COUNTS
#define SLUICE_COUNTS 1
#endif

#if SLUICE_COUNTS
namespace {
thread_local std::size_t allocations = 0;
}
void* operator new(std::size_t size) {
  ++allocations;
  if (void* at = std::malloc(size)) return at;
  throw std::bad_alloc();
}
void operator delete(void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }

namespace sluice::flow {
namespace {

class Touch final : public Stage {
 public:
  std::string_view name() const noexcept override { return "touch"; }
  bool has_commit() const noexcept override { return true; }
};

TEST(FlowCost, FLOW_3_four_synchronous_stages_cost_one_allocation_the_exchange) {
  RealClock clock;
  Lane lane(clock);
  IdSource ids(clock, 1);
  Flow flow("cost");
  const auto touch = std::make_shared<Touch>();
  flow.group("main", {touch, touch, touch, touch});
  const Namespace ns("app");
  std::size_t committed = 0;
  const auto run = [&] {
    RunOptions options;
    options.lane = &lane;
    flow.run(std::make_shared<Exchange>(ids.exchange(), ns, Bytes()), std::move(options),
             [](void* count, Outcome outcome) noexcept {
               *static_cast<std::size_t*>(count) += outcome.kind == OutcomeKind::committed ? 1 : 0;
             },
             &committed);
  };
  run();  // the frame allocator keeps what the first one took
  const std::size_t before = allocations;
  for (int i = 0; i < 100; ++i) run();
  EXPECT_EQ(allocations - before, 100u);
  EXPECT_EQ(committed, 101u);
}

}  // namespace
}  // namespace sluice::flow
#endif
