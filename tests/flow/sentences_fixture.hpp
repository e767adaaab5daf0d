// For sentences of the specification at their edges, where two of them meet: a store and keys of its own,
// a store that may die at a Commit, recovery and wake-ups.
#pragma once
#include <algorithm>

#include "flow_fixture.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::flow {
inline store::KvKey at(std::string key) { return {"app", "accounts", std::move(key)}; }

/// Hands Commits on; the k-th may be the end (dies: never answered) or be answered unknown_outcome.
class OddStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  int at = -1;
  bool applies = false;
  bool dies = false;
  bool dead = false;
  int seen = 0;
  void submit(store::PendingCommit& pending) override {
    if (dead) return;
    if (seen++ != at) return inner_.submit(pending);
    if (applies) (void)store::commit_and_wait(inner_, pending.commit);
    if (dies) {
      dead = true;
      return;
    }
    pending.outcome = fail(FailureKind::unknown_outcome, "", "lost");
    pending.lane->post(pending);
  }
};

class Sentences : public FlowTest {
 protected:
  ~Sentences() override {
    store->close();
    settle_lane();
  }
  std::unique_ptr<store::Store> store = testing_support::make_any_store(clock, random);
  std::unique_ptr<idempotency::Keys> keys = std::make_unique<idempotency::Keys>(clock, store.get());
  std::int64_t balance(const std::string& key) {
    auto rows = store::ask_now(*store, store::GetRows{{at(key)}});
    return rows->at(0) ? rows->at(0)->number : 0;
  }
  void deposit(const std::string& key, std::int64_t amount) {
    (void)store::commit_and_wait(*store, {.then = {store::KvAdd{at(key), amount}}});
  }
  void settle_lane() {
    while (lane.run_ready() != 0) {
    }
  }
  void advance(Duration by) {
    const Instant end = clock.now() + by;
    while (clock.now() < end) {
      if (lane.run_ready() != 0) continue;
      clock.advance_to(std::min(end, lane.next_timer()));
    }
    settle_lane();
  }
  FlowOptions keyed(store::Store& on, idempotency::Keys& with) {
    FlowOptions options;
    options.store = &on;
    options.keys = &with;
    options.key = [](const Exchange&) { return std::optional<std::string>("k"); };
    options.key_policy.wait = false;
    return options;
  }
  RecoveryProgress recover(Flow& flow) {
    Flows flows;
    flows.add(flow);
    Recovery recovery(*store, flows, lane);
    std::optional<Result<RecoveryProgress>> result;
    lane.post([&] { recovery.start([&](const Result<RecoveryProgress>& r) { result = r; }); });
    drive([&] { return result.has_value(); });
    settle_lane();
    return result && *result ? **result : RecoveryProgress{};
  }
  std::size_t open() { return store::ask_now(*store, store::ListOpen{})->size(); }
  Status wake(Flow& flow, std::string token, Bytes payload = "yes") {
    struct Asking : PendingWake {
      bool over = false;
    } asking;
    asking.ns = Namespace("app");
    asking.token = std::move(token);
    asking.payload = std::move(payload);
    asking.lane = &lane;
    asking.run = [](Job* job) noexcept { static_cast<Asking*>(static_cast<PendingWake*>(job))->over = true; };
    flow.wake(asking);
    drive([&] { return asking.over; });
    return asking.answer;
  }
  std::size_t count(std::string_view call) {
    return static_cast<std::size_t>(std::ranges::count(record.calls, call));
  }
};

}  // namespace sluice::flow
