// The loop, the first phase, and answering the caller.
#include "flow/runner.hpp"

#include <algorithm>

#include "flow/combined.hpp"
#include "flow/live.hpp"
#include "flow/observe.hpp"
#include "sluice/base/probe.hpp"

namespace sluice::flow {

Runner::Runner(Flow& flow, ExchangePtr exchange, RunOptions options, Flow::Done done, void* owner)
    : flow_(flow),
      exchange_(std::move(exchange)),
      lane_(*options.lane),
      claim_(std::move(options.claim)),
      done_(done),
      owner_(owner),
      machine_(*flow.graph_, flow.options_.max_stages),
      on_pause_(options.on_pause),
      caller_deadline_(options.deadline) {
  exchange_->store_ = flow.options_.store;
  exchange_->desk_ = this;
  exchange_->context_.lane = &lane_;
  exchange_->context_.scope = &stage_scope_;
  exchange_->context_.deadline =
      caller_deadline_ == kNever ? kNever : caller_deadline_ - flow.options_.commit_margin;
  if (flow.options_.profiler) profile_ = std::make_unique<Profile>();
  timed_ = profile_ != nullptr || flow.metrics_ != nullptr || flow.options_.tracer;
  if (timed_) run_began_ = lane_.clock().now();
}

Runner::~Runner() {
  exchange_->desk_ = nullptr;
  if (sleeping_ != Sleeping::no) forget_token();
  if (live_) flow_.live_->remove(exchange_->id());
}

void Runner::enlist() {
  live_ = true;
  flow_.live_->add(exchange_->id(), lane_, this);
}

void Runner::arm_deadline(Instant at) noexcept {
  deadline_timer_.arm(lane_, at, [](void* self) noexcept { static_cast<Runner*>(self)->deadline_passed(); }, this);
}

void Runner::begin() {
  if (!exchange_->bag_.empty()) callers_bag_ = exchange_->bag_;  // a rerun begins with it again
  observe(EventKind::begin);
  if (caller_deadline_ != kNever) arm_deadline(exchange_->context_.deadline);
  caller_gone_.link(exchange_->scope(),
                    [](void* self) noexcept {
                      auto* runner = static_cast<Runner*>(self);
                      if (runner->detached_) {
                        if (!runner->answered_) runner->answer(OutcomeKind::pending);
                      } else if (!runner->decided_) {
                        runner->stage_scope_.cancel(runner->exchange_->scope().reason());
                      }
                    },
                    this);
  if (exchange_->scope().cancelled()) stage_scope_.cancel(exchange_->scope().reason());
  if (exchange_->aborting()) {
    cause_ = Failure(FailureKind::rejected, "aborted", exchange_->abort_cause());
    audit_lazily(exchange_->abort_cause());
    answer(OutcomeKind::aborted);
    delete this;
    return;
  }
  go(machine_.start());
}

void Runner::go(Next next) noexcept {
  while (next) {
    current_ = *next;
    next = take(current_);  // stages are caught where they are called
  }
  if (over_) delete this;
}

Runner::Next Runner::take(Action action) {
  switch (action.kind) {
    case Action::Kind::prepare: return prepare(action.step);
    case Action::Kind::write_intent: return write_intent(action.step);
    case Action::Kind::decide: return decide();
    case Action::Kind::commit:
    case Action::Kind::abort: return second_phase(action);
    case Action::Kind::end: return end();
    case Action::Kind::in_doubt: return list_in_doubt();
    case Action::Kind::pause: return pause(action.step);
  }
  return std::nullopt;
}

Failure Runner::caught() noexcept {
  try {
    throw;
  } catch (const std::exception& error) {
    return Failure(FailureKind::internal, "exception", std::string("a stage threw: ") + error.what());
  } catch (...) {
    return Failure(FailureKind::internal, "exception", "a stage threw something that is no std::exception");
  }
}

Runner::Next Runner::stop() {
  if (!stage_scope_.cancelled() && exchange_->deadline() != kNever &&
      lane_.clock().now() >= exchange_->deadline())
    stage_scope_.cancel(FailureKind::timeout);
  if (!stage_scope_.cancelled()) return std::nullopt;
  cause_ = Failure(stage_scope_.reason(), "stopped before the next stage");
  keep_decline_of(Exchange::kNobody);
  return machine_.stop(std::string(cause_->code()));
}

Runner::Next Runner::prepare(std::uint32_t step) {
  try {
    // Synchronous stages that vote to go on: one after the other, with nothing in between.
    for (;;) {
      if (auto stopped = stop_if_cancelled()) return stopped;
      const StageFacts& facts = machine_.facts_of(step);
      exchange_->step_ = step;
      exchange_->attempt_ = 1;
      exchange_->left_nothing_ = exchange_->unsure_before_ = false;
      exchange_->context_.outside = facts.external;
      if (facts.external || detached_) exchange_->begin_snapshot();
      time_begin();
      if (facts.asynchronous) break;
      Result<Vote> vote = machine_.stage_of(step).prepare(*exchange_);
      if (!vote || vote->kind() != Vote::Kind::continue_ || exchange_->aborting() || exchange_->snapshot_moved_ ||
          timed_ || sleeping_ != Sleeping::no || exchange_->wake_)
        return prepared(std::move(vote));
      const Action next = machine_.went_on();
      if (next.kind != Action::Kind::prepare) return next;
      current_ = next;
      step = next.step;
    }
    Stage& stage = machine_.stage_of(step);
    start_limits(stage);
    vote_task_ = stage.prepare_task(*exchange_);
    const bool done = vote_task_.start(exchange_->context_,
                                       [](void* self) noexcept {
                                         auto* runner = static_cast<Runner*>(self);
                                         // The frame is still on the stack: take its result in a turn
                                         // of its own.
                                         runner->turn_.run = [](Job* job) noexcept {
                                           auto* r = static_cast<Turn*>(job)->runner;
                                           Next next;
                                           try {
                                             next = r->prepared(r->vote_task_.take());
                                           } catch (...) {
                                             next = r->prepared(fail(r->caught()));
                                           }
                                           r->go(next);
                                         };
                                         runner->turn_.runner = runner;
                                         runner->lane_.post(runner->turn_);
                                       },
                                       this);
    if (!done) return std::nullopt;
    return prepared(vote_task_.take());
  } catch (...) {
    return prepared(fail(caught()));
  }
}

Runner::Next Runner::prepared(Result<Vote> vote) {
  end_limits();
  const std::uint32_t step = static_cast<std::uint32_t>(machine_.steps().size() - 1);
  time_end(step, Phase::prepare, vote.has_value());
  vote_task_.reset();
  exchange_->wake_.reset();
  if (exchange_->snapshot_moved_) {
    if (!machine_.any_external() && !detached_ && !stage_scope_.cancelled()) return rerun();
    exchange_->snapshot_moved_ = false;
  }
  if (vote && vote->kind() == Vote::Kind::pause)
    pause_for_ = vote->timeout();
  else if (sleeping_ != Sleeping::no)
    forget_token();
  if (!vote) {
    // What cut a stage short is the cause, not what the stage made of it.
    cause_ = stage_scope_.cancelled() && vote.error().kind() == FailureKind::cancelled
                 ? Failure(stage_scope_.reason(), std::string(vote.error().detail()))
                 : vote.error();
    keep_decline_of(step);
    return machine_.prepare_failed(std::string(cause_->code()),
                                   may_have_happened(cause_->kind()) || exchange_->unsure_before_,
                                   exchange_->left_nothing_);
  }
  const bool aborting = exchange_->aborting();
  if (aborting) {
    cause_ = Failure(FailureKind::rejected, "aborted", exchange_->abort_cause());
    keep_decline_of(step);
  }
  Action next = machine_.prepared(*vote, aborting, exchange_->abort_cause(), exchange_->unsure_before_);
  if (next.kind == Action::Kind::decide && machine_.decision() == Decision::abort) keep_decline_of(step);
  if (next.kind == Action::Kind::decide && machine_.decision() == Decision::abort && !aborting)
    cause_ = Failure(FailureKind::invalid_argument,
                     machine_.cause().starts_with("unknown_group") ? "unknown_group" : machine_.cause(),
                     machine_.cause());
  return next;
}

// A response is a decline only of the stage that aborts: what an earlier one said of success is not
// the reply of an abort.
void Runner::keep_decline_of(std::uint32_t step) {
  if (!exchange_->response_) return;
  if (exchange_->responded_at_ != step)
    exchange_->response_.reset();
  else
    exchange_->response_->declined = true;
}

void Runner::start_limits(const Stage& stage) {
  if (stage.time_limit() == Duration::zero()) return;
  limit_timer_.arm(lane_, lane_.clock().now() + stage.time_limit(),
                   [](void* self) noexcept {
                     static_cast<Runner*>(self)->stage_scope_.cancel(FailureKind::timeout);
                   },
                   this);
}

// Before the decision the run is cut short; after it the caller is told that it goes on. So it is also when what
// was cut short has not ended by the caller's own deadline: the store need not take the decision to abort.
void Runner::deadline_passed() noexcept {
  if (!decided_ && !writing_ && !detached_ && !cut_short_) {
    cut_short_ = true;
    arm_deadline(caller_deadline_);
    stage_scope_.cancel(FailureKind::timeout);
    return;
  }
  if (answered_) return;
  SLUICE_PROBE("flow.pending_at_the_deadline");
  answer(OutcomeKind::pending);
}

void Runner::observe(EventKind kind) noexcept {
  if (flow_.options_.observers.empty()) return;
  tell(flow_, *exchange_, kind, machine_.cause(), lane_.clock().wall());
}

void Runner::answer(OutcomeKind kind) {
  if (kind == OutcomeKind::committed) observe(EventKind::committed);
  if (kind == OutcomeKind::aborted) observe(EventKind::aborted);
  if (kind == OutcomeKind::in_doubt) observe(EventKind::in_doubt);
  if (kind == OutcomeKind::unknown) observe(EventKind::unknown);
  if (kind != OutcomeKind::pending && profile_) {
    profile_->total = lane_.clock().now() - run_began_;
    try {
      flow_.options_.profiler(*exchange_, *profile_);
    } catch (...) {
      if (flow_.options_.log != nullptr)
        flow_.options_.log->warn("a profiler of flow failed and was ignored",
                                 {{"flow", flow_.name()}, {"why", std::string(caught().detail())}});
    }
  }
  if (answered_) return;
  answered_ = true;
  on_pause_ = nullptr;
  if (flow_.metrics_)
    flow_.metrics_->outcome(static_cast<std::size_t>(kind), lane_.clock().now() - run_began_, exchange_->ns().shadow());
  deadline_timer_.cancel();
  caller_gone_.unlink();
  if (done_ == nullptr) return;
  Outcome outcome;
  outcome.kind = kind;
  outcome.exchange = winner_.value_or(exchange_->id());
  outcome.replayed = winner_.has_value();
  if (kind == OutcomeKind::committed || kind == OutcomeKind::aborted) {
    outcome.reply = reply_ ? reply_ : exchange_->response();
    outcome.reply_bytes = reply_bytes_;
  }
  if (kind == OutcomeKind::pending)
    outcome.cause = Failure(FailureKind::pending, "not finished before the deadline; ask for the transaction");
  else if (kind != OutcomeKind::committed)
    outcome.cause = cause_;
  done_(owner_, std::move(outcome));
}

void Runner::report_time(std::uint32_t step, Phase phase, bool ok) {
  const Duration took = lane_.clock().now() - phase_began_;
  const std::string_view stage = machine_.stage_of(step).name();
  const std::string_view word = kPhases[static_cast<std::size_t>(phase)];
  if (profile_) profile_->stages.push_back({stage, word, took});
  if (flow_.metrics_) flow_.metrics_->stage(machine_.steps()[step].stage, phase, ok, took, exchange_->ns().shadow());
  if (!flow_.options_.tracer) return;
  StageSpan span{exchange_->id(), exchange_->trace, flow_.name(), stage, word,
                 exchange_->attempt(), phase_began_, took, ok};
  try {
    flow_.options_.tracer(span);
  } catch (...) {
    if (flow_.options_.log != nullptr)
      flow_.options_.log->warn("a tracer of flow failed and was ignored",
                               {{"flow", flow_.name()}, {"why", std::string(caught().detail())}});
  }
}

}  // namespace sluice::flow
