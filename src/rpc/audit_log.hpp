// Audit rows of denials and replays: buffered, one lazy commit at a time. What waits is bounded;
// what is over is counted. Shared by the commit on its way, so the registry may go first.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "sluice/rpc/registry.hpp"

namespace sluice::rpc {

struct Registry::AuditLog : std::enable_shared_from_this<Registry::AuditLog> {
  AuditLog(store::Store& s, std::size_t max) : store(s), max_waiting(max) {}

  void add(store::AuditRow row);
  std::atomic<std::uint64_t> lost{0};

 private:
  struct Batch : store::PendingCommit {
    std::shared_ptr<AuditLog> log;
    std::size_t rows = 0;
    /// Of submit() and the answer, the second to come goes on: a store that answers at once must not
    /// let the log call itself deeper and deeper.
    std::shared_ptr<std::atomic<bool>> first = std::make_shared<std::atomic<bool>>(true);
  };
  void drain(std::vector<store::AuditRow> rows);
  bool submit(std::vector<store::AuditRow> rows);
  void written(bool durable, std::size_t rows);
  bool take(std::vector<store::AuditRow>& next);
  store::Store& store;
  const std::size_t max_waiting;
  std::mutex mutex;
  bool busy = false;  // a batch is on its way
  std::vector<store::AuditRow> waiting;
};

}  // namespace sluice::rpc
