// Deletes what has outlived its use from the store: a bounded batch at a time, so that neither the
// commits nor the operators' questions behind it wait long.
#pragma once
#include <atomic>

#include "server/backroom.hpp"

#include "sluice/base/lifecycle.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/server/config.hpp"
#include "sluice/store/store.hpp"
#include "sluice/stream/ledger.hpp"

namespace sluice::server {

/// A timer on `lane`; the store is called in the backroom. One batch at a time; after a batch that
/// left something the next one follows after kPause, otherwise after the interval. Everything given
/// must outlive it, and the lane's thread must have ended before it is destroyed.
class Purger final : public Component {
 public:
  static constexpr milliseconds kPause{20};  // commits pass between two batches

  Purger(store::Store& store, Backroom& backroom, Lane& lane, PurgeOptions options,
         Metrics& metrics, Logger& logger);

  std::string_view name() const noexcept override { return "purger"; }
  /// The first batch runs one interval after this.
  Status start() override;
  /// No batch begins after this; one that runs goes on to its end.
  void drain() noexcept override { stopping_.store(true, std::memory_order_release); }
  bool drained() noexcept override { return !running_.load(std::memory_order_acquire); }
  void cancel() noexcept override { drain(); }
  void stop() noexcept override { drain(); }

 private:
  void arm(milliseconds after);
  void fire() noexcept;
  struct Purged {
    store::PurgeResult rows;
    stream::PurgedMarks marks;
  };
  Result<Purged> purge();
  void done(const Result<Purged>& result);
  bool stopping() const noexcept { return stopping_.load(std::memory_order_acquire); }

  store::Store& store_;
  Backroom& backroom_;
  Lane& lane_;
  PurgeOptions options_;
  Logger& logger_;
  Counter& batches_;
  Counter& failures_;
  Counter& keys_;
  Counter& journal_;
  Counter& audit_;
  Counter& events_;
  Counter& marks_;
  std::string marks_after_;  // of the batch that runs or comes next
  std::atomic<bool> stopping_{false};
  std::atomic<bool> running_{false};
  Timer timer_;  // lane-only
};

}  // namespace sluice::server
