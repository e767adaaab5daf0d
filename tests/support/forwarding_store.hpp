// A store that passes everything on to another: what a test wants otherwise, it overrides. Closing the
// other is its owner's business.
#pragma once
#include "sluice/store/store.hpp"

namespace sluice::testing_support {

class ForwardingStore : public store::Store {
 public:
  explicit ForwardingStore(store::Store& inner) : inner_(inner) {}
  void submit(store::PendingCommit& pending) override { inner_.submit(pending); }
  bool ask(store::PendingQuery& pending) override { return inner_.ask(pending); }
  WallTime now() override { return inner_.now(); }
  std::uint64_t incarnation() const override { return inner_.incarnation(); }
  std::uint64_t largest_id() override { return inner_.largest_id(); }
  void set_expander(store::Expander* e) override { inner_.set_expander(e); }
  Result<store::PurgeResult> purge(milliseconds keep, std::size_t limit) override { return inner_.purge(keep, limit); }
  store::StoreStats stats() const override { return inner_.stats(); }
  Status health() override { return inner_.health(); }
  void close() override {}

 protected:
  store::Store& inner_;
};

}  // namespace sluice::testing_support
