// The durable mark of a stream that can be resumed: how far it is done, and what it came to so far.
// Which messages past the mark had their effect, their idempotency keys say: each completes in the
// same Commit as the effect. Which of them failed and left nothing under their key, the mark says. So it
// may lag behind, and never runs ahead.
#pragma once
#include <limits>
#include <map>
#include <string>

#include "sluice/base/task.hpp"
#include "sluice/store/store.hpp"
#include "sluice/stream/pipeline.hpp"

namespace sluice::stream {

/// The keys of messages past the mark must be kept this long; a day less is how long after it last moved
/// a stream may come again.
inline constexpr milliseconds kKeysKept = std::chrono::hours(24 * 7);
inline constexpr milliseconds kResumableFor = std::chrono::hours(24 * 6);
/// Then the mark itself may go: the same messages under the same id would run again.
inline constexpr milliseconds kMarksKept = std::chrono::hours(24 * 90);

/// Namespace and collection of the marks' rows.
inline constexpr std::string_view kMarksApp = "sluice";
inline constexpr std::string_view kMarks = "streams";

/// Detail of a refusal as `stale_epoch`: the epoch that the stream is at, where that is known.
inline constexpr std::string_view kHeldEpoch = "held_epoch";

/// What a stream came to up to `done`, in order of sequence.
struct Progress {
  static constexpr std::uint64_t kUnknown = std::numeric_limits<std::uint64_t>::max();

  std::uint64_t epoch = 0;
  std::uint64_t done = 0;
  std::uint64_t succeeded = 0, replayed = 0;
  std::array<std::uint64_t, kFailureClasses> failed{};
  std::vector<Fallen> first_failures;
  /// Nothing past it has ever run. kUnknown while a connection is open, and after a crash.
  std::uint64_t reach = kUnknown;
  WallTime moved_at{};  ///< when `done` last changed, or the stream began; the store's clock
  /// Past `done`, failed for good, by sequence; with their text as far as first_failures may be long.
  std::map<std::uint64_t, Fallen> failed_ahead;

  Bytes encode() const;
  /// Fails corrupt.
  static Result<Progress> decode(ByteView bytes);
};

struct PurgedMarks {
  std::size_t deleted = 0;
  std::string next;  ///< where the next call goes on; empty: all were looked at
};
/// Looks at `limit` marks behind `after` and deletes those that have not moved for kMarksKept. Blocks on
/// the store: never on a lane. Fails as the store does; a mark that does not read back stays.
Result<PurgedMarks> purge_marks(store::Store& store, const std::string& after, std::size_t limit);

/// Lane-only; `store` must be durable and outlive it.
class Ledger {
 public:
  Ledger(store::Store& store, store::KvKey row) : store_(store), row_(std::move(row)) {}

  /// Takes the stream over for this epoch, which must be higher than any before it: a connection that
  /// still works under an older one cannot move the mark any more. Fails ordering (`stale_epoch`), or
  /// precondition_failed (`stream_too_old`): messages past the mark may have had their effect, and the
  /// keys that would say so are gone.
  Task<Status> open(std::uint64_t epoch);
  /// The next message ran to its end. `failure`: null for a success.
  void advance(std::uint64_t sequence, FailureClass what, bool replayed, const Failure* failure,
               std::size_t max_failures);
  /// This message past the mark failed, and nothing else says so: durable with the next save().
  void fail_ahead(Fallen fallen, std::size_t max_failures);
  /// Null: nothing is known of this message; it may run.
  const Fallen* failed_ahead(std::uint64_t sequence) const;
  /// The connection is over: nothing past `reach` ever ran under it.
  void close(std::uint64_t reach) noexcept;
  /// Makes the mark durable, as it is at this call. One at a time. Fails ordering (`stale_epoch`) when
  /// another connection took the stream over.
  Task<Status> save();
  const Progress& progress() const noexcept { return progress_; }
  std::uint64_t unsaved() const noexcept { return progress_.done - saved_; }
  bool changed() const noexcept { return changed_; }

 private:
  Task<Status> put();
  store::Store& store_;
  const store::KvKey row_;
  Progress progress_;
  std::uint64_t version_ = 0;
  std::uint64_t saved_ = 0;
  std::uint64_t reach_before_ = 0;  // of the connections before
  bool changed_ = false;            // since the last save began
};

}  // namespace sluice::stream
