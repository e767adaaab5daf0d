// One transaction on its way through a flow: identity, request, response, typed bag, draft of
// store changes, abort state. Owned by one lane; not thread-safe.
#pragma once
#include <any>
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/cancel.hpp"
#include "sluice/base/ids.hpp"
#include "sluice/base/namespace.hpp"
#include "sluice/flow/draft.hpp"
#include "sluice/store/store.hpp"

namespace sluice::flow {

/// A typed key of the bag. Durable keys are written with intents and the decision and are the only
/// ones the second phase sees, in live runs too; transient ones live until the decision. Declare
/// them as constants:
///   inline constexpr BagKey<Order> kOrder{"order"};                              // transient
///   inline constexpr BagKey<Hold> kHold{"hold", &encode_hold, &decode_hold};     // durable
template <class T>
struct BagKey {
  std::string_view name;
  Bytes (*encode)(const T&) = nullptr;
  Result<T> (*decode)(ByteView) = nullptr;
};

/// A durable key for text.
BagKey<std::string> durable_text(std::string_view name);

/// How Exchange::read sees a row.
enum class Read : std::uint8_t {
  /// As one snapshot with the other rows read: when one of those changed meanwhile, the read fails
  /// version_conflict `snapshot_moved` and prepare runs again from the start. After an external
  /// stage or a pause a new snapshot begins, since what was asked outside cannot be asked again.
  snapshot,
  /// The same, and its version is a precondition of the Commit: if it changed before, prepare is
  /// run again.
  verified,
  /// As it is now, for what need not agree with anything: a hint, a hot counter.
  latest,
};

/// What ended a pause.
struct Wake {
  bool timed_out = false;
  Bytes payload;  ///< what wake() was given; empty after a timeout
};

/// Kept by whoever runs an exchange: where its wake tokens are announced.
class WakeDesk {
 public:
  virtual ~WakeDesk() = default;
  virtual Status expect_wake(std::string token) = 0;
};

class Exchange {
 public:
  Exchange(ExchangeId id, Namespace ns, Bytes request)
      : id_(id), ns_(std::move(ns)), request_(std::move(request)) {}
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  ExchangeId id() const noexcept { return id_; }
  const Namespace& ns() const noexcept { return ns_; }
  const Bytes& request() const noexcept { return request_; }

  std::string reference;    ///< the caller's own id (STAN and terminal, order number); not unique
  std::string principal;    ///< who asked
  std::string command;      ///< for audit; empty: the flow's name
  std::string correlation;  ///< in every log line and audit row
  std::string trace;        ///< W3C traceparent
  bool audited = false;     ///< an audit row rides in the deciding Commit

  /// What the caller gets. A stage that declines sets it and aborts.
  /// When another stage fails or aborts later, it is dropped. Ignored inside commit and abort: the
  /// decided reply is fixed.
  void respond(Reply reply) {
    if (second_phase_) return;
    response_ = std::move(reply);
    responded_at_ = step_;
  }
  const std::optional<Reply>& response() const noexcept { return response_; }

  /// In a prepare that is going to fail: nothing of this stage is left outside (the call was
  /// refused before it was sent, say), so its abort need not be called. Without it a stage whose
  /// prepare fails is aborted with `prepared = false`, because it may have done a part. Only for a
  /// stage that is a step of its own; a retried one must say it in each attempt.
  void left_nothing_outside() noexcept { left_nothing_ = true; }

  /// Votes abort; the stage still returns a vote, which says whether it joined. An empty cause
  /// reads "aborted". Inside commit or abort it changes nothing.
  void abort(std::string cause = {});
  bool aborting() const noexcept { return aborting_; }
  const std::string& abort_cause() const noexcept { return abort_cause_; }

  template <class T>
  void set(const BagKey<T>& key, T value) {
    Entry& entry = entry_for(key.name);
    entry.durable = key.encode != nullptr;
    entry.changed = true;
    entry.stored = entry.durable ? key.encode(value) : Bytes();
    entry.value = std::move(value);
  }
  /// To change a durable value use set(): what is changed in place is not written and is gone after
  /// the decision. Null when absent; in the second phase transient keys are absent. A durable value that does not
  /// decode reads as absent.
  template <class T>
  T* get(const BagKey<T>& key) {
    Entry* entry = find(key.name);
    if (entry == nullptr) return nullptr;
    if (!entry->value.has_value() && key.decode != nullptr)
      if (auto decoded = key.decode(entry->stored)) entry->value = *std::move(decoded);
    return std::any_cast<T>(&entry->value);
  }

  Draft& draft() noexcept { return draft_; }
  /// A row with this exchange's own drafted changes applied. Each read looks at all rows of its
  /// snapshot once more: Fails unavailable without a store, and
  /// when the store cannot answer at once (remote stores: use read_task); pass failures on.
  Result<std::optional<store::KvRow>> read(const store::KvKey& key, Read how = Read::snapshot);
  Task<Result<std::optional<store::KvRow>>> read_task(store::KvKey key, Read how = Read::snapshot);
  /// As read(), of many rows at once: one look at the snapshot for all of them, where reading them one by one looks
  /// as often as there are rows. In the order of `keys`.
  Result<std::vector<std::optional<store::KvRow>>> read_rows(const std::vector<store::KvKey>& keys, Read how = Read::snapshot);
  Task<Result<std::vector<std::optional<store::KvRow>>>> read_rows_task(std::vector<store::KvKey> keys, Read how = Read::snapshot);

  /// 1 for the first call of this phase of this stage; grows with retries.
  std::uint32_t attempt() const noexcept { return attempt_; }
  /// "<exchange id>.<step>", in a parallel stage "<exchange id>.<step>.<child>", and so on inward: stable across retries and recovery. The idempotency key for what this
  /// stage calls outside.
  std::string token() const;

  /// Announces the token under which an answer from outside may wake this exchange: call it before
  /// asking, because the answer may be faster than the pause. Unique among the exchanges of a flow and namespace;
  /// token() is. One at a time, until the stage's prepare is over. Fails already_exists when the
  /// token is taken, invalid_argument when empty, over 255 bytes, or inside parallel().
  Status expect_wake(std::string token);
  /// Set while prepare is called again after a pause; else null.
  const Wake* wake() const noexcept { return wake_ ? &*wake_ : nullptr; }

  CancelScope& scope() noexcept { return scope_; }
  TaskContext& context() noexcept { return context_; }
  /// Prepare must be done by then; the runner sets it from the caller's deadline.
  Instant deadline() const noexcept { return context_.deadline; }

 private:
  friend class Runner;
  friend class Recovery;
  friend class RetryStage;
  friend class ParallelStage;
  struct Entry {
    std::string name;
    std::any value;
    Bytes stored;
    bool durable = false;
    bool changed = false;  // since the branch began
  };
  // Views for the children of a parallel stage.
  void become_branch(const Exchange& parent, std::uint32_t branch);
  void absorb_branch(Exchange& child);
  void enter_branch(std::uint32_t child) { branch_ += "." + std::to_string(child); }
  void leave_branch() { branch_.resize(branch_.rfind('.')); }
  std::string parallel_key() const;
  Entry* find(std::string_view name) noexcept;
  Entry& entry_for(std::string_view name);
  void drop_transient();
  std::vector<std::pair<std::string, Bytes>> durable_entries() const;
  void restore_entry(std::string name, Bytes stored);
  store::GetRows rows_to_ask(std::vector<store::KvKey> keys, Read how) const;
  Result<std::vector<std::optional<store::KvRow>>> take_rows(const std::vector<store::KvKey>& keys, Read how,
                                                             store::GetRows::Answer rows);
  void begin_snapshot() noexcept {
    seen_.clear();
    snapshot_moved_ = false;
  }

  ExchangeId id_;
  Namespace ns_;
  Bytes request_;
  std::optional<Reply> response_;
  std::string abort_cause_;
  bool aborting_ = false;
  bool second_phase_ = false;
  static constexpr std::uint32_t kNobody = UINT32_MAX;
  std::uint32_t responded_at_ = kNobody;  // the step that set the response
  std::uint32_t attempt_ = 1;
  std::uint32_t step_ = 0;
  std::string branch_;  // ".2.1": the first child of the second child of a parallel stage; empty: no child
  std::vector<Entry> bag_;
  Draft draft_;
  struct Seen {
    store::KvKey key;
    std::uint64_t version = 0;  // 0: it was not there
  };
  std::vector<Seen> seen_;  // the rows of the snapshot
  bool snapshot_moved_ = false;
  // Of the prepare that runs.
  bool left_nothing_ = false;
  bool unsure_before_ = false;  // an earlier attempt, or a child, may have happened outside
  std::array<std::size_t, 3> drafted_before_{};  // of a branch: what it got from its parent
  store::Store* store_ = nullptr;
  WakeDesk* desk_ = nullptr;
  std::optional<Wake> wake_;
  CancelScope scope_;
  TaskContext context_;
};

using ExchangePtr = std::shared_ptr<Exchange>;

}  // namespace sluice::flow
