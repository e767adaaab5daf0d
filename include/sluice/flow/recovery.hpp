// What happens to exchanges that a crash cut off, and what an operator sees and may do.
#pragma once
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "sluice/flow/flow.hpp"

namespace sluice::store {
class Nodes;
}

namespace sluice::flow {

/// The flows of a node, by name and version. Fill before recovery; not thread-safe while filling.
class Flows {
 public:
  void add(Flow& flow) { flows_[{flow.name(), flow.options().version}] = &flow; }
  Flow* find(std::string_view name, std::uint32_t version) const;
  std::vector<Flow*> all() const;
  struct Expecting {
    Flow* flow = nullptr;
    Namespace ns;
  };
  /// Where exchanges wait under this wake token: at most one per flow and namespace.
  std::vector<Expecting> expecting(const std::string& token) const;

 private:
  std::map<std::pair<std::string, std::uint32_t>, Flow*> flows_;
};

struct RecoveryOptions {
  std::size_t parallel = 256;  ///< exchanges in progress at once
  std::size_t batch = 1000;    ///< rows read at once
};

struct RecoveryProgress {
  std::uint64_t found = 0;
  std::uint64_t committed = 0;
  std::uint64_t aborted = 0;
  std::uint64_t paused = 0;    ///< sleep on, or went on from a recorded wake-up
  std::uint64_t in_doubt = 0;  ///< their stages still fail, or no flow has their version
};

/// Finishes every open exchange: aborts what was not decided, commits what was. Idempotent, and
/// safe to be killed at any instant. Lane-only; runs beside new requests. One at a time.
class Recovery {
 public:
  /// All must outlive it.
  Recovery(store::Store& store, const Flows& flows, Lane& lane, RecoveryOptions options = {});
  ~Recovery();
  /// Sweeps once over what is open now; `done` is called on the lane. Exchanges that the given flows
  /// are running are skipped.
  void start(std::function<void(const Result<RecoveryProgress>&)> done);
  /// Sweeps now and then again `every` (at least a second) after each sweep, until this is destroyed:
  /// what is in doubt is tried again each time. Within a second or so when the store has taken over a dead
  /// node's share, or when a flow ended an exchange here whose end the store did not take. `done` is told of each
  /// sweep, on the lane.
  void keep_sweeping(Duration every, std::function<void(const Result<RecoveryProgress>&)> done);
  const RecoveryProgress& progress() const noexcept { return progress_; }

 private:
  struct One;
  bool ours(const store::OpenRow& row) const;
  bool runs_here(const store::OpenRow& row) const;
  void sweep();
  void wait_for_next();
  std::uint64_t left_open_here() const;
  void read_batch();
  void pump();
  void begin_one(store::OpenRow row);
  void skip();
  void one_done(const Outcome& outcome);
  void unknown_version(const store::OpenRow& row, std::string why);
  void pass_on_unknown();
  void finish_if_idle();

  store::Store& store_;
  store::Nodes* const nodes_;  // null: there is one node
  const Flows& flows_;
  Lane& lane_;
  RecoveryOptions options_;
  RecoveryProgress progress_;
  ExchangeId last_;
  bool all_read_ = false;
  bool pumping_ = false;
  std::size_t running_ = 0;
  std::vector<store::OpenRow> waiting_;
  std::set<std::uint16_t> unknown_;                // dead nodes with exchanges that no flow here can finish
  std::map<std::uint16_t, Instant> passed_on_;  // when they last were, to a node that may
  std::function<void(const Result<RecoveryProgress>&)> done_;
  std::function<void(const Result<RecoveryProgress>&)> each_;
  Duration every_{0};
  Instant next_{}, ended_{};
  Duration soon_{0};  // after ended_, for what was left open since
  std::uint64_t takeovers_ = 0;  // as the last sweep began, and so:
  std::uint64_t left_open_ = 0;
  Timer again_;
};

// --- The operator's view -----------------------------------------------------------------------

struct StageView {
  std::uint32_t step = 0;
  std::string stage;      ///< its name, when a registered flow knows it; else "#<number>"
  bool external = false;
  std::string state;      ///< began, prepared, finished, unknown
};

struct TransactionView {
  ExchangeId exchange;
  std::string flow;
  std::uint32_t version = 0;
  std::string ns, reference, principal, command, correlation;
  std::string outcome;  ///< running, paused, committed, aborted, in_doubt, pending, unknown
  std::string cause;
  std::optional<Reply> reply;
  std::vector<StageView> stages;  ///< external ones; store-only exchanges leave none
  WallTime began{};
  std::string settled_by, settled_reason;
  std::size_t records = 0;
  std::optional<store::AuditRow> audit;  ///< of those without a journal; see audit_of()
};

/// Folds an exchange's journal; one without a journal (a plain handler, a flow in memory) is told by
/// its audit row. Fails not_found when there is neither, corrupt when the journal does not read.
/// Blocks, as all of these.
Result<TransactionView> describe(store::Store& store, ExchangeId exchange, const Flows* flows = nullptr);
/// The audit row of the run itself, not of its replays. Looks from the time in the id on, at no more
/// than 200,000 rows.
Result<std::optional<store::AuditRow>> audit_of(store::Store& store, ExchangeId exchange);
/// The newest exchanges before `before` (0: from the newest). `listed` chooses among those without a
/// journal; empty: all.
Result<std::vector<TransactionView>> list_transactions(
    store::Store& store, ExchangeId before, std::size_t limit,
    const std::function<bool(const store::AuditRow&)>& listed = {});
/// Which of the exchanges that are not over.
struct OpenQuery {
  std::optional<store::OpenState> state;  ///< none: any
  ExchangeId before;                      ///< older ones alone; 0: from the newest
  std::size_t limit = 100;                ///< of those chosen
  std::function<bool(const store::OpenRow&)> chosen{};  ///< empty: all
};

/// Those that are not over, the newest first. Reads every row of that state up to `before`. Blocks.
Result<std::vector<TransactionView>> list_open(store::Store& store, const OpenQuery& query);
/// Those that wait for an operator.
Result<std::vector<TransactionView>> list_in_doubt(store::Store& store, std::size_t limit);

/// Whether it is listed in doubt now. Blocks.
bool in_doubt(store::Store& store, ExchangeId exchange);
/// How long the caller of a running key is kept waiting for that.
inline constexpr Duration kDoubtAskedFor = milliseconds(500);
/// The same without blocking: `told` is called once, on `lane` (the caller's), at once or within `most`;
/// false when the store has not answered by then. Without a lane it blocks.
void ask_in_doubt(store::Store& store, ExchangeId exchange, Lane* lane, Duration most,
                  void (*told)(void* owner, bool doubtful) noexcept, void* owner);

/// Says how an exchange in doubt ended, for good: records who and why, fixes the reply, frees or
/// completes its key, in one audited Commit. Speaks about the named external stages only; the state
/// committed with the decision stays. Fails not_found, or precondition_failed when it is not in
/// doubt (any more). Blocks; not on a lane.
Status settle(store::Store& store, ExchangeId exchange, bool committed, const std::string& by,
              const std::string& reason);

}  // namespace sluice::flow
