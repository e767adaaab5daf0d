// A store that passes everything on, and lets a test look at each Commit or act just before it.
#pragma once
#include <functional>

#include "sluice/store/store.hpp"

namespace sluice::flow {

class SpyStore final : public store::Store {
 public:
  explicit SpyStore(store::Store& inner) : inner_(inner) {}
  /// Called with each Commit before it is passed on, counted from zero.
  std::function<void(int n, const store::Commit& commit)> before;
  int submitted = 0;
  int lost = -1;  ///< this one is never passed on, and nobody can say so: unknown_outcome

  void submit(store::PendingCommit& pending) override {
    if (const int n = submitted++; n == lost) {
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
  WallTime now() override { return inner_.now(); }
  std::uint64_t incarnation() const override { return inner_.incarnation(); }
  std::uint64_t largest_id() override { return inner_.largest_id(); }
  void set_expander(store::Expander* e) override { inner_.set_expander(e); }
  Result<store::PurgeResult> purge(milliseconds keep, std::size_t limit) override {
    return inner_.purge(keep, limit);
  }
  store::StoreStats stats() const override { return inner_.stats(); }
  Status health() override { return inner_.health(); }
  void close() override {}

 private:
  store::Store& inner_;
};

}  // namespace sluice::flow
