// One stream: numbers what arrives, takes each message through gate and handler, and counts.
#include <algorithm>
#include <bit>

#include "sluice/stream/pipeline.hpp"

namespace sluice::stream {
namespace {

// Keeps the end for the outermost call: ended() may destroy the session.
class Busy {
 public:
  Busy(int& depth) noexcept : depth_(depth) { ++depth_; }
  ~Busy() { --depth_; }

 private:
  int& depth_;
};

Failure not_run(std::uint64_t sequence, std::uint64_t ended_at) {
  return Failure(FailureKind::ordering, "stream_ended",
                 "message " + std::to_string(sequence) + " was not run: the stream ended" +
                     (ended_at == 0 ? std::string() : " at message " + std::to_string(ended_at)));
}

bool ran(FailureClass what) noexcept { return !traits(what).breaks_ordering; }

constexpr std::uint8_t kReplayed = 0x80;

// Of a stream of which everything fails: the first have their whole text, so that the rest costs little.
constexpr std::size_t kWholeTexts = 100;
constexpr std::size_t kShortText = 1024;

Failure shortened(const Failure& failure) {
  std::string_view text = failure.detail();
  std::size_t end = kShortText;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;  // between two characters
  Failure out(failure.kind(), failure.code(), std::string(text.substr(0, end)));
  const auto transaction = transaction_of(failure);
  return transaction.empty() ? out : out.with("transaction", std::string(transaction));
}

}  // namespace

Session::Session(Pipeline& pipeline, Lane& lane)
    : pipeline_(pipeline), lane_(lane), self_(std::make_shared<Session*>(this)) {}

Session::~Session() {
  *self_ = nullptr;
  SLUICE_ASSERT(in_flight_ == 0, "a stream was destroyed with messages in flight");
  leave();
}

Status Session::open() {
  SLUICE_TRY(pipeline_.enter(*this));
  open_ = entered_ = true;
  return {};
}

void Session::resume_after(std::uint64_t done) noexcept {
  next_ = done + 1;
  summary_.done = resumed_ = done;
}

bool Session::has_credit() const noexcept {
  return !closed_ && !terminal() &&
         pipeline_.has_credit(in_flight_, bytes_, next_ - 1 - summary_.done);
}

void Session::received(Delivery& d) {
  if (terminal() || over_) return released(d);
  {
    const Busy busy(busy_);
    d.session_ = this;
    d.sequence_ = next_++;
    d.attempt_ = 0;
    ++summary_.accepted;
    tallies_.accepted.add();
    link(d);
    bytes_ += d.size;
    if (d.room_ == nullptr) d.occupy(pipeline_.room_);
    d.context_.lane = &lane_;
    d.context_.scope = &scope_;
    // The one message that a stream may always have is not refused for its bytes.
    d.bytes = in_flight_ == 1 ? 0 : d.size;
    d.lane = &lane_;
    d.scope = &scope_;
    d.deadline = kNever;  // waiting is what flow control is for; the stream's own end ends it
    d.run = [](Job* job) noexcept {
      auto& delivery = *static_cast<Delivery*>(static_cast<admission::PendingAdmission*>(job));
      Session& session = *delivery.session_;
      {
        const Busy inner(session.busy_);
        session.admitted(delivery);
      }
      session.end_if_over();
    };
    if (pipeline_.options_.ordering.mode == Order::fifo) {
      d.ordering_key = fifo_key_;
    } else {
      d.ordering_key = "k";  // "" would mean no order to the gate
      key_of(d, d.ordering_key);
    }
    ask(d);
  }
  end_if_over();
}

void Session::half_close() {
  closed_ = true;
  end_if_over();
}

void Session::ask(Delivery& d) {
  d.place_ = Place::waiting;
  if (pipeline_.gate_.admit(d)) admitted(d);
}

bool Session::key_is_broken(const Delivery& d) const { return !broken_.empty() && broken_.contains(d.ordering_key); }

void Session::admitted(Delivery& d) {
  Result<admission::Admission> answer = d.take();
  d.place_ = Place::idle;
  if (!answer) return drop(d, std::move(answer).error());
  d.admission_ = std::move(*answer);
  if (d.admission_.under_pressure()) summary_.pressure = true;
  if (terminal()) return drop(d, not_run(d.sequence_, summary_.ended_at));
  if (key_is_broken(d)) {  // told already by the message that broke it
    const Failure why(FailureKind::ordering, "key_broken",
                      "message " + std::to_string(d.sequence_) +
                          " was not run: an earlier message of its key did not take effect");
    return conclude(d, FailureClass::ordering, &why, false);
  }
  run(d);
}

void Session::run(Delivery& d) {
  d.place_ = Place::running;
  if (++d.attempt_ == 1) {
    d.began_ = lane_.turn_time();
    d.context_.deadline = d.began_ + pipeline_.options_.message_deadline;
  }
  bool settled = false;
  d.settled_ = &settled;
  std::optional<Failure> thrown;
  try {
    handle(d);
  } catch (const std::exception& error) {
    thrown.emplace(FailureKind::internal, "exception", std::string("the handler threw: ") + error.what());
  } catch (...) {
    thrown.emplace(FailureKind::internal, "exception", "the handler threw something that is no std::exception");
  }
  if (settled) return;  // the delivery may be another message's by now
  d.settled_ = nullptr;
  if (thrown) settle(d, fail(*std::move(thrown)));
}

void Session::settle(Delivery& d, Status status, bool replayed) {
  SLUICE_ASSERT(d.place_ == Place::running, "a message was settled that is not being handled");
  {
    const Busy busy(busy_);
    if (d.settled_ != nullptr) *std::exchange(d.settled_, nullptr) = true;
    d.place_ = Place::idle;
    if (status) {
      pipeline_.budget_.on_success();
      conclude(d, FailureClass::none, nullptr, replayed);
    } else {
      const Failure& failure = status.error();
      const FailureClass what = classify_failure(failure);
      std::optional<Duration> delay;
      if (!replayed && is_retryable(failure) && !terminal() && !scope_.cancelled())
        delay = pipeline_.retry_delay(d.attempt_, failure, lane_.turn_time() - d.began_);
      const Instant at = delay ? lane_.clock().now() + *delay : kNever;
      if (delay && at < d.context_.deadline) {
        ++summary_.retries;
        tallies_.retries.add();
        d.place_ = Place::backing_off;
        d.admission_.release_permit();  // the key is held, the worker is not
        d.backoff_.arm(lane_, at, [](void* delivery) noexcept {
          auto& one = *static_cast<Delivery*>(delivery);
          one.session_->again(one);
        }, &d);
      } else if (ran(what)) {
        if (terminal() || keep_failure(d, failure)) {
          conclude(d, what, &failure, false);
        } else {
          d.place_ = Place::keeping;
          d.kept_ = failure;
        }
      } else {
        drop(d, failure);  // a gate further in refused it: the same hole as one of ours
      }
    }
  }
  end_if_over();
}

void Session::kept(Delivery& d, Status status) {
  SLUICE_ASSERT(d.place_ == Place::keeping, "a failure was kept that nobody waits for");
  {
    const Busy busy(busy_);
    d.place_ = Place::idle;
    const Failure failure = *std::exchange(d.kept_, std::nullopt);
    if (status) {
      conclude(d, classify_failure(failure), &failure, false);
    } else {
      end_with(std::move(status).error());
      const Failure lost(FailureKind::ordering, "stream_ended",
                         "message " + std::to_string(d.sequence_) + " failed (" + failure.to_string() +
                             "), and that could not be made durable: it is not done");
      conclude(d, FailureClass::ordering, &lost, false);
    }
  }
  end_if_over();
}

void Session::again(Delivery& d) noexcept {
  {
    const Busy busy(busy_);
    d.held = std::move(d.admission_);
    ask(d);
  }
  end_if_over();
}

// It did not run, or not to its end: never a silent hole.
void Session::drop(Delivery& d, Failure why) {
  const FailureClass what = classify_failure(why);
  if (!terminal()) {
    const bool kept = !traits(what).terminal && pipeline_.options_.ordering.on_drop == OnDrop::break_key;
    if (kept)
      break_key(d, why);
    else
      end_with(why.at("message " + std::to_string(d.sequence_)), d.sequence_);
  }
  conclude(d, what, &why, false);
}

void Session::break_key(Delivery& d, const Failure& why) {
  if (broken_.size() < pipeline_.options_.ordering.max_broken_keys || broken_.contains(d.ordering_key)) {
    broken_.insert(d.ordering_key);
    return;
  }
  end_with(Failure(FailureKind::ordering, "too_many_broken_keys",
                   "message " + std::to_string(d.sequence_) + ": " + std::to_string(broken_.size()) +
                       " keys of this stream are broken already; the last by " + why.to_string()),
           d.sequence_);
}

void Session::conclude(Delivery& d, FailureClass what, const Failure* failure, bool replayed) {
  const bool ended_here = ran(what);
  if (what == FailureClass::none) {
    ++summary_.succeeded;
    if (replayed) ++summary_.replayed;
    tallies_.succeeded.add();
  } else {
    ++summary_.failed[static_cast<std::size_t>(what)];
    if (what != FailureClass::unsettled) tallies_.failed.add();
    note(d.sequence_, what, failure);
    if (ended_here && !terminal()) {
      const OnFailure then = pipeline_.options_.ordering.on_failure;
      if (then == OnFailure::break_key) break_key(d, *failure);
      if (then == OnFailure::end_stream) end_with(*failure, d.sequence_);
    }
    if (traits(what).terminal && !terminal()) end_with(*failure, d.sequence_);
  }
  if (ended_here) mark_done(d.sequence_, what, replayed);
  unlink(d);
  bytes_ -= d.size;
  d.vacate();
  d.held.release();
  d.admission_.release();  // after the marks: who comes next in the key sees them
  end_behind_a_hole();
  released(d);
}

// What did not run and did not end the stream (a broken key) stays unfinished for good; once credit.max_ahead
// are behind it nothing more would be read, and the stream would hang.
void Session::end_behind_a_hole() {
  const std::uint64_t hole = summary_.done + 1;
  if (terminal() || closed_ || next_ - hole < pipeline_.options_.credit.max_ahead) return;
  if (first_ != nullptr && first_->sequence_ <= hole) return;  // it still runs, or waits
  end_with(Failure(FailureKind::ordering, "too_far_behind_a_hole",
                   "message " + std::to_string(hole) + " was not run, and " + std::to_string(next_ - hole - 1) +
                       " came after it, which is as many as may; come again from it on"),
           hole);
}

void Session::note(std::uint64_t sequence, FailureClass what, const Failure* failure) {
  auto& told = summary_.first_failures;
  const auto at = std::ranges::upper_bound(told, sequence, {}, &Fallen::sequence);
  if (at == told.end() && told.size() >= pipeline_.options_.max_failures_told) return;
  const bool whole = told.size() < kWholeTexts || failure->detail().size() <= kShortText;
  told.insert(at, Fallen{sequence, what, whole ? *failure : shortened(*failure)});
  if (told.size() > pipeline_.options_.max_failures_told) told.pop_back();
}

void Session::mark_done(std::uint64_t sequence, FailureClass what, bool replayed) {
  const auto mark = static_cast<std::uint8_t>((static_cast<unsigned>(what) + 1) | (replayed ? kReplayed : 0U));
  if (sequence != summary_.done + 1) {
    const std::size_t ahead = sequence - summary_.done;
    if (ahead > finished_.size()) {  // a power of two, so that places stay where they are modulo
      std::vector<std::uint8_t> wider(std::bit_ceil(std::max<std::size_t>(ahead, 64)));
      for (std::size_t i = 1; i <= finished_.size(); ++i)
        wider[(summary_.done + i) & (wider.size() - 1)] = finished_[(summary_.done + i) & (finished_.size() - 1)];
      finished_ = std::move(wider);
    }
    finished_[sequence & (finished_.size() - 1)] = mark;
    return;
  }
  summary_.done = sequence;
  advanced(sequence, what, replayed);
  while (!finished_.empty()) {
    std::uint8_t& next = finished_[(summary_.done + 1) & (finished_.size() - 1)];
    if (next == 0) break;
    const std::uint8_t was = std::exchange(next, std::uint8_t{0});
    advanced(++summary_.done, static_cast<FailureClass>((was & ~kReplayed) - 1), (was & kReplayed) != 0);
  }
}

void Session::end_with(Failure why, std::uint64_t sequence) {
  if (terminal() || over_) return;
  {
    const Busy busy(busy_);
    summary_.ended_by = why;
    summary_.ended_at = sequence;
    drop_waiting(why);
  }
  end_if_over();
}

void Session::cancel(Failure why) {
  if (over_) return;
  {
    const Busy busy(busy_);
    const FailureKind reason = why.kind();
    if (!terminal()) summary_.ended_by = why;
    drop_waiting(why);
    scope_.cancel(reason);
  }
  end_if_over();
}

void Session::drop_waiting(const Failure& why) {
  std::vector<Delivery*> all;
  for (Delivery* d = first_; d != nullptr; d = d->next_)
    if (d->place_ == Place::waiting || d->place_ == Place::backing_off) all.push_back(d);
  const FailureClass what = classify_failure(why);
  for (Delivery* d : all) {
    if (d->place_ == Place::waiting && !pipeline_.gate_.forget(*d)) continue;  // its answer is on the way
    d->backoff_.cancel();
    d->place_ = Place::idle;
    const Failure own = traits(what).terminal ? why : not_run(d->sequence_, summary_.ended_at);
    conclude(*d, classify_failure(own), &own, false);
  }
}

void Session::end_if_over() noexcept {
  if (busy_ != 0 || over_ || !open_ || in_flight_ != 0 || (!closed_ && !terminal())) return;
  over_ = true;
  if (answered_when_over()) leave();
  ended();
}

void Session::leave() noexcept {
  if (std::exchange(entered_, false)) pipeline_.leave(*this);
}

void Session::link(Delivery& d) noexcept {
  d.next_ = nullptr;
  d.previous_ = last_;
  (last_ != nullptr ? last_->next_ : first_) = &d;
  last_ = &d;
  ++in_flight_;
}

void Session::unlink(Delivery& d) noexcept {
  (d.previous_ != nullptr ? d.previous_->next_ : first_) = d.next_;
  (d.next_ != nullptr ? d.next_->previous_ : last_) = d.previous_;
  --in_flight_;
}

}  // namespace sluice::stream
