// One transaction on its way through a flow: identity, request, response, typed bag, draft of
// store changes, abort state. Owned by one lane; not thread-safe.
#pragma once
#include <any>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/cancel.hpp"
#include "sluice/base/namespace.hpp"
#include "sluice/base/reply.hpp"
#include "sluice/store/commit.hpp"

namespace sluice::flow {

/// A typed key of the bag. Durable keys are written with intents and pauses and are the only ones
/// the second phase sees; transient ones live until the decision. Declare keys as constants:
///   inline const BagKey<Order> kOrder{"order"};                                  // transient
///   inline const BagKey<std::string> kHold{"hold", encode_hold, decode_hold};    // durable
template <class T>
struct BagKey {
  std::string_view name;
  Bytes (*encode)(const T&) = nullptr;
  Result<T> (*decode)(ByteView) = nullptr;
  bool durable() const noexcept { return encode != nullptr; }
};

/// The store changes an exchange has drafted; becomes part of the deciding Commit. Reads through
/// the exchange see them. Nothing is written before the decision.
class Draft {
 public:
  /// `name` is told to the caller when the precondition does not hold; `refusal` is then the
  /// stored reply (default: kind precondition_failed with `name` as its code).
  void require(store::Precondition what, std::string name, std::optional<Reply> refusal = {});
  void put(store::KvKey key, Bytes value, std::optional<std::int64_t> number = {});
  void add(store::KvKey key, std::int64_t delta);
  void erase(store::KvKey key);
  /// number - amount, refused when it would fall below zero.
  void take(store::KvKey key, std::int64_t amount, std::string name, std::optional<Reply> refusal = {});
  /// An event, made durable with the decision.
  void publish(std::string topic, Bytes payload);
  void mutate(store::Mutation mutation);

  struct Guard {
    store::Requirement requirement;
    std::optional<Reply> refusal;
  };
  std::vector<Guard> guards;
  std::vector<store::Mutation> mutations;
  struct Event {
    std::string topic;
    Bytes payload;
  };
  std::vector<Event> events;
  bool empty() const noexcept { return guards.empty() && mutations.empty() && events.empty(); }
  void clear() noexcept;
};

struct StageToken {
  std::string text;  ///< stable across retries and recovery: derived key for downstream calls
};

class Exchange {
 public:
  Exchange(ExchangeId id, Namespace ns, Bytes request);
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  ~Exchange();

  ExchangeId id() const noexcept { return id_; }
  const Namespace& ns() const noexcept { return ns_; }
  const Bytes& request() const noexcept { return request_; }
  std::string reference;    ///< the caller's own id; not unique
  std::string principal;
  std::string correlation;
  std::string trace;
  std::string command;      ///< for audit; empty: the flow's name
  bool audited = false;     ///< an audit row rides in the deciding Commit

  /// What the caller gets; a stage that declines sets it and aborts.
  void respond(Reply reply) { response_ = std::move(reply); }
  const std::optional<Reply>& response() const noexcept { return response_; }

  /// Votes abort. An empty cause reads "aborted".
  void abort(std::string cause = {});
  bool aborting() const noexcept { return aborting_; }
  const std::string& abort_cause() const noexcept { return abort_cause_; }

  template <class T>
  void set(const BagKey<T>& key, T value);
  /// Null when absent (or, in the second phase, when the key is transient).
  template <class T>
  T* get(const BagKey<T>& key);

  Draft& draft() noexcept { return draft_; }

  /// 1 for the first call of the current phase of the current stage.
  std::uint32_t attempt() const noexcept { return attempt_; }
  /// "<exchange id>.<stage ordinal>": the derived idempotency key of this stage's outside calls.
  std::string token() const;

  TaskContext& context() noexcept { return context_; }
  CancelScope& scope() noexcept { return scope_; }

 private:
  friend class Runner;
  struct BagEntry {
    std::string_view name;
    std::any value;
    Bytes (*encode)(const std::any&) = nullptr;
    Bytes stored;  ///< encoded, not yet decoded (after recovery)
    bool durable = false;
  };
  BagEntry* find(std::string_view name) noexcept;

  ExchangeId id_;
  Namespace ns_;
  Bytes request_;
  std::optional<Reply> response_;
  std::string abort_cause_;
  bool aborting_ = false;
  std::uint32_t attempt_ = 1;
  std::uint32_t stage_ordinal_ = 0;
  std::vector<BagEntry> bag_;
  Draft draft_;
  CancelScope scope_;
  TaskContext context_;
};

}  // namespace sluice::flow
