// A database apart: it outlives the process, and the wire to it loses requests and answers. What is
// on the wire when the process dies arrives before the next one begins, or never: a node that was
// taken over writes no more.
//
// Fault sites: database.down (refused, nothing written), database.request_lost, database.answer_lost
// (both are an unknown outcome), database.unreadable (a query fails).
#pragma once
#include <memory>

#include "simulate/spine.hpp"

namespace sluice::simulate {

/// One process's connection to World::database.
class DatabaseLink final : public store::Store {
 public:
  explicit DatabaseLink(World& world);
  ~DatabaseLink() override { close(); }

  void submit(store::PendingCommit& pending) override;
  bool ask(store::PendingQuery& pending) override;
  WallTime now() override { return database_.now(); }
  std::uint64_t incarnation() const override { return database_.incarnation(); }
  std::uint64_t largest_id() override { return database_.largest_id(); }
  void set_expander(store::Expander* expander) override { database_.set_expander(expander); }
  Result<store::PurgeResult> purge(milliseconds keep, std::size_t limit) override { return database_.purge(keep, limit); }
  store::StoreStats stats() const override { return database_.stats(); }
  Status health() override { return {}; }
  void close() override;

 private:
  struct Flight;
  struct Wire;
  Duration latency();
  void answer_after(Duration time, std::shared_ptr<Flight> flight, Result<store::CommitOutcome> outcome);

  World& world_;
  store::Store& database_;
  sim::SimRandom random_;
  Instant last_arrival_{};  // one connection: nothing overtakes
  std::shared_ptr<Wire> wire_;
};

}  // namespace sluice::simulate
