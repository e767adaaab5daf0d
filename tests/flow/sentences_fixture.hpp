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
  FlowOptions keyed(store::Store& on, idempotency::Keys& with) {
    FlowOptions options;
    options.store = &on;
    options.keys = &with;
    options.key = [](const Exchange&) { return std::optional<std::string>("k"); };
    options.key_policy.wait = false;
    return options;
  }
  std::size_t open() { return store::ask_now(*store, store::ListOpen{})->size(); }
};

}  // namespace sluice::flow
