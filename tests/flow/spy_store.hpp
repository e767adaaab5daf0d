// A store that passes everything on, and lets a test look at each Commit or act just before it.
#pragma once
#include <functional>

#include "support/forwarding_store.hpp"

namespace sluice::flow {

class SpyStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  /// Called with each Commit before it is passed on, counted from zero.
  std::function<void(int n, const store::Commit& commit)> before;
  int submitted = 0;
  int lost = -1;  ///< this one is never passed on, and nobody can say so: unknown_outcome
  bool lost_for_good = false;  ///< nor any after it

  void submit(store::PendingCommit& pending) override {
    if (const int n = submitted++; n == lost || (lost_for_good && lost >= 0 && n > lost)) {
      pending.outcome = fail(FailureKind::unknown_outcome, "", "lost");
      return pending.lane->post(pending);
    } else if (before) {
      before(n, pending.commit);
    }
    inner_.submit(pending);
  }
  int unreadable = 0, unreadable_journals = 0;  ///< so many queries fail
  bool ask(store::PendingQuery& pending) override {
    int& left = std::holds_alternative<store::ReadJournal>(pending.query) ? unreadable_journals : unreadable;
    if (left <= 0) return inner_.ask(pending);
    --left;
    pending.answer = fail(FailureKind::unavailable, "too_many_connections", "");
    return true;
  }
};

}  // namespace sluice::flow
