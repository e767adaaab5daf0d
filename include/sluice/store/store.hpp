// The durable state of a node: application rows, idempotency keys, journal, events, audit rows and
// leases, changed only through Commit. Implementations: memory, sqlite, postgres; one conformance
// suite holds for all. All methods are thread-safe.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "sluice/base/lane.hpp"
#include "sluice/base/task.hpp"
#include "sluice/store/commit.hpp"

namespace sluice::store {

/// The code of a Commit that failed `overloaded` because the store has no place for another key.
inline constexpr std::string_view kTooManyKeys = "too_many_keys";

/// A Commit on its way. The submitter sets `commit`, `lane` and `run` (called on the lane when
/// `outcome` is there) and keeps it alive until then. A null lane: `run` is called on the store's
/// own thread and must be short. Failures: unavailable (closed, full, read-only: nothing written),
/// unknown_outcome (maybe written), overloaded (queue full), invalid_argument.
struct PendingCommit : Job {
  Commit commit;
  Lane* lane = nullptr;
  Result<CommitOutcome> outcome = CommitOutcome{};
};

// --- Queries: each sees one snapshot of durable rows ----------------------------------------
struct GetRows {
  using Answer = std::vector<std::optional<KvRow>>;  ///< in the order asked
  std::vector<KvKey> keys;
};
struct ListRows {
  struct Item {
    KvKey key;
    KvRow row;
  };
  using Answer = std::vector<Item>;  ///< ordered by key
  std::string ns;
  std::string collection;
  std::string prefix;
  std::string after;  ///< exclusive; empty: from the start
  std::size_t limit = 1000;
};
struct FindKey {
  using Answer = std::optional<KeyRow>;  ///< expired keys read as absent
  Bytes scope;
};
struct ReadJournal {
  using Answer = std::vector<JournalRow>;  ///< in order of n
  ExchangeId exchange;
};
/// The first record of each exchange, newest first: for listings.
struct ListJournal {
  using Answer = std::vector<JournalRow>;
  ExchangeId before;  ///< 0: from the newest
  std::size_t limit = 50;
};
struct ListOpen {
  using Answer = std::vector<OpenRow>;  ///< oldest first
  ExchangeId after;
  std::optional<OpenState> state;
  std::size_t limit = 1000;
};
struct ListEvents {
  using Answer = std::vector<EventRow>;  ///< by sequence
  std::string ns;
  std::uint64_t after = 0;
  std::size_t limit = 1000;
};
struct ListAudit {
  using Answer = std::vector<AuditRow>;  ///< newest first
  std::uint64_t before = 0;              ///< 0: from the newest
  std::size_t limit = 100;
};
struct GetLease {
  using Answer = std::optional<LeaseRow>;
  std::string name;
};
using Query = std::variant<GetRows, ListRows, FindKey, ReadJournal, ListJournal, ListOpen,
                           ListEvents, ListAudit, GetLease>;
using Answer = std::variant<GetRows::Answer, ListRows::Answer, FindKey::Answer,
                            ReadJournal::Answer, ListOpen::Answer, ListEvents::Answer,
                            ListAudit::Answer, GetLease::Answer>;

/// A query on its way; same rules as PendingCommit.
struct PendingQuery : Job {
  Query query;
  Lane* lane = nullptr;
  Result<Answer> answer = Answer{};
};

/// Called inside every Commit that is about to be applied, on the store's writer, in commit order:
/// turns its mutations into further ones (events, deliveries). A failure refuses the Commit.
class Expander {
 public:
  virtual ~Expander() = default;
  virtual Status expand(const std::vector<Mutation>& applied, std::vector<Mutation>& more) = 0;
};

struct StoreStats {
  std::uint64_t commits = 0;
  std::uint64_t refused = 0;
  std::uint64_t groups = 0;
  std::uint64_t queued = 0;
  std::uint64_t live_keys = 0;
  // Of a database apart: what was sent to it, and groups evaluated again because another node was faster.
  std::uint64_t statements = 0;
  std::uint64_t round_trips = 0;
  std::uint64_t repeated = 0;
};

struct PurgeResult {
  std::uint64_t keys = 0;
  std::uint64_t journal = 0;
  std::uint64_t audit = 0;
  std::uint64_t events = 0;
  bool more = false;  ///< the limit ended it: another call may find more to delete now
};

class Store {
 public:
  virtual ~Store() = default;
  Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  /// Queues a Commit; answered exactly once. Commits of one caller are evaluated in the order
  /// they were submitted.
  virtual void submit(PendingCommit& pending) = 0;
  /// True: answered already, `run` will not be called. False: `run` will be called on the lane.
  virtual bool ask(PendingQuery& pending) = 0;
  /// The store's own clock (decides TTLs, leases and due times).
  virtual WallTime now() = 0;
  /// Drawn when the database is created or restored; old fencing tokens carry the old one.
  virtual std::uint64_t incarnation() const = 0;
  /// Largest exchange id ever stored, for IdSource::advance_past.
  virtual std::uint64_t largest_id() = 0;
  /// Set before the first submit; must outlive the store.
  virtual void set_expander(Expander* expander) = 0;
  /// Deletes expired keys and rows older than `keep`, at most `limit` of each, in one commit.
  virtual Result<PurgeResult> purge(milliseconds keep, std::size_t limit) = 0;
  virtual StoreStats stats() const = 0;
  /// Fails with the reason when nothing can be committed now (closed, disk full, read-only).
  virtual Status health() = 0;
  /// Answers what is queued, then closes. Idempotent. Later submits fail `unavailable`.
  virtual void close() = 0;
};

// --- For Tasks -------------------------------------------------------------------------------
/// `Result<CommitOutcome> r = co_await commit(store, std::move(c));` Not cut short by
/// cancellation: once submitted, the answer is awaited.
class CommitAwaiter : PendingCommit {
 public:
  CommitAwaiter(Store& store, Commit c) : store_(store) { commit = std::move(c); }
  bool await_ready() const noexcept { return false; }
  template <class P>
  void await_suspend(std::coroutine_handle<P> self) {
    handle_ = self;
    lane = self.promise().context->lane;
    run = [](Job* job) noexcept {
      static_cast<CommitAwaiter*>(static_cast<PendingCommit*>(job))->handle_.resume();
    };
    store_.submit(*this);
  }
  Result<CommitOutcome> await_resume() { return std::move(outcome); }

 private:
  Store& store_;
  std::coroutine_handle<> handle_;
};
inline CommitAwaiter commit(Store& store, Commit c) { return {store, std::move(c)}; }

/// A query that can be left alone: owned by the store until it is answered, however late.
class AskedUntil {
 public:
  AskedUntil() = default;
  AskedUntil(const AskedUntil&) = delete;
  AskedUntil& operator=(const AskedUntil&) = delete;
  ~AskedUntil() { leave(); }
  /// True: `answer` is there. False: `done(owner)` is called on the lane when it is, at `deadline` at the
  /// latest; then it fails `timeout`.
  bool ask(Store& store, Query query, Lane* lane, Instant deadline, void (*done)(void*) noexcept, void* owner);
  Result<Answer> answer = Answer{};

 private:
  struct Asked;
  void leave() noexcept;
  Asked* asked_ = nullptr;
  Timer patience_;
  void (*done_)(void*) noexcept = nullptr;
  void* owner_ = nullptr;
};

/// `Result<FindKey::Answer> r = co_await ask(store, FindKey{scope});` Fails `timeout` when the task's
/// deadline passes before the store has answered.
template <class Q>
class QueryAwaiter {
 public:
  QueryAwaiter(Store& store, Q q) : store_(store), query_(std::move(q)) {}
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    handle_ = self;
    const auto resume = [](void* me) noexcept { static_cast<QueryAwaiter*>(me)->handle_.resume(); };
    const TaskContext& context = *self.promise().context;
    return !asked_.ask(store_, std::move(query_), context.lane, context.deadline, resume, this);
  }
  Result<typename Q::Answer> await_resume() {
    if (!asked_.answer) return fail(std::move(asked_.answer).error());
    return std::get<typename Q::Answer>(std::move(*asked_.answer));
  }

 private:
  Store& store_;
  Query query_;
  AskedUntil asked_;
  std::coroutine_handle<> handle_;
};
template <class Q>
QueryAwaiter<Q> ask(Store& store, Q query) {
  return {store, std::move(query)};
}

// --- For plain threads (command line, tests): block until answered. Never on a lane. ----------
Result<CommitOutcome> commit_and_wait(Store& store, Commit commit);
Result<Answer> ask_and_wait(Store& store, Query query);
/// The same for at most so long; then it fails `timeout`.
Result<Answer> ask_and_wait(Store& store, Query query, Duration most);
template <class Q>
Result<typename Q::Answer> ask_now(Store& store, Q query) {
  auto answer = ask_and_wait(store, Query(std::move(query)));
  if (!answer) return fail(std::move(answer).error());
  return std::get<typename Q::Answer>(std::move(*answer));
}

}  // namespace sluice::store
