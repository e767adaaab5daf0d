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
  submit(std::move(rows));
}

void Registry::AuditLog::submit(std::vector<store::AuditRow> rows) {
  auto* batch = new Batch;
  batch->log = shared_from_this();
  batch->rows = rows.size();
  batch->commit.lazy = true;
  batch->commit.then.reserve(rows.size());
  for (auto& row : rows) batch->commit.then.emplace_back(store::AuditAppend{std::move(row)});
  // No lane: the row must not depend on a lane that may stop first.
  batch->run = [](Job* job) noexcept {
    std::unique_ptr<Batch> self(static_cast<Batch*>(job));
    const auto log = self->log;
    const bool durable = self->outcome.has_value();
    const std::size_t count = self->rows;  // the store may have moved the commit
    self.reset();
    log->written(durable, count);
  };
  store.submit(*batch);
}

void Registry::AuditLog::written(bool durable, std::size_t rows) {
  if (!durable) lost.fetch_add(rows, std::memory_order_relaxed);
  std::vector<store::AuditRow> next;
  {
    std::lock_guard lock(mutex);
    // After a failure what waits is given up too: the store is closed or full, and retrying from
    // its own callback would never end.
    if (!durable) {
      lost.fetch_add(waiting.size(), std::memory_order_relaxed);
      waiting.clear();
    }
    if (waiting.empty()) {
      busy = false;
      return;
    }
    next.swap(waiting);
  }
  submit(std::move(next));
}

}  // namespace sluice::rpc
