// Takes one exchange through one flow: does what the Machine asks for and tells it what happened.
// Owned by itself, from begin() until the last effect is done; lane-only.
#pragma once
#include "flow/flow_metrics.hpp"
#include "flow/machine.hpp"
#include "flow/records.hpp"
#include "sluice/flow/flow.hpp"

namespace sluice::flow {

/// The precondition that nobody else appended to the journal of the exchange.
inline constexpr std::string_view kJournalGuard = "journal";

/// In the bag of a pause: which step has set the response that is recorded with it.
inline constexpr std::string_view kRespondedAt = "sluice.responded_at";

class Runner;

/// What the caller is told when this guard refuses; stored with the refusal.
Reply refusal_reply(const Draft::Guard& guard);

struct RunnerWrite : store::PendingCommit {
  Runner* runner = nullptr;
};
/// A turn of the lane of its own.
struct RunnerTurn : Job {
  Runner* runner = nullptr;
};

class Runner final : private WakeDesk {
 public:
  static void* operator new(std::size_t size) { return allocate_frame(size); }
  static void operator delete(void* at, std::size_t size) noexcept { free_frame(at, size); }

  Runner(Flow& flow, ExchangePtr exchange, RunOptions options, Flow::Done done, void* owner);
  ~Runner() override;
  /// A new exchange, from the entry.
  void begin();
  /// After a crash: the machine and journal position are restored already.
  /// `listed`: as in doubt already, and it need not be said again.
  void resume(Machine machine, Begun begun, std::uint32_t next_record, Bytes reply, bool listed);
  /// The same for one that paused: sleeps on, or goes on with the wake-up that was recorded.
  void resume_paused(Machine machine, Begun begun, std::uint32_t next_record, Paused paused,
                     std::optional<Woken> woken);
  /// By Flow::wake, on the lane.
  void woken(PendingWake& pending);
  /// At the end of the Flow: one that sleeps ends with it, unanswered.
  static void drop_sleeping(Runner* runner);

 private:
  // What to do at once; nothing: suspended, or ended. One register wide.
  class Next {
   public:
    Next() = default;
    Next(std::nullopt_t) noexcept {}
    Next(Action action) noexcept : kind_(static_cast<std::uint32_t>(action.kind) + 1), step_(action.step) {}
    explicit operator bool() const noexcept { return kind_ != 0; }
    Action operator*() const noexcept { return {static_cast<Action::Kind>(kind_ - 1), step_}; }

   private:
    std::uint32_t kind_ = 0;
    std::uint32_t step_ = 0;
  };

  void go(Next next) noexcept;
  Next take(Action action);

  // First phase (runner_prepare.cpp).
  Next prepare(std::uint32_t step);
  Next prepared(Result<Vote> vote);
  /// Before each prepare: a deadline that has passed, or a cancelled caller, ends the first phase.
  Next stop_if_cancelled() {
    if (!stage_scope_.cancelled() && exchange_->deadline() == kNever) return std::nullopt;
    return stop();
  }
  Next stop();
  void keep_decline_of(std::uint32_t step);
  void start_limits(const Stage& stage);
  void end_limits() {
    if (limit_timer_.armed()) limit_timer_.cancel();
  }

  // Durable points (runner_commit.cpp).
  Next write_intent(std::uint32_t step);
  Next decide();
  Next decide_in_memory();
  void draft_decision(store::Commit& commit);
  void draft_guards(store::Commit& commit, Decision decision);
  void draft_effects(std::vector<store::Mutation>& out);
  store::AuditAppend audit(store::AuditOutcome outcome, std::string detail) const;
  void audit_lazily(std::string detail);
  bool remembered() const;
  void submit(Next (Runner::*then)());
  bool durable_now();
  Next intent_written();
  Next decision_written();
  Next refused(const store::CommitOutcome& outcome);
  Next keep_nothing(Failure why);
  Next rerun();
  Next resolve_unknown(Failure failure);
  Next leave_to_recovery(OutcomeKind told);
  Next fence();
  Next fenced();
  Next decision_stays_unknown();
  Next decided_after_all(Result<store::Answer> answer);
  void append_lazily(const Record& record, std::vector<store::Mutation> more = {});

  void begin_durably(store::Commit& commit, const Record& first, store::OpenState state);

  // Pauses (runner_pause.cpp).
  enum class Sleeping : std::uint8_t { no, announced, writing, asleep, waking };
  Status expect_wake(std::string token) override;
  Next pause(std::uint32_t step);
  Next pause_written();
  Next fall_asleep();
  void arm_wake(Duration after);
  Next take_wake();
  Next wake_written();
  Next wake_up(Wake wake);
  void answer_waker(Status status);
  void forget_token();

  // Second phase (runner_settle.cpp).
  void probe_what_was_found() const;
  Next second_phase(Action action);
  void enter_second_phase(Action action);
  Next phase_done(Status status);
  Next end();
  Next list_in_doubt();
  void complete_key(std::vector<store::Mutation>& out);

  // Whom recovery leaves alone, from the first intent to the end.
  void enlist();

  // Answers.
  void observe(EventKind kind) noexcept;
  void answer(OutcomeKind kind);
  void arm_deadline(Instant at) noexcept;
  void deadline_passed() noexcept;
  Bytes reply_for_key() const;
  Begun make_begun(bool with_request) const;
  Failure caught() noexcept;
  void time_begin() {
    if (timed_) phase_began_ = lane_.clock().now();
  }
  void time_end(std::uint32_t step, Phase phase, bool ok) {
    if (timed_) report_time(step, phase, ok);
  }
  void report_time(std::uint32_t step, Phase phase, bool ok);

  using Write = RunnerWrite;
  using Turn = RunnerTurn;
  store::Commit& new_commit();

  Flow& flow_;
  ExchangePtr exchange_;
  Lane& lane_;
  idempotency::Claim claim_;
  Flow::Done done_;
  void* owner_;
  Machine machine_;

  bool answered_ = false;
  bool over_ = false;       // nothing is left to do: go() deletes this
  bool writing_ = false;    // a Commit is on its way
  bool begun_durable_ = false;
  bool decided_ = false;
  bool listed_ = false;     // as in doubt, by an earlier run
  bool live_ = false;       // listed in Flow::live_
  std::optional<ExchangeId> winner_;  // another exchange completed our key first
  std::optional<Failure> cause_;
  std::optional<Reply> reply_;
  Bytes reply_bytes_;
  std::uint32_t next_record_ = 0;
  std::uint32_t reruns_ = 0;
  std::optional<Begun> begun_;  // once it is durable, or about to be

  Action current_{Action::Kind::end};
  Task<Result<Vote>> vote_task_;
  Task<Status> status_task_;
  Next (Runner::*then_)() = nullptr;
  std::vector<Exchange::Entry> callers_bag_;
  std::size_t guards_from_ = 0;  // where the draft's guards begin among the requirements of the decision
  Instant wake_at_ = kNever;
  Sleeping sleeping_ = Sleeping::no;
  bool cut_short_ = false;  // by the deadline, and the caller not told yet
  bool detached_ = false;   // it has paused: its caller's patience does not end it any more
  void (*on_pause_)(void*) noexcept = nullptr;
  Duration pause_for_{0};
  std::string token_;       // announced
  PendingWake* waker_ = nullptr;
  std::optional<Write> write_;  // in-memory flows never make one
  Turn turn_;

  CancelScope stage_scope_;
  CancelScope detached_scope_;
  CancelListener caller_gone_;
  Timer limit_timer_;
  Timer deadline_timer_;
  Timer backoff_timer_;
  Timer budget_timer_;
  Instant second_phase_until_ = kNever;
  Instant caller_deadline_ = kNever;

  Instant phase_began_;
  Instant run_began_;
  bool timed_ = false;  // a profiler, metrics or a tracer want times; else no clock is read
  std::unique_ptr<Profile> profile_;
};

}  // namespace sluice::flow
