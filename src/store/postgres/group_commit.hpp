// Takes what waits, evaluates it against rows fetched in one round trip, writes the net result and
// commits in a second one. No lock is held between the two: what was read is checked by the database
// while it writes, and a group that lost to another node is evaluated again, then alone.
// A COMMIT whose answer was lost is settled by asking the database before anything is said.
#pragma once
#include <atomic>
#include <functional>
#include <mutex>

#include "store/commit_queue.hpp"
#include "store/group_evaluator.hpp"
#include "store/postgres/loader.hpp"
#include "store/postgres/membership.hpp"

namespace sluice::store {

/// The database's clock, carried forward by the node's monotonic one. Thread-safe.
class StoreClock {
 public:
  /// `fixed` decides instead when it is not null.
  StoreClock(Clock& clock, Clock* fixed) noexcept : clock_(clock), fixed_(fixed) {}
  WallTime now() noexcept {
    if (fixed_ != nullptr) return fixed_->wall();
    return WallTime(std::chrono::floor<milliseconds>(clock_.now().time_since_epoch()) +
                    milliseconds(offset_ms_.load(std::memory_order_relaxed)));
  }
  void told(WallTime database) noexcept {
    offset_ms_.store((database.time_since_epoch() - std::chrono::floor<milliseconds>(clock_.now().time_since_epoch())).count(),
                     std::memory_order_relaxed);
  }
  bool fixed() const noexcept { return fixed_ != nullptr; }

 private:
  Clock& clock_;
  Clock* const fixed_;
  std::atomic<std::int64_t> offset_ms_{0};
};

class PgGroupCommit {
 public:
  PgGroupCommit(const PostgresOptions& options, Clock& clock, StoreClock& store_clock, std::uint64_t writer,
                std::uint64_t incarnation)
      : options_(options), clock_(clock), store_clock_(store_clock), writer_(stored_id(writer)), queue_(options.max_queue),
        evaluator_(loader_, incarnation) {}

  /// Before the first step: takes over the connection that opened the store.
  Status start(std::unique_ptr<PgConnection> connection);
  /// Thread-safe. True: the writer must be woken.
  bool submit(PendingCommit& pending);
  Instant step() noexcept;
  void drain() noexcept;
  void hurry() noexcept { hurry_ = true; }
  void close(Failure reason);
  Status closed() const;
  Status health() const;
  StoreStats stats() const noexcept;
  std::uint16_t node() const noexcept { return node_.load(std::memory_order_relaxed); }
  Membership& membership() noexcept { return membership_; }
  /// Gives the node's lease back, so that another need not wait for its end. After the last step.
  void leave() noexcept;
  void set_expander(Expander* expander) { evaluator_.set_expander(expander); }
  static void answer_one(PendingCommit& pending) noexcept;

  /// Keeps for health() what says that the database is in trouble. Thread-safe.
  void note(const Failure& why);
  /// A heartbeat that succeeds says nothing of it: it touches one row that is there already.
  static bool outlives_a_heartbeat(const Failure& why) noexcept;
  /// Whether somebody should write something, to find out whether the disk is still full.
  bool wants_probe() const;
  static constexpr Duration kProbedAfter = seconds(1);
  static constexpr Duration kReconnectEvery = milliseconds(250);
  static constexpr int kTriesAlone = 3;
  static constexpr int kMostHeld = 4;  ///< members of a group that wait for a held row one after the other

 private:
  static std::int64_t stored_id(std::uint64_t v) noexcept { return static_cast<std::int64_t>(v >> 1); }
  Status connect();
  Status join();
  Duration beat_every() const noexcept { return options_.lease / 5; }
  void run_group(std::size_t count) noexcept;
  Status write_group(std::size_t from, std::size_t count, int attempt = 0);
  void write_apart(std::size_t from, std::size_t count, const Failure& why);
  Status try_group(std::size_t from, std::size_t count, bool alone, bool& again);
  Status evaluate(std::size_t from, std::size_t count);
  /// Whether the group with this number is in the database. Fails unknown_outcome when it cannot be told.
  Result<bool> settle(std::int64_t group);
  void drop_connection() noexcept;
  void count_traffic() noexcept;
  void answer(std::size_t count) noexcept;
  void refuse_waiting(const Failure& why) noexcept;
  void wrote();
  Status lives();
  bool lacks_rights() const;
  Instant next_beat() const noexcept;
  void beat();
  Status beat_now();
  Status pass_on();

  const PostgresOptions& options_;
  Clock& clock_;
  StoreClock& store_clock_;
  const std::int64_t writer_;
  std::int64_t epoch_ = 1;
  std::int64_t group_ = 0;
  std::int64_t written_ = 0;  // the last group that was told to be durable
  Membership membership_;
  std::atomic<std::uint16_t> node_{0};
  Instant last_beat_ = Instant::min();
  CommitQueue queue_;
  PgLoader loader_;
  GroupEvaluator evaluator_;
  std::unique_ptr<PgConnection> connection_;
  std::vector<PendingCommit*> taken_;
  std::vector<KeyPut*> tokenless_;  // of this group: their tokens are set in place by evaluating
  bool row_held_ = false;           // the last group was refused for a row that is locked by who is no node
  Instant lazy_since_ = kNever;
  Instant last_tried_{};
  mutable std::mutex state_;
  std::optional<Failure> closed_;
  std::optional<Failure> trouble_;
  Instant trouble_at_{};
  std::atomic<bool> open_{true}, hurry_{false}, troubled_{false};
  std::atomic<std::uint64_t> commits_{0}, refused_{0}, groups_{0}, statements_{0}, round_trips_{0}, repeated_{0};
};

}  // namespace sluice::store
