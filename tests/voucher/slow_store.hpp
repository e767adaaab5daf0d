// A store whose answers come when the test says so, as those of a database that stands still.
#pragma once
#include <utility>
#include <vector>

#include "support/forwarding_store.hpp"

namespace sluice::voucher {

class SlowStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  void submit(store::PendingCommit& pending) override {
    if ((holding || hold_commits) && pending.lane != nullptr)
      commits.push_back(&pending);
    else
      inner_.submit(pending);
  }
  bool ask(store::PendingQuery& pending) override {
    if (!holding) return inner_.ask(pending);
    // Who names no lane stands still itself until the answer is there; but for the keys, whose answer is taken
    // where it comes.
    if (pending.lane == nullptr && !std::holds_alternative<store::FindKey>(pending.query)) {
      ++blocked;
      return inner_.ask(pending);
    }
    queries.push_back(&pending);
    return false;
  }
  /// What was held so far; what is asked next is held again.
  void answer() {
    for (auto* pending : std::exchange(commits, {})) inner_.submit(*pending);
    for (auto* pending : std::exchange(queries, {}))
      if (inner_.ask(*pending)) pending->lane != nullptr ? pending->lane->post(*pending) : pending->run(pending);
  }
  void let_go() {
    holding = false;
    answer();
  }
  bool holding = false, hold_commits = false;
  int blocked = 0;
  std::vector<store::PendingCommit*> commits;
  std::vector<store::PendingQuery*> queries;
};

}  // namespace sluice::voucher
