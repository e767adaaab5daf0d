#include "server/purger.hpp"

namespace sluice::server {

namespace {
Counter& rows(Metrics& metrics, const char* table) {
  return metrics.counter("sluice_purge_rows_total", "Rows deleted because of their age, by table",
                         {{"table", table}});
}
}  // namespace

Purger::Purger(store::Store& store, Backroom& backroom, Lane& lane, PurgeOptions options,
               Metrics& metrics, Logger& logger)
    : store_(store),
      backroom_(backroom),
      lane_(lane),
      options_(options),
      logger_(logger),
      batches_(metrics.counter("sluice_purge_batches_total", "Batches of the purge that ended")),
      failures_(metrics.counter("sluice_purge_failures_total", "Batches of the purge that failed")),
      keys_(rows(metrics, "keys")),
      journal_(rows(metrics, "journal")),
      audit_(rows(metrics, "audit")),
      events_(rows(metrics, "events")),
      marks_(rows(metrics, "streams")) {}

Status Purger::start() {
  lane_.post([this] { arm(options_.interval); });
  return {};
}

void Purger::arm(milliseconds after) {
  if (stopping()) return;
  timer_.arm(
      lane_, lane_.clock().now() + after,
      [](void* self) noexcept { static_cast<Purger*>(self)->fire(); }, this);
}

void Purger::fire() noexcept {
  if (stopping()) return;
  running_.store(true, std::memory_order_release);
  const auto taken = backroom_.submit([this] {
    auto result = purge();
    lane_.post([this, result = std::move(result)] { done(result); });
  });
  // A full backroom is busy with people's questions: what is old can wait for the next turn.
  if (!taken) done(fail(taken.error()));
}

// In the backroom.
Result<Purger::Purged> Purger::purge() {
  Purged out;
  SLUICE_ASSIGN(out.rows, store_.purge(options_.retention, options_.batch));
  SLUICE_ASSIGN(out.marks, stream::purge_marks(store_, marks_after_, options_.batch));
  return out;
}

void Purger::done(const Result<Purged>& result) {
  batches_.add();
  bool more = false;
  if (result) {
    keys_.add(result->rows.keys);
    journal_.add(result->rows.journal);
    audit_.add(result->rows.audit);
    events_.add(result->rows.events);
    marks_.add(result->marks.deleted);
    marks_after_ = result->marks.next;
    more = result->rows.more || !marks_after_.empty();
  } else {
    failures_.add();
    logger_.warn("purging the store failed; it is tried again after store.purge_interval_ms",
                 {{"failure", result.error().to_string()}});
  }
  running_.store(false, std::memory_order_release);
  arm(more ? std::min(kPause, options_.interval) : options_.interval);
}

}  // namespace sluice::server
