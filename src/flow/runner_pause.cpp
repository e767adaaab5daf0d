// An exchange that sleeps: announced, recorded, woken once or timed out, then prepare goes on.
#include <charconv>

#include "flow/draft_codec.hpp"
#include "flow/live.hpp"
#include "flow/runner.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::flow {

Status Runner::expect_wake(std::string token) {
  if (sleeping_ == Sleeping::announced && token == token_) return {};  // a retry of the stage asks again
  if (sleeping_ != Sleeping::no)
    return fail(FailureKind::already_exists, "wake_token_given",
                "this stage expects '" + token_ + "' already; one wake token at a time");
  if (!flow_.live_->announce(token, exchange_->ns(), lane_, this))
    return fail(FailureKind::already_exists, "wake_token_taken",
                "another exchange of flow '" + flow_.name() + "' expects '" + token + "'");
  token_ = std::move(token);
  sleeping_ = Sleeping::announced;
  return {};
}

Runner::Next Runner::pause(std::uint32_t) {
  if (sleeping_ == Sleeping::no || pause_for_ <= Duration::zero()) {
    cause_ = Failure(FailureKind::invalid_argument, "bad_pause",
                     sleeping_ == Sleeping::no
                         ? "a stage paused without exchange.expect_wake(): nothing could wake it"
                         : "a stage paused with a timeout that is not above zero");
    if (sleeping_ != Sleeping::no) forget_token();
    return machine_.prepare_failed(std::string(cause_->code()));
  }
  exchange_->drop_transient();  // a restart would: live runs see no more than it does
  detached_ = true;
  if (flow_.options_.store == nullptr) return fall_asleep();
  Paused paused;
  paused.token = token_;
  paused.until_ms =
      (flow_.options_.store->now() + std::chrono::ceil<milliseconds>(pause_for_)).time_since_epoch().count();
  paused.at = machine_.position();
  paused.bag = exchange_->durable_entries();
  if (exchange_->response()) {
    paused.response = exchange_->response()->encode();
    paused.bag.emplace_back(std::string(kRespondedAt), std::to_string(exchange_->responded_at_));
  }
  paused.draft = encode_draft(exchange_->draft());
  const Record record = std::move(paused);
  store::Commit& commit = new_commit();
  if (begun_durable_) {
    commit.then.push_back(store::JournalAppend{{exchange_->id(), next_record_, encode_row(record)}});
    commit.then.push_back(store::OpenPut{{.exchange = exchange_->id(),
                                          .ns = exchange_->ns().text(),
                                          .flow = flow_.name(),
                                          .state = store::OpenState::paused}});
  } else {
    begin_durably(commit, record, store::OpenState::paused);
  }
  commit.requires_.push_back({store::JournalAt{exchange_->id(), next_record_}, std::string(kJournalGuard)});
  sleeping_ = Sleeping::writing;
  submit(&Runner::pause_written);
  return std::nullopt;
}

Runner::Next Runner::pause_written() {
  if (!durable_now()) {
    forget_token();
    // It may sleep on disk, and be woken after a restart: neither outcome may be told.
    if (cause_->kind() == FailureKind::unknown_outcome) return leave_to_recovery(OutcomeKind::pending);
    return machine_.prepare_failed(std::string(cause_->code()));
  }
  return fall_asleep();
}

Runner::Next Runner::fall_asleep() {
  sleeping_ = Sleeping::asleep;
  if (waker_ != nullptr) {  // the answer was faster
    SLUICE_PROBE("flow.woken_before_it_slept");
    return take_wake();
  }
  wake_at_ = lane_.clock().now() + pause_for_;
  arm_wake(pause_for_);
  if (on_pause_ != nullptr) std::exchange(on_pause_, nullptr)(owner_);
  return std::nullopt;
}

void Runner::arm_wake(Duration after) {
  const Instant now = lane_.clock().now();
  backoff_timer_.arm(lane_, after < kNever - now ? now + after : kNever,
                     [](void* self) noexcept {
                       auto* runner = static_cast<Runner*>(self);
                       SLUICE_PROBE("flow.pause_timed_out");
                       runner->go(runner->wake_up({.timed_out = true, .payload = {}}));
                     },
                     this);
}

void Runner::woken(PendingWake& pending) {
  if (waker_ != nullptr || sleeping_ == Sleeping::waking) {
    pending.answer = fail(FailureKind::already_exists, "woken_already",
                          "'" + pending.token + "' has been woken; only the first wake-up counts");
    pending.lane->post(pending);
    return;
  }
  waker_ = &pending;
  if (sleeping_ == Sleeping::asleep) go(take_wake());
}

Runner::Next Runner::take_wake() {
  backoff_timer_.cancel();
  sleeping_ = Sleeping::waking;
  if (flow_.options_.store == nullptr) {
    Wake wake{false, std::move(waker_->payload)};
    answer_waker({});
    return wake_up(std::move(wake));
  }
  const Record record = Woken{waker_->payload};
  store::Commit& commit = new_commit();
  commit.then.push_back(store::JournalAppend{{exchange_->id(), next_record_, encode_row(record)}});
  commit.then.push_back(store::OpenPut{{.exchange = exchange_->id(),
                                        .ns = exchange_->ns().text(),
                                        .flow = flow_.name(),
                                        .state = store::OpenState::running}});
  commit.requires_.push_back({store::JournalAt{exchange_->id(), next_record_}, std::string(kJournalGuard)});
  submit(&Runner::wake_written);
  return std::nullopt;
}

Runner::Next Runner::wake_written() {
  if (!write_->outcome) {  // it sleeps on; whoever woke it may try again
    SLUICE_PROBE("flow.wake_up_not_written");
    sleeping_ = Sleeping::asleep;
    answer_waker(fail(write_->outcome.error()));
    arm_wake(std::max<Duration>(wake_at_ - lane_.clock().now(), Duration::zero()));
    return std::nullopt;
  }
  if (!write_->outcome->applied) {
    answer_waker(fail(FailureKind::not_found, "taken_over", "another owner continued this exchange"));
    over_ = true;
    answer(OutcomeKind::pending);
    return std::nullopt;
  }
  ++next_record_;
  Wake wake{false, std::move(waker_->payload)};
  answer_waker({});
  return wake_up(std::move(wake));
}

// The stage's prepare is called again, with its own time: the caller's has been waited out.
Runner::Next Runner::wake_up(Wake wake) {
  forget_token();
  exchange_->wake_ = std::move(wake);
  stage_scope_.reset();
  exchange_->context_.deadline = lane_.clock().now() + flow_.options_.resumed_budget;
  budget_timer_.arm(lane_, exchange_->context_.deadline,
                    [](void* self) noexcept {
                      auto* runner = static_cast<Runner*>(self);
                      if (!runner->decided_ && !runner->writing_) runner->stage_scope_.cancel(FailureKind::timeout);
                    },
                    this);
  return machine_.woken();
}

void Runner::answer_waker(Status status) {
  PendingWake* waker = std::exchange(waker_, nullptr);
  waker->answer = std::move(status);
  waker->lane->post(*waker);
}

void Runner::forget_token() {
  if (waker_ != nullptr)
    answer_waker(fail(FailureKind::not_found, "not_paused",
                      "the exchange that expected '" + token_ + "' did not wait for it"));
  flow_.live_->forget(token_, exchange_->ns());
  sleeping_ = Sleeping::no;
}

void Runner::resume_paused(Machine machine, Begun begun, std::uint32_t next_record, Paused paused,
                           std::optional<Woken> woken) {
  machine_ = std::move(machine);
  begun_ = std::move(begun);
  next_record_ = next_record;
  begun_durable_ = detached_ = true;
  enlist();
  observe(EventKind::recovered);
  auto draft = decode_draft(paused.draft);
  if (!draft) {
    cause_ = draft.error();
    return go(machine_.prepare_failed(std::string(cause_->code())));
  }
  exchange_->draft_ = *std::move(draft);
  if (auto response = Reply::decode(paused.response); response && !paused.response.empty())
    exchange_->response_ = *std::move(response);
  if (const std::string* by = exchange_->get(durable_text(kRespondedAt))) {
    if (std::uint32_t step = 0; std::from_chars(by->data(), by->data() + by->size(), step).ec == std::errc())
      exchange_->responded_at_ = step;
    std::erase_if(exchange_->bag_, [](const auto& entry) { return entry.name == kRespondedAt; });
  }
  if (woken) {
    SLUICE_PROBE("flow.recovered_awake");
    return go(wake_up({false, std::move(woken->payload)}));
  }
  if (auto announced = expect_wake(paused.token); !announced) {
    // The doors are open before recovery is done: a newer exchange has the token. This one sleeps on
    // in the store; a later sweep announces it.
    cause_ = announced.error();
    over_ = true;
    answer(OutcomeKind::pending);
    return go(std::nullopt);
  }
  SLUICE_PROBE("flow.recovered_asleep");
  sleeping_ = Sleeping::asleep;
  const auto left = WallTime(milliseconds(paused.until_ms)) - flow_.options_.store->now();
  pause_for_ = std::max<Duration>(left, Duration::zero());
  wake_at_ = lane_.clock().now() + pause_for_;
  arm_wake(pause_for_);
}

void Runner::drop_sleeping(Runner* runner) {
  if (runner->sleeping_ == Sleeping::asleep) delete runner;
}

// --- Flow's side ---------------------------------------------------------------------------------

bool Flow::expects(const Namespace& ns, const std::string& token) const {
  return live_->sleeper(token, ns).lane != nullptr;
}
std::vector<std::string> Flow::expected_in(const std::string& token) const { return live_->namespaces_of(token); }

void Flow::wake(PendingWake& pending) {
  // On the exchange's lane it is looked up again: it may have ended on the way.
  struct Knock : Job {
    std::shared_ptr<LiveExchanges> live;
    PendingWake* pending = nullptr;
    void answer() const {
      const auto where = live->sleeper(pending->token, pending->ns);
      if (where.runner != nullptr) return where.runner->woken(*pending);
      pending->answer = fail(FailureKind::not_found, "nobody_waits",
                             "nothing waits under '" + pending->token +
                                 "': it was woken, has timed out, or never was");
      pending->lane->post(*pending);
    }
  };
  auto knock = std::make_unique<Knock>();
  knock->live = live_;
  knock->pending = &pending;
  knock->run = [](Job* job) noexcept {
    const std::unique_ptr<Knock> self(static_cast<Knock*>(job));
    self->answer();
  };
  const auto where = live_->sleeper(pending.token, pending.ns);
  if (where.lane == nullptr) return knock->answer();
  where.lane->post(*knock.release());
}

namespace {

class WakeAwaiter {
 public:
  WakeAwaiter(Flow& flow, Namespace ns, std::string token, Bytes payload) : flow_(flow) {
    pending_.ns = std::move(ns);
    pending_.token = std::move(token);
    pending_.payload = std::move(payload);
  }
  bool await_ready() const noexcept { return false; }
  template <class P>
  void await_suspend(std::coroutine_handle<P> self) {
    pending_.handle = self;
    pending_.lane = self.promise().context->lane;
    pending_.run = [](Job* job) noexcept {
      static_cast<Waiting*>(static_cast<PendingWake*>(job))->handle.resume();
    };
    flow_.wake(pending_);
  }
  Status await_resume() { return std::move(pending_.answer); }

 private:
  struct Waiting : PendingWake {
    std::coroutine_handle<> handle;
  };
  Flow& flow_;
  Waiting pending_;
};

}  // namespace

Task<Status> Flow::wake(Namespace ns, std::string token, Bytes payload) {
  WakeAwaiter awaiting(*this, std::move(ns), std::move(token), std::move(payload));
  Status status = co_await awaiting;
  co_return status;
}

}  // namespace sluice::flow
