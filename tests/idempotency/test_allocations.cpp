// A replay costs no allocation: a storm of duplicates is no storm of the heap.
#include "bench/allocations.hpp"
#include "idempotency/keys_fixture.hpp"

namespace sluice::idempotency {
namespace {

TEST(KeyCost, IDEM_9_a_replay_allocates_nothing) {
  const auto before_probe = bench::allocations();
  ::operator delete(::operator new(1));  // not a new-expression: those may be optimized away
  if (bench::allocations() == before_probe) GTEST_SKIP() << "sanitizers count for themselves";
  sim::SimClock clock;
  Lane lane{clock};
  Keys keys(clock, nullptr);
  const std::string key(100, 'k');  // no short string
  Request first(key, "p", 1, &lane);
  ASSERT_TRUE(keys.claim(first));
  first.as<idempotency::Run>()->claim.completed(Bytes(5000, 'r'));
  Request again(key, "p", 2, &lane);
  Request other(key, "another body", 3, &lane);
  ASSERT_TRUE(keys.claim(again));  // what is made once is made
  std::size_t replays = 0, found = 0, mismatches = 0;
  const auto before = bench::allocations();
  for (int i = 0; i < 1000; ++i) {
    replays += keys.claim(again) && again.as<Replay>() != nullptr ? 1 : 0;
    mismatches += keys.claim(other) && other.as<Mismatch>() != nullptr ? 1 : 0;
    found += keys.lookup(key) != nullptr ? 1 : 0;
  }
  EXPECT_EQ(bench::allocations(), before);
  EXPECT_EQ(replays, 1000u);
  EXPECT_EQ(mismatches, 1000u);
  EXPECT_EQ(found, 1000u);
}

}  // namespace
}  // namespace sluice::idempotency
