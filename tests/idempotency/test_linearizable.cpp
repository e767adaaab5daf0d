// Concurrent histories of claims on a few keys must be explainable by some order of one claim
// after another: the register "reply of the key", set once, never changing.
//
// Method: each operation is stamped at its call and at its return from one counter. A history is
// linearizable if per key every completed reply is the only one, no replay was returned before its
// run was called, and no operation that began after a completion returned still ran the command
// (a run that is released leaves no trace). For a write-once register these are all conditions.
#include <array>
#include <atomic>
#include <map>

#include "idempotency/keys_fixture.hpp"
#include "sim/random.hpp"

namespace sluice::idempotency {
namespace {

struct Operation {
  enum class Kind { completed, released, replayed } kind = Kind::released;
  std::string key;
  Bytes value;
  std::uint64_t called = 0, returned = 0;
};

/// What is wrong with the history, or nothing.
std::string fault_in(const std::vector<Operation>& history) {
  std::map<std::string, const Operation*> completed;
  for (const auto& op : history) {
    if (op.kind != Operation::Kind::completed) continue;
    if (!completed.emplace(op.key, &op).second) return "two runs completed " + op.key;
  }
  for (const auto& op : history) {
    const auto found = completed.find(op.key);
    const Operation* run = found == completed.end() ? nullptr : found->second;
    if (op.kind == Operation::Kind::replayed) {
      if (run == nullptr) return op.key + " was replayed and never completed";
      if (run->value != op.value) return op.key + " was replayed with other bytes";
      if (op.returned < run->called) return op.key + " was replayed before it ran";
    } else if (run != nullptr && &op != run && run->returned < op.called) {
      return op.key + " ran again after it had completed";
    }
  }
  return {};
}

TEST(ClaimHistories, PROOF_4_the_checker_finds_planted_faults) {
  using Kind = Operation::Kind;
  EXPECT_EQ(fault_in({{Kind::completed, "k", "a", 1, 4}, {Kind::replayed, "k", "a", 2, 5}}), "");
  EXPECT_EQ(fault_in({{Kind::released, "k", "", 1, 2}, {Kind::completed, "k", "a", 3, 4}}), "");
  EXPECT_NE(fault_in({{Kind::completed, "k", "a", 1, 2}, {Kind::completed, "k", "b", 3, 4}}), "");
  EXPECT_NE(fault_in({{Kind::completed, "k", "a", 1, 2}, {Kind::replayed, "k", "b", 3, 4}}), "");
  EXPECT_NE(fault_in({{Kind::completed, "k", "a", 3, 4}, {Kind::replayed, "k", "a", 1, 2}}), "");
  EXPECT_NE(fault_in({{Kind::completed, "k", "a", 1, 2}, {Kind::released, "k", "", 3, 4}}), "");
  EXPECT_NE(fault_in({{Kind::replayed, "k", "a", 1, 2}}), "");
}

SLUICE_KEYS_SUITE(ClaimRace);

struct Client : PendingClaim {
  Keys* keys = nullptr;
  store::Store* store = nullptr;
  std::atomic<std::uint64_t>* ticks = nullptr;
  std::atomic<int>* left = nullptr;
  Parker* done = nullptr;
  sim::SimRandom random{0};
  int rounds = 0;
  std::uint64_t id = 0;
  Operation now;
  std::vector<Operation> history;

  static Client* of(Job* job) { return static_cast<Client*>(static_cast<PendingClaim*>(job)); }
  static void begin(Job* job) noexcept {
    Client* self = of(job);
    self->now = {};
    self->now.key = "key" + std::to_string(self->rounds / 3);
    self->scope = self->now.key;
    self->exchange = {++self->id};
    self->run = [](Job* answered) noexcept { of(answered)->answered(); };
    self->now.called = self->ticks->fetch_add(1);
    if (self->keys->claim(*self)) self->answered();
  }
  void answered() {
    if (auto* replay = std::get_if<Replay>(&*answer)) {
      now.kind = Operation::Kind::replayed;
      now.value = replay->cached->reply;
      return end();
    }
    Claim claim = std::move(std::get<idempotency::Run>(*answer).claim);
    if (random.one_in(2)) {
      claim.release();
      now.kind = Operation::Kind::released;
      return end();
    }
    now.value = "by " + std::to_string(exchange.value);
    now.kind = Operation::Kind::completed;
    if (store != nullptr) {
      store::Commit decision;
      claim.complete_in(decision, now.value);
      const auto outcome = store::commit_and_wait(*store, std::move(decision));
      EXPECT_TRUE(outcome && outcome->applied);
    }
    claim.completed(now.value);
    end();
  }
  void end() {
    now.returned = ticks->fetch_add(1);
    history.push_back(std::move(now));
    if (++rounds < 90) {
      run = &Client::begin;
      return lane->post(*this);
    }
    if (left->fetch_sub(1) == 1) done->wake();
  }
};

TEST_P(ClaimRace, PROOF_4_concurrent_claim_histories_are_linearizable) {
  constexpr std::size_t kClients = 4;
  std::atomic<std::uint64_t> ticks{1};
  std::atomic<int> left{kClients};
  Parker done;
  std::array<Client, kClients> clients;
  std::array<std::unique_ptr<LaneThread>, kClients> threads;
  for (std::size_t i = 0; i < kClients; ++i) {
    threads[i] = std::make_unique<LaneThread>(rig.real, "client");
    Client& c = clients[i];
    c.keys = keys.get();
    c.store = store.get();
    c.ticks = &ticks;
    c.left = &left;
    c.done = &done;
    c.random = sim::SimRandom(i + 1);
    c.id = (i + 1) * 1000;
    c.fingerprint = print_of("same");
    c.lane = &threads[i]->lane();
    c.run = &Client::begin;
    c.lane->post(c);
  }
  for (auto& thread : threads) thread->start();
  ASSERT_TRUE(done.park(seconds(60)));
  for (auto& thread : threads) thread->stop();
  for (auto& thread : threads) thread->join();
  std::vector<Operation> history;
  for (auto& c : clients) history.insert(history.end(), c.history.begin(), c.history.end());
  EXPECT_EQ(history.size(), kClients * 90);
  EXPECT_EQ(fault_in(history), "");
}

}  // namespace
}  // namespace sluice::idempotency
