// The durable mark of a stream that can be resumed: how far it is done, and what it came to so far.
// Which messages past the mark had their effect, their idempotency keys say: each completes in the
// same Commit as the effect. So the mark may lag behind, and never runs ahead.
#pragma once
#include <string>

#include "sluice/base/task.hpp"
#include "sluice/store/store.hpp"
#include "sluice/stream/pipeline.hpp"

namespace sluice::stream {

/// What a stream came to up to `done`, in order of sequence.
struct Progress {
  std::uint64_t epoch = 0;
  std::uint64_t done = 0;
  std::uint64_t succeeded = 0, replayed = 0;
  std::array<std::uint64_t, kFailureClasses> failed{};
  std::vector<Fallen> first_failures;

  Bytes encode() const;
  /// Fails corrupt.
  static Result<Progress> decode(ByteView bytes);
};

/// Lane-only; `store` must be durable and outlive it.
class Ledger {
 public:
  Ledger(store::Store& store, store::KvKey row) : store_(store), row_(std::move(row)) {}

  /// Takes the stream over for this epoch, which must be higher than any before it: a connection that
  /// still works under an older one cannot move the mark any more. Fails ordering (`stale_epoch`).
  Task<Status> open(std::uint64_t epoch);
  /// The next message ran to its end. `failure`: null for a success.
  void advance(std::uint64_t sequence, FailureClass what, bool replayed, const Failure* failure,
               std::size_t max_failures);
  /// Makes the mark durable. One at a time. Fails ordering (`stale_epoch`) when another connection
  /// took the stream over.
  Task<Status> save();
  const Progress& progress() const noexcept { return progress_; }
  std::uint64_t unsaved() const noexcept { return progress_.done - saved_; }

 private:
  Task<Status> put();
  store::Store& store_;
  const store::KvKey row_;
  Progress progress_;
  std::uint64_t version_ = 0;
  std::uint64_t saved_ = 0;
};

}  // namespace sluice::stream
