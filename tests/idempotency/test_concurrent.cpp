// Many threads, one key: exactly one run, everyone else the same bytes.
#include <array>
#include <atomic>

#include "idempotency/keys_fixture.hpp"

namespace sluice::idempotency {
namespace {

constexpr std::size_t kThreads = 4;
constexpr std::size_t kPerThread = 250;

SLUICE_KEYS_SUITE(KeyRace);

/// One of the thousand; the one that runs decides at once, on its own lane.
struct Racer : PendingClaim {
  Keys* keys = nullptr;
  store::Store* store = nullptr;
  std::atomic<int>* runs = nullptr;
  std::atomic<int>* left = nullptr;
  Parker* done = nullptr;
  Bytes got;
  Bytes own;
  store::PendingCommit commit;

  static Racer* of(Job* job) { return static_cast<Racer*>(static_cast<PendingClaim*>(job)); }
  static void begin(Job* job) noexcept {
    Racer* self = of(job);
    self->run = [](Job* answered) noexcept { of(answered)->answered(); };
    if (self->keys->claim(*self)) self->answered();
  }
  void answered() {
    if (auto* replay = std::get_if<Replay>(&*answer)) return end(replay->cached->reply);
    runs->fetch_add(1);
    auto& claim = std::get<idempotency::Run>(*answer).claim;
    if (store == nullptr) {
      claim.completed(own);
      return end(own);
    }
    claim.complete_in(commit.commit, own);
    commit.lane = lane;
    commit.run = [](Job* job) noexcept { committed(static_cast<store::PendingCommit*>(job)); };
    owner_of = this;
    store->submit(commit);
  }
  static void committed(store::PendingCommit*) noexcept {
    Racer* self = owner_of;
    EXPECT_TRUE(self->commit.outcome && self->commit.outcome->applied);
    std::get<idempotency::Run>(*self->answer).claim.completed(self->own);
    self->end(self->own);
  }
  void end(Bytes bytes) {
    got = std::move(bytes);
    if (left->fetch_sub(1) == 1) done->wake();
  }
  static inline Racer* owner_of = nullptr;  // there is one runner
};

TEST_P(KeyRace, IDEM_3_a_thousand_concurrent_claims_make_one_run) {
  std::atomic<int> runs{0};
  std::atomic<int> left{kThreads * kPerThread};
  Parker done;
  std::array<std::array<Racer, kPerThread>, kThreads> racers;
  std::array<std::unique_ptr<LaneThread>, kThreads> threads;
  for (std::size_t t = 0; t < kThreads; ++t) {
    threads[t] = std::make_unique<LaneThread>(rig.real, "racer");
    for (std::size_t i = 0; i < kPerThread; ++i) {
      Racer& racer = racers[t][i];
      racer.scope = "the one key";
      racer.fingerprint = print_of("same");
      racer.exchange = {t * kPerThread + i + 1};
      racer.lane = &threads[t]->lane();
      racer.run = &Racer::begin;
      racer.keys = keys.get();
      racer.store = store.get();
      racer.runs = &runs;
      racer.left = &left;
      racer.done = &done;
      racer.own = "reply of " + std::to_string(racer.exchange.value);
    }
  }
  for (std::size_t i = 0; i < kPerThread; ++i)
    for (std::size_t t = 0; t < kThreads; ++t) threads[t]->lane().post(racers[t][i]);
  for (auto& thread : threads) thread->start();
  ASSERT_TRUE(done.park(seconds(60)));
  for (auto& thread : threads) thread->stop();
  for (auto& thread : threads) thread->join();
  EXPECT_EQ(runs.load(), 1);
  for (const auto& of_thread : racers)
    for (const auto& racer : of_thread) EXPECT_EQ(racer.got, racers[0][0].got);
  EXPECT_EQ(keys->stats().running, 0u);
}

TEST_P(KeyRace, IDEM_10_of_two_nodes_one_wins_and_the_other_replays_it) {
  if (!store) GTEST_SKIP() << "two nodes share a store";
  const auto other = make_keys();
  auto here = request("k");
  auto there = request("k");
  auto claim_here = must_run(here);
  auto claim_there = must_run(there, other.get());
  auto waiting_there = request("k");
  ASSERT_FALSE(other->claim(waiting_there));
  decide(std::move(claim_here), "winner");
  decide(std::move(claim_there), "loser");
  lane.run_ready();
  EXPECT_EQ(waiting_there.replayed(), "winner");
  auto later = request("k");
  EXPECT_EQ(claim(later, other.get()).replayed(), "winner");
}

TEST_P(KeyRace, IDEM_10_a_finished_key_outlives_the_process) {
  if (!store) GTEST_SKIP() << "needs a store";
  auto first = request("k");
  decide(must_run(first), "r");
  keys = make_keys();
  auto again = request("k");
  EXPECT_EQ(claim(again).replayed(), "r");
  EXPECT_NE(keys->lookup("k"), nullptr);
  keys = make_keys();
  auto other_payload = request("k", "pay 6");
  EXPECT_NE(claim(other_payload).as<Mismatch>(), nullptr);
}

TEST_P(KeyRace, IDEM_10_a_durable_claim_holds_other_nodes_off) {
  if (!store) GTEST_SKIP() << "needs a store";
  auto first = request("k");
  auto held = must_run(first);
  store::Commit intent;
  held.claim_in(intent);
  const auto outcome = store::commit_and_wait(*store, std::move(intent));
  ASSERT_TRUE(outcome && outcome->applied);
  const auto row = store::ask_now(*store, store::FindKey{"k"});
  ASSERT_TRUE(row && *row);
  held.claimed((*row)->token);

  const auto other = make_keys();
  auto there = request("k");
  ASSERT_NE(claim(there, other.get()).as<InProgress>(), nullptr);
  EXPECT_EQ(there.as<InProgress>()->exchange, first.exchange);
  auto other_payload = request("k", "pay 6");
  EXPECT_NE(claim(other_payload, other.get()).as<Mismatch>(), nullptr);

  // The same exchange, recovered on the other node, carries on under its row.
  Request recovered("k", "pay 5", first.exchange.value, &lane);
  decide(must_run(recovered, other.get()), "settled");
  // The frozen first owner comes back with a token that no longer holds anything.
  decide(std::move(held), "too late");
  auto after = request("k");
  EXPECT_EQ(claim(after).replayed(), "settled");
}

}  // namespace
}  // namespace sluice::idempotency
