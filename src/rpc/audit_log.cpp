#include "rpc/audit_log.hpp"

namespace sluice::rpc {

void Registry::AuditLog::add(store::AuditRow row) {
  {
    std::lock_guard lock(mutex);
    if (busy) {
      if (waiting.size() >= max_waiting)
        lost.fetch_add(1, std::memory_order_relaxed);
      else
        waiting.push_back(std::move(row));
      return;
    }
    busy = true;
  }
  std::vector<store::AuditRow> rows;
  rows.push_back(std::move(row));
  drain(std::move(rows));
}

// Until a batch is on its way that is answered later, or nothing waits.
void Registry::AuditLog::drain(std::vector<store::AuditRow> rows) {
  while (submit(std::move(rows)))
    if (!take(rows)) return;
}

// True: it has been answered already, and the caller goes on.
bool Registry::AuditLog::submit(std::vector<store::AuditRow> rows) {
  auto* batch = new Batch;
  const auto first = batch->first;
  batch->log = shared_from_this();
  batch->rows = rows.size();
  batch->commit.lazy = true;
  batch->commit.then.reserve(rows.size());
  for (auto& row : rows) batch->commit.then.emplace_back(store::AuditAppend{std::move(row)});
  // No lane: the row must not depend on a lane that may stop first.
  batch->run = [](Job* job) noexcept {
    std::unique_ptr<Batch> self(static_cast<Batch*>(job));
    const auto log = self->log;
    const auto turn = self->first;
    const bool durable = self->outcome.has_value();
    const std::size_t count = self->rows;  // the store may have moved the commit
    self.reset();
    log->written(durable, count);
    if (turn->exchange(false)) return;  // submit() is still on its way back: it goes on
    std::vector<store::AuditRow> next;
    if (log->take(next)) log->drain(std::move(next));
  };
  store.submit(*batch);
  return !first->exchange(false);
}

void Registry::AuditLog::written(bool durable, std::size_t rows) {
  if (durable) return;
  lost.fetch_add(rows, std::memory_order_relaxed);
  // After a failure what waits is given up too: the store is closed or full, and retrying from its
  // own callback would never end.
  const std::lock_guard lock(mutex);
  lost.fetch_add(waiting.size(), std::memory_order_relaxed);
  waiting.clear();
}

// What waits, as the next batch. False: nothing does, and no batch is on its way any more.
bool Registry::AuditLog::take(std::vector<store::AuditRow>& next) {
  next.clear();
  const std::lock_guard lock(mutex);
  busy = !waiting.empty();
  next.swap(waiting);
  return busy;
}

}  // namespace sluice::rpc
