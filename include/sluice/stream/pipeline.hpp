// The pipeline of one kind of stream: receiver (numbers, credit) → gate (turn, permit) → handler
// (with retries) → counts. A Pipeline is shared by all its streams; a Session is one stream.
// Whoever brings messages (a gRPC reactor, a test) derives from Session.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "sluice/base/lifecycle.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/base/random.hpp"
#include "sluice/base/task.hpp"
#include "sluice/stream/failure.hpp"
#include "sluice/stream/options.hpp"
#include "sluice/stream/room.hpp"

namespace sluice::stream {

class Session;

/// What a stream counts: written by its lane alone, so that a message costs no step that lanes share.
class Tally {
 public:
  void add(std::uint64_t more = 1) noexcept {
    value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
  }
  std::uint64_t get() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

struct Tallies {
  Tally accepted, succeeded, failed, retries;
  void add(const Tallies& other) noexcept {
    accepted.add(other.accepted.get());
    succeeded.add(other.succeeded.get());
    failed.add(other.failed.get());
    retries.add(other.retries.get());
  }
};

struct PipelineStats {
  std::size_t streams = 0;  ///< open now
  std::uint64_t accepted = 0, succeeded = 0, failed = 0, retries = 0;
  admission::GateStats gate;
};

/// Thread-safe. Sessions must have ended when it is destroyed.
class Pipeline final : public Component {
 public:
  /// `options` must pass check(). `clock`, `random` and `metrics` (may be null) must outlive it.
  Pipeline(Options options, Clock& clock, Random& random, Metrics* metrics = nullptr);
  ~Pipeline() override;
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  const Options& options() const noexcept { return options_; }
  Clock& clock() noexcept { return clock_; }
  PipelineStats stats() const;
  /// Whether one more message may be read by a stream that has so much received and not finished; `ahead`:
  /// received past the first unfinished. The one place that decides it.
  bool has_credit(std::size_t messages, std::size_t bytes, std::uint64_t ahead) const noexcept {
    const auto& credit = options_.credit;
    return messages < credit.messages && bytes < credit.bytes && ahead < credit.max_ahead && room_.has_place(messages, bytes);
  }
  Room& room() noexcept { return room_; }

  std::string_view name() const noexcept override { return options_.name; }
  /// New streams are refused; without drain_on_close new messages of open ones as well.
  void drain() noexcept override;
  /// Past the shutdown's grace it cancels first.
  bool drained() noexcept override;
  /// What runs is cancelled (shutting_down), what waits fails with it; each stream ends so.
  void cancel() noexcept override;
  /// After cancel(), for streams whose handlers do not end: abandoned() is called for each.
  void abandon() noexcept;

 private:
  friend class Session;
  void tell_all(void (*what)(Session&)) noexcept;
  Status enter(Session& session);
  void leave(Session& session) noexcept;
  std::optional<Duration> retry_delay(std::uint32_t attempt, const Failure& failure, Duration elapsed);

  const Options options_;
  Clock& clock_;
  Random& random_;
  admission::Gate gate_;
  Room room_;
  resilience::RetryBudget budget_;
  resilience::RetryPolicy retry_;
  std::atomic<bool> draining_{false};
  Instant graceful_until_ = kNever;  // set before draining_
  std::atomic<bool> cancelled_{false};
  mutable std::mutex mutex_;  // sessions_, left_, random_
  std::set<Session*> sessions_;
  Tallies left_;  // of the streams that are no longer in sessions_
  std::uint64_t next_stream_ = 1;
  std::unique_ptr<Metrics::Hook> hook_;  // last: it reads all of the above
};

/// One message on its way, and the memory it is in: the session's owner keeps it and may use it
/// again once released() was called for it. Lane-only.
class Delivery : admission::PendingAdmission {
 public:
  std::size_t size = 0;  ///< bytes; set before received()

  std::uint64_t sequence() const noexcept { return sequence_; }  ///< from 1
  std::uint32_t attempt() const noexcept { return attempt_; }    ///< from 1
  /// For what the handler runs: lane, scope and deadline of this message.
  TaskContext& context() noexcept { return context_; }
  bool under_pressure() const noexcept { return admission_.under_pressure(); }
  /// Counts in the pipeline's room from now on, for whoever receives long before received(), which does it
  /// else. Once `size` is set.
  void occupy(Room& room) noexcept {
    room_ = &room;
    room.take(occupies_ = size);
  }
  /// It has its end, or is not taken on. Idempotent.
  void vacate() noexcept {
    if (Room* const room = std::exchange(room_, nullptr)) room->give_back(occupies_);
  }

 private:
  friend class Session;
  enum class Place : std::uint8_t { idle, waiting, running, backing_off, keeping };
  Session* session_ = nullptr;
  Room* room_ = nullptr;
  std::size_t occupies_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint32_t attempt_ = 0;
  Place place_ = Place::idle;
  bool* settled_ = nullptr;  // on the stack of the call into handle()
  Instant began_;
  TaskContext context_;
  admission::Admission admission_;
  Timer backoff_;
  std::optional<Failure> kept_;  // its last failure, while that is made durable
  Delivery* next_ = nullptr;
  Delivery* previous_ = nullptr;
};

/// A message's end that was not a success.
struct Fallen {
  std::uint64_t sequence = 0;
  FailureClass what = FailureClass::none;
  Failure failure{FailureKind::none};
};

/// What a stream came to; the RPC's answer is made from it.
struct Summary {
  std::uint64_t accepted = 0;   ///< messages that were numbered
  std::uint64_t succeeded = 0;  ///< of those, replayed ones included
  std::uint64_t replayed = 0;   ///< answered from an earlier run under their idempotency key
  std::array<std::uint64_t, kFailureClasses> failed{};  ///< by class; unsettled is one, and no failure
  std::uint64_t retries = 0;
  std::uint64_t done = 0;  ///< every message up to this sequence has its end
  std::vector<Fallen> first_failures;  ///< by sequence, at most max_failures_told
  bool pressure = false;  ///< a soft policy admitted above capacity
  /// Why the stream ended before its half-close was worked off; its sequence, 0: none in particular.
  std::optional<Failure> ended_by;
  std::uint64_t ended_at = 0;

  std::uint64_t failures() const noexcept;   ///< without the unsettled
  std::uint64_t unsettled() const noexcept;  ///< accepted = succeeded + failures + unsettled + in flight
};

/// One stream. Lane-only, except where said. Open it, call received() for each message, half_close()
/// after the last, cancel() when the caller is gone; ended() is the end.
class Session {
 public:
  Session(Pipeline& pipeline, Lane& lane);
  virtual ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Fails shutting_down when the pipeline drains: then nothing else may be called. Any thread.
  Status open();
  /// Numbers the message and takes it on. In the order of arrival. After terminal() it is released
  /// at once, unnumbered.
  void received(Delivery& delivery);
  /// No message will follow. Idempotent.
  void half_close();
  /// The caller is gone (`cancelled`, `timeout`) or the server stops: what runs is cancelled, what
  /// waits falls. Idempotent.
  void cancel(Failure why);
  /// Ends the stream with this failure: what waits falls, what runs finishes. `sequence` 0: of no
  /// message.
  void end_with(Failure why, std::uint64_t sequence = 0);
  /// By the handler, once per handle(), from the lane. `replayed`: it had run before, so a failure is
  /// its last.
  void settle(Delivery& delivery, Status status, bool replayed = false);

  bool terminal() const noexcept { return summary_.ended_by.has_value(); }
  std::size_t in_flight() const noexcept { return in_flight_; }
  std::size_t bytes_in_flight() const noexcept { return bytes_; }
  /// Whether one more message may be read. Whoever reads asks before each read; when it was false,
  /// again in released().
  bool has_credit() const noexcept;
  const Summary& summary() const noexcept { return summary_; }
  std::uint64_t resumed_after() const noexcept { return resumed_; }  ///< 0: from the beginning
  Lane& lane() noexcept { return lane_; }
  CancelScope& scope() noexcept { return scope_; }
  Pipeline& pipeline() noexcept { return pipeline_; }
  /// Numbering goes on after `done`, as told to a client that resumes. Before the first message.
  void resume_after(std::uint64_t done) noexcept;

 protected:
  /// The ordering key, appended to `out`; only asked in keyed mode. "" is one key for all.
  virtual void key_of(const Delivery& delivery, std::string& out) = 0;
  /// Works on one message and ends with settle(), at once or later on the lane. A throw is a
  /// failure of kind internal. Called again for each retry.
  virtual void handle(Delivery& delivery) = 0;
  /// The message has its end and its memory is free; credit may be there again.
  virtual void released(Delivery& delivery) noexcept = 0;
  /// The message ran and this is its last failure. False: that is made durable first, and kept() ends
  /// it then; its key waits, so that nothing later of it has its effect before.
  virtual bool keep_failure(Delivery& delivery, const Failure& failure) {
    (void)delivery, (void)failure;
    return true;
  }
  /// After a keep_failure() that was false, once, on the lane. Not ok: nobody knows at a resume that it
  /// failed, so it does not count as done, and the stream ends with the status.
  void kept(Delivery& delivery, Status status);
  /// This message ran to its end, and so did every one before it: called in order of sequence,
  /// before released(). For a durable mark.
  virtual void advanced(std::uint64_t sequence, FailureClass what, bool replayed) noexcept {
    (void)sequence, (void)what, (void)replayed;
  }
  /// The stream is over: nothing is in flight. Once; it may destroy the session.
  virtual void ended() noexcept = 0;
  /// False: the caller is answered some time after ended(), and the pipeline is not drained until
  /// leave(), or the session's end.
  virtual bool answered_when_over() const noexcept { return true; }
  /// The caller has its answer. Idempotent.
  void leave() noexcept;
  /// The server goes now: answer the caller, whatever still runs; ended() follows when it has ended, or
  /// was before, where answered_when_over() is false.
  virtual void abandoned() noexcept {}

 private:
  friend class Pipeline;
  using Place = Delivery::Place;
  void ask(Delivery& delivery);
  void admitted(Delivery& delivery);
  void run(Delivery& delivery);
  void again(Delivery& delivery) noexcept;
  void drop(Delivery& delivery, Failure why);
  void conclude(Delivery& delivery, FailureClass what, const Failure* failure, bool replayed);
  void note(std::uint64_t sequence, FailureClass what, const Failure* failure);
  void mark_done(std::uint64_t sequence, FailureClass what, bool replayed);
  void drop_waiting(const Failure& why);
  void break_key(Delivery& delivery, const Failure& why);
  void end_behind_a_hole();
  bool key_is_broken(const Delivery& delivery) const;
  void end_if_over() noexcept;
  void link(Delivery& delivery) noexcept;
  void unlink(Delivery& delivery) noexcept;

  Pipeline& pipeline_;
  Lane& lane_;
  CancelScope scope_;
  Summary summary_;
  Tallies tallies_;
  Delivery* first_ = nullptr;  // in flight, in order of arrival
  Delivery* last_ = nullptr;
  std::size_t in_flight_ = 0;
  std::size_t bytes_ = 0;
  std::uint64_t next_ = 1;
  std::uint64_t resumed_ = 0;
  std::vector<std::uint8_t> finished_;  // ring of what ran to its end past `done`; 0: not yet
  std::set<std::string, std::less<>> broken_;
  std::string fifo_key_;
  int busy_ = 0;  // frames of ours on the stack: the end waits for the outermost
  bool open_ = false;
  bool entered_ = false;  // the pipeline knows it
  bool closed_ = false;
  bool over_ = false;
  std::shared_ptr<Session*> self_;  // null in it: destroyed; for those who post to the lane
};

}  // namespace sluice::stream
