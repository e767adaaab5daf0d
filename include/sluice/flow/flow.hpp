// A flow: named groups of ordered stages, and the runtime that takes exchanges through them.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "sluice/base/ids.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/base/random.hpp"
#include "sluice/flow/observer.hpp"
#include "sluice/flow/stage.hpp"
#include "sluice/idempotency/keys.hpp"
#include "sluice/store/store.hpp"

namespace sluice::flow {

enum class OutcomeKind : std::uint8_t {
  committed,
  aborted,
  in_doubt,  ///< decided, or asked outside, and not settled there: listed, tried again, can be settled
  pending,   ///< goes on
  unknown,   ///< the store never said whether it took the one Commit there was: `cause` is unknown_outcome. Nothing is
             ///< listed; whole or not at all, and a retry with the key is told which once the store answers
};
std::string_view to_string(OutcomeKind kind) noexcept;

/// What the caller is told.
struct Outcome {
  OutcomeKind kind = OutcomeKind::committed;
  ExchangeId exchange;          ///< of a replay: the exchange that earned the reply
  std::optional<Reply> reply;   ///< set by a stage, or the refusal of a precondition
  std::optional<Failure> cause; ///< why it was aborted, or what is not known
  bool replayed = false;        ///< the stored reply of an earlier request
  Bytes reply_bytes;            ///< the stored bytes, when a key holds them
};

enum class ReplyWhen : std::uint8_t { ended, decided };

/// How often commits and aborts are tried before an exchange is listed in doubt.
struct SecondPhase {
  std::uint32_t attempts = 5;
  Duration first_delay = milliseconds(20);  ///< doubles with each attempt, up to max_delay
  Duration max_delay = seconds(2);
  Duration budget = seconds(30);            ///< for each step of the second phase
};

struct FlowOptions {
  std::string entry;                ///< empty: the first group
  std::uint32_t version = 1;        ///< recorded; recovery runs the version that was begun. Not part of a key
  std::uint32_t max_stages = 1024;  ///< prepares in one run, 1 to a million; else refused at construction
  std::uint32_t max_reruns = 16;    ///< of prepare after a verified read changed
  store::Store* store = nullptr;    ///< null: in memory, nothing is durable
  idempotency::Keys* keys = nullptr;
  /// The exchange's key, or nothing for "not idempotent". Used by run() when no claim is given.
  std::function<std::optional<std::string>(const Exchange&)> key;
  idempotency::KeyPolicy key_policy;
  SecondPhase second_phase;
  ReplyWhen reply_when = ReplyWhen::ended;
  Duration resumed_budget = seconds(30);     ///< for the rest of prepare after a pause
  Duration commit_margin = milliseconds(5);  ///< prepare ends this long before the caller's deadline
  std::vector<std::shared_ptr<Observer>> observers;
  std::function<void(const Exchange&, const Profile&)> profiler;  ///< null: no clock per stage
  Metrics* metrics = nullptr;       ///< histograms per stage, phase and outcome
  std::function<void(const StageSpan&)> tracer;  ///< told each finished phase, on the lane
  Logger* log = nullptr;
  IdSource* ids = nullptr;          ///< for events; required when stages publish
};

/// Given with one run.
struct RunOptions {
  Lane* lane = nullptr;       ///< required
  Instant deadline = kNever;  ///< the caller's
  idempotency::Claim claim;   ///< of the exchange's key, when the caller took it
  /// Told, with run()'s owner and before its `done`, that the exchange sleeps: its permit can be
  /// given back. It goes on under the permit of whoever wakes it. May be null.
  void (*on_pause)(void* owner) noexcept = nullptr;
};

/// One wake-up. The caller sets the first five and keeps it alive until `run`.
struct PendingWake : Job {
  Namespace ns;  ///< of the exchange: a token of another namespace is unknown here
  std::string token;
  Bytes payload;
  Lane* lane = nullptr;  ///< `run` is called on it
  Status answer;         ///< see Flow::wake
};

struct Graph;
class LiveExchanges;
class FlowMetrics;

/// Thread-safe once built: many exchanges run at once, each on its lane. Must outlive them.
class Flow {
 public:
  using Done = void (*)(void* owner, Outcome outcome) noexcept;

  explicit Flow(std::string name, FlowOptions options = {});
  ~Flow();
  Flow(const Flow&) = delete;
  Flow& operator=(const Flow&) = delete;

  /// Appends to a group, which is made when it is new. Refused (asserts) after the first run.
  Flow& group(std::string_view name, std::vector<StagePtr> stages);

  const std::string& name() const noexcept { return name_; }
  const FlowOptions& options() const noexcept { return options_; }
  FlowOptions& options() noexcept { return options_; }

  /// Takes the exchange through; calls `done` exactly once, on the lane, possibly before it returns.
  /// Call on the lane. The exchange may live on after `done` (pending, in doubt).
  void run(ExchangePtr exchange, RunOptions options, Done done, void* owner);
  /// `Outcome outcome = co_await flow.run(exchange);` with the awaiting task's lane and deadline.
  Task<Outcome> run(ExchangePtr exchange, idempotency::Claim claim = {});

  /// Wakes the exchange that announced this token in this namespace. Answers once the wake-up is durable: the exchange
  /// goes on with the payload then, also after a crash. Fails not_found (nothing waits under this
  /// token, or no more), already_exists (woken already), or as the store does. Thread-safe.
  void wake(PendingWake& pending);
  Task<Status> wake(Namespace ns, std::string token, Bytes payload);
  /// Whether an exchange of this namespace announced this token here. Thread-safe.
  bool expects(const Namespace& ns, const std::string& token) const;
  /// The namespaces, as text, in which an exchange announced it. Thread-safe.
  std::vector<std::string> expected_in(const std::string& token) const;

  /// Over names, order and effects: recovery agrees on it or leaves the exchange in doubt.
  std::uint64_t graph_hash() const;
  /// Defects: an unreachable group, a stage that reserves outside and cannot abort, no entry.
  std::vector<std::string> lint() const;
  std::string to_dot() const;
  std::string to_mermaid() const;

  /// Whether this Flow object still takes the exchange through. Thread-safe. Known only of exchanges
  /// with durable intents: others leave nothing that recovery could find.
  bool running(ExchangeId exchange) const;
  bool running_of(std::uint16_t node) const;  ///< any exchange that a node of that number began
  /// How many exchanges, ever, were over here while the store may hold them open: their end was not written. A sweep
  /// (Recovery) finishes them. Thread-safe.
  std::uint64_t left_open() const noexcept;

  const Graph& graph() const noexcept { return *graph_; }
  std::uint64_t next_sequence() noexcept { return sequence_.fetch_add(1, std::memory_order_relaxed) + 1; }

 private:
  friend class Runner;
  friend class Recovery;
  friend class KeyedRun;
  Result<std::uint16_t> entry();
  void seal();
  void begin(ExchangePtr exchange, RunOptions options, Done done, void* owner);
  std::string name_;
  FlowOptions options_;
  std::unique_ptr<Graph> graph_;
  std::once_flag sealing_;
  std::atomic<bool> sealed_{false};
  std::shared_ptr<LiveExchanges> live_;
  std::unique_ptr<FlowMetrics> metrics_;
  std::uint64_t hash_ = 0;
  std::optional<Failure> no_entry_;
  std::atomic<std::uint64_t> sequence_{0};
};

}  // namespace sluice::flow
