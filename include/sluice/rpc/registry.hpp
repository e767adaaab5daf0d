// Commands by name, and the one way in for every door: authorise, look the key up, pass the gate,
// claim, handle. What is authorised, fingerprinted, ordered and handled is the same Command.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/ids.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/base/task.hpp"
#include "sluice/idempotency/keys.hpp"
#include "sluice/rpc/command.hpp"
#include "sluice/store/store.hpp"

namespace sluice::rpc {

/// What a door tells its caller.
struct Answer {
  enum class Kind : std::uint8_t {
    reply,     ///< `reply` holds Reply::encode() bytes; final
    failure,   ///< nothing is stored; `failure` says why
    pending,   ///< decided or paused, not final yet; `exchange` names it
    in_doubt,  ///< decided, external stages unsettled; `exchange` names it
  };
  Kind kind = Kind::reply;
  bool replayed = false;
  ExchangeId exchange;
  std::shared_ptr<const Bytes> reply;
  std::optional<Failure> failure;

  static Answer of(const Reply& reply, ExchangeId exchange = {});
  static Answer of(Bytes encoded, ExchangeId exchange = {});
  static Answer of(Failure failure);
  static Answer pending(ExchangeId exchange);
  static Answer in_doubt(ExchangeId exchange);
};

class Invocation;
class Refusals;
class Registry;
/// Runs on the invocation's lane and ends, now or later on that lane, by invocation.finish(). A
/// throw before that is a failure of kind internal.
using Handler = std::function<void(Invocation&)>;

enum class KeyUse : std::uint8_t { required, optional, none };
std::string_view key_use_name(KeyUse use) noexcept;

/// One command as its author declares it. Copied into the registry.
struct CommandSpec {
  std::string name;  ///< 1–64 of a–z 0–9 - _ .
  std::uint32_t version = 1;    ///< of requests that name none the newest runs, under one key with every other
  std::string summary;          ///< one sentence
  std::string app = "default";  ///< the namespace of callers that name none
  std::string permission;       ///< second half of "app:permission"; empty: the name
  bool anonymous = false;       ///< no token needed; such callers may not use keys, unless `client_id` is set
  /// Lets anonymous callers use keys: who asks, out of the request (an installation, a device). Empty text: the
  /// key is refused. Callers share replies with nobody but those who give the same id, so it should be hard to guess.
  std::function<std::string(const Command&)> client_id;
  bool shadow = true;           ///< may run in the shadow namespace
  KeyUse idempotency = KeyUse::required;
  idempotency::KeyPolicy keys;
  /// Commands with the same non-empty ordering key run in arrival order. Empty function: none.
  std::function<std::string(const Command&)> ordering_key;
  /// What the fingerprint covers. Empty function: the whole payload, however its JSON is written.
  std::function<Bytes(const Command&)> projection;
  std::size_t max_payload = 1 << 20;  ///< bytes
  std::string input_schema;           ///< JSON Schema text, told by describe(); may be empty
  Handler handler;
};

/// Between the key's claim and the handler: an order slot and a permit. Implemented by the admission
/// room's adapter. enter() ends, now or later on the lane, by invocation.entered(status); leave()
/// is called once for each success, when the invocation finishes.
class Gatekeeper {
 public:
  virtual ~Gatekeeper() = default;
  virtual void enter(Invocation& invocation) = 0;
  virtual void leave(Invocation& invocation) noexcept = 0;
  /// The invocation sleeps: its permit goes back, its turn stays. leave() still follows.
  virtual void pause(Invocation&) noexcept {}
  /// Takes back an enter() that has not ended. True: entered() will not be called.
  virtual bool forget(Invocation& invocation) noexcept = 0;
};

/// One command on its way through the registry. Owned and pooled by the door: it must live until
/// `done`, and can be used again after reset(). Lane-only.
class Invocation {
 public:
  /// Gets the answer, once, on the lane. It may reset or destroy the invocation.
  using Done = void (*)(Invocation&, Answer) noexcept;

  Invocation();
  Invocation(const Invocation&) = delete;
  Invocation& operator=(const Invocation&) = delete;
  ~Invocation();

  // Set by the door.
  Command command;
  Lane* lane = nullptr;
  Done done = nullptr;
  void* owner = nullptr;
  /// The reply is kept at least this long under the command's key, for callers that come again later.
  milliseconds keep_key_for{0};
  /// Only the reply that is stored under its key is wanted: a key that has none is answered not_found
  /// (`no_reply`), and nothing runs. Needs a key.
  bool replay_only = false;

  // For handlers.
  CancelScope scope;  ///< cancelled by the door when the caller is gone or the server stops
  const CommandSpec& spec() const noexcept { return *spec_; }
  ExchangeId exchange() const noexcept { return exchange_; }
  const std::string& ordering_key() const noexcept { return ordering_key_; }
  const Digest& fingerprint() const noexcept { return fingerprint_; }
  /// The right to run under the command's key; empty when it has none. A flow moves it out.
  idempotency::Claim& claim() noexcept { return claim_; }
  TaskContext& context() noexcept { return context_; }
  Registry& registry() noexcept { return *registry_; }

  /// Ends the invocation. If a claim is still held, a reply is first made durable under the key; a
  /// failure, pending or in_doubt releases it.
  void finish(Answer answer);
  /// Ends it with one deciding Commit: these mutations, the reply, the key and an audit row. A
  /// refused precondition ends as precondition_failed with its name as the code.
  void finish_with(store::Commit commit, Reply reply);
  /// Gives the permit back and keeps the turn: nothing runs until an event from outside.
  void pause() noexcept;
  /// Runs a Task as the rest of the handler; it must end by giving the Answer.
  void run_task(Task<Answer> task);
  /// Passes a cancellation of `scope` on to `inner`, until the invocation ends. One at a time.
  void pass_cancel_to(std::shared_ptr<CancelScope> inner) noexcept;
  /// Says that a Commit of the handler's own carries the audit row; else one is buffered at the end.
  void audited() noexcept { audited_ = true; }
  /// The audit row of this invocation, for handlers that write their own Commit.
  store::AuditRow audit_row(store::AuditOutcome outcome, std::string_view detail) const;
  /// By the Gatekeeper only.
  void entered(Status status);
  /// For the Gatekeeper: where it keeps its own record of this invocation.
  void* gate_ticket = nullptr;

  /// Ready for the next command. Not while it runs.
  void reset();

 private:
  friend class Registry;
  enum class Stage : std::uint8_t { idle, entering, claiming, running, committing };
  struct ClaimJob : idempotency::PendingClaim {
    Invocation* self = nullptr;
  };
  struct CommitJob;
  void commit(store::Commit commit, Bytes reply, store::AuditOutcome outcome);
  void claimed();
  void committed();
  void leave_commit_alone() noexcept;
  void task_done();
  void audit_answer(const Answer& answer);
  Answer not_the_same();
  void deliver(Answer answer);
  void leave_gate() noexcept;
  static void cancelled(void* owner) noexcept;

  Registry* registry_ = nullptr;
  std::shared_ptr<const CommandSpec> spec_;
  Stage stage_ = Stage::idle;
  bool admitted_ = false;
  bool has_key_ = false;
  bool unnamed_ = false;   // it names no version: the newest runs
  std::string key_owner_;  // with a key: the principal, or a client without one
  bool audited_ = false;
  ExchangeId exchange_;
  std::string ordering_key_;
  Digest fingerprint_{};
  idempotency::Claim claim_;
  TaskContext context_;
  ClaimJob pending_claim_;
  std::unique_ptr<CommitJob> pending_commit_;  // made with the first one
  Timer patience_;                             // of the caller, while it is on its way
  CancelListener listener_;
  std::shared_ptr<CancelScope> inner_scope_;
  Task<Answer> task_;
  bool* finished_ = nullptr;  // on the stack of the call into the handler
};

struct RegistryOptions {
  std::size_t max_audit_buffer = 4096;  ///< audit rows waiting; further ones are counted and lost
  std::size_t max_key_bytes = 255;
  Metrics* metrics = nullptr;  ///< sluice_requests_refused_total{code, traffic}; null: not counted
};

struct RegistryStats {
  std::uint64_t dispatched = 0, replayed = 0, denied = 0, failed = 0, audit_lost = 0;
};

/// Commands are added before the first dispatch; dispatch is thread-safe afterwards. `store`,
/// `keys` and `ids` must outlive it; close the store before destroying the registry.
class Registry {
 public:
  Registry(store::Store& store, idempotency::Keys& keys, IdSource& ids,
           RegistryOptions options = {});
  ~Registry();
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  /// Fails invalid_argument for a bad name or no handler, already_exists for a second spec with the
  /// same name and version.
  Status add(CommandSpec spec);
  /// Before the first dispatch; null: none.
  void set_gatekeeper(Gatekeeper* gatekeeper) noexcept { gatekeeper_ = gatekeeper; }

  /// version 0: the newest. Fails not_found (unknown_command), invalid_argument
  /// (unsupported_version, with the versions there are).
  Result<std::shared_ptr<const CommandSpec>> find(std::string_view name,
                                                  std::uint32_t version = 0) const;
  /// All specs, by name and version.
  std::vector<std::shared_ptr<const CommandSpec>> commands() const;
  /// The registry as JSON text: {"commands":[...]}.
  std::string describe() const;

  /// Takes the invocation through the checks and its handler; `done` is called exactly once, maybe
  /// before dispatch returns.
  void dispatch(Invocation& invocation);

  /// Buffers an audit row; it is written by a lazy commit and may be lost in a crash.
  void audit(store::AuditRow row);
  /// For a door: counts a request that was refused before it could be dispatched and buffers its row,
  /// `denied` for who asked, `error` for what was asked. A `stranger` has no token, or one that is no
  /// good, whose name the row may have: such rows are one a second for each code and name, and say
  /// how many there were. `row` has principal, command, namespace and correlation, as far as known.
  void refused(store::AuditRow row, const Failure& failure, bool stranger, std::string_view client, Instant now,
               bool shadow = false);
  /// For a door: counts a refusal that leaves no row, as of what names no command.
  void count_refused(const Failure& failure, bool shadow = false);
  RegistryStats stats() const noexcept;
  store::Store& store() noexcept { return store_; }
  idempotency::Keys& keys() noexcept { return keys_; }
  IdSource& ids() noexcept { return ids_; }

 private:
  friend class Invocation;
  Status authorise(Invocation& invocation);
  Status check_key(Invocation& invocation) const;
  bool check(Invocation& invocation);
  static Bytes scope_of(const Invocation& invocation, std::uint32_t version);
  Digest print_of(const Invocation& invocation) const;
  void note_the_same_elsewhere(Invocation& invocation) const;
  void proceed(Invocation& invocation);
  void enter(Invocation& invocation);
  void claim(Invocation& invocation);
  void handle(Invocation& invocation);

  store::Store& store_;
  idempotency::Keys& keys_;
  IdSource& ids_;
  const RegistryOptions options_;
  Gatekeeper* gatekeeper_ = nullptr;
  std::map<std::string, std::map<std::uint32_t, std::shared_ptr<const CommandSpec>>, std::less<>>
      specs_;
  void refuse(Invocation& invocation, Failure failure);
  static Failure mismatch();
  struct AuditLog;
  std::shared_ptr<AuditLog> audit_log_;
  std::unique_ptr<Refusals> refusals_;
  std::atomic<std::uint64_t> dispatched_{0}, replayed_{0}, denied_{0}, failed_{0};
};

/// The digest a key is bound to: SHA-256 over length-prefixed (command, version, projection), by `spec`'s
/// projection. Without a declared one it is the payload in its canonical form.
Digest fingerprint_of(const CommandSpec& spec, const Command& command, std::uint32_t version);
inline Digest fingerprint_of(const CommandSpec& spec, const Command& command) {
  return fingerprint_of(spec, command, spec.version);
}
/// What versions before this form stored for it, when that is another one: over the payload as sent.
std::optional<Digest> earlier_fingerprint_of(const CommandSpec& spec, const Command& command, std::uint32_t version);

}  // namespace sluice::rpc
