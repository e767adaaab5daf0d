// A store that can stand still, as a frozen or locked database: what it is told and asked meanwhile waits, and is
// answered when it goes on.
#pragma once
#include <deque>

#include "support/forwarding_store.hpp"

namespace sluice::testing_support {

class SilentStore final : public ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  bool silent = false;
  bool fails = false;  ///< what waits fails when it goes on

  void submit(store::PendingCommit& pending) override {
    if (!silent) return inner_.submit(pending);
    commits_.push_back(&pending);
  }
  bool ask(store::PendingQuery& pending) override {
    if (!silent) return inner_.ask(pending);
    queries_.push_back(&pending);
    return false;
  }
  std::size_t waiting() const { return commits_.size() + queries_.size(); }
  void go_on() {
    silent = false;
    for (auto* query : std::exchange(queries_, {})) {
      if (inner_.ask(*query)) query->lane != nullptr ? query->lane->post(*query) : query->run(query);
    }
    for (auto* commit : std::exchange(commits_, {})) {
      if (!fails) {
        inner_.submit(*commit);
        continue;
      }
      commit->outcome = fail(FailureKind::unavailable, "store_locked", "");
      commit->lane->post(*commit);
    }
  }

 private:
  std::deque<store::PendingCommit*> commits_;
  std::deque<store::PendingQuery*> queries_;
};

}  // namespace sluice::testing_support
