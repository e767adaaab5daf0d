// Children run on views of the exchange, so that what they draft and keep cannot interleave.
#include <algorithm>
#include <utility>

#include "flow/combined.hpp"

namespace sluice::flow {
namespace {

// What became of each child, one letter each, kept in the bag for the second phase.
constexpr char kJoined = 'j', kOut = 'o', kBegan = 'b';

}  // namespace

struct ParallelStage::Child {
  Child(const Exchange& parent, StagePtr runs)
      : view(parent.id(), parent.ns(), parent.request()), stage(std::move(runs)) {}
  Exchange view;
  StagePtr stage;
  Task<Result<Vote>> task;
  Join* join = nullptr;
  Timer limit;
  Result<Vote> vote = Vote();
};

// Counts the children that still run; the last one resumes the parent in a turn of its own, because
// its frame is still on the stack.
struct ParallelStage::Join : Job {
  std::vector<std::unique_ptr<Child>>* children = nullptr;
  Lane* lane = nullptr;
  std::size_t running = 0;
  bool starting = true;
  std::coroutine_handle<> waiting;
  CancelListener parent;

  bool await_ready() const noexcept { return running == 0; }
  void await_suspend(std::coroutine_handle<> self) noexcept { waiting = self; }
  void await_resume() const noexcept {}

  void cancel_all(FailureKind why) noexcept {
    for (auto& child : *children) child->view.scope().cancel(why);
  }
  void ended(Child& child) noexcept {
    child.limit.cancel();
    try {
      child.vote = child.task.take();
    } catch (const std::exception& error) {
      child.vote = fail(FailureKind::internal, "exception", std::string("a stage threw: ") + error.what());
    } catch (...) {
      child.vote = fail(FailureKind::internal, "exception", "a stage threw something that is no std::exception");
    }
    // Others may end inside this; ours still counts, so that only one of us resumes the parent.
    if (!child.vote || child.view.aborting()) cancel_all(FailureKind::cancelled);
    --running;
    if (running != 0 || starting) return;
    run = [](Job* job) noexcept { static_cast<Join*>(job)->waiting.resume(); };
    lane->post(*this);
  }
};

ParallelStage::ParallelStage(std::string name, std::vector<StagePtr> stages)
    : name_(std::move(name)), stages_(std::move(stages)) {
  for (const auto& stage : stages_) effect_ = std::max(effect_, stage->effect());
}

bool ParallelStage::has_commit() const noexcept {
  return std::ranges::any_of(stages_, [](const StagePtr& s) { return s->has_commit(); });
}
bool ParallelStage::has_abort() const noexcept {
  return std::ranges::any_of(stages_, [](const StagePtr& s) { return s->has_abort(); });
}
std::vector<std::string> ParallelStage::routes() const {
  std::vector<std::string> all;
  for (const auto& stage : stages_)
    for (auto& group : stage->routes()) all.push_back(std::move(group));
  return all;
}

Task<Result<Vote>> ParallelStage::prepare_task(Exchange& exchange) {
  TaskContext& context = co_await current_context();
  std::vector<std::unique_ptr<Child>> children;
  Join join;
  join.children = &children;
  join.lane = context.lane;
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    auto child = std::make_unique<Child>(exchange, stages_[i]);
    child->join = &join;
    child->view.become_branch(exchange, static_cast<std::uint32_t>(i + 1));
    child->view.context().outside = stages_[i]->effect() == Effect::external;
    children.push_back(std::move(child));
  }
  if (context.scope != nullptr) {
    join.parent.link(*context.scope,
                     [](void* owner) noexcept {
                       static_cast<Join*>(owner)->cancel_all(FailureKind::cancelled);
                     },
                     &join);
  }
  std::size_t begun = 0;
  for (auto& child : children) {
    if (child->view.scope().cancelled()) break;  // an earlier one failed already
    ++begun;
    ++join.running;
    bool done = false;
    if (const Duration limit = child->stage->time_limit(); limit > Duration::zero())
      child->limit.arm(*context.lane, context.lane->clock().now() + limit,
                       [](void* owner) noexcept { static_cast<Child*>(owner)->view.scope().cancel(FailureKind::timeout); },
                       child.get());
    try {
      child->task = child->stage->prepare_task(child->view);
      done = child->task.start(child->view.context(),
                               [](void* owner) noexcept {
                                 auto* ended = static_cast<Child*>(owner);
                                 ended->join->ended(*ended);
                               },
                               child.get());
      if (done) join.ended(*child);
    } catch (...) {  // before its first suspension could be reached: it has no frame
      --join.running;
      child->vote = fail(FailureKind::internal, "exception", "a stage threw instead of returning its task");
      join.cancel_all(FailureKind::cancelled);
    }
  }
  join.starting = false;
  co_await join;
  join.parent.unlink();
  children.resize(begun);
  Result<Vote> vote = outcome(exchange, children);
  co_return vote;
}

Result<Vote> ParallelStage::outcome(Exchange& exchange,
                                    std::vector<std::unique_ptr<Child>>& children) const {
  std::string states;
  std::vector<std::string> groups;
  const Failure* first = nullptr;
  bool joined = false;
  for (auto& child : children) {
    exchange.absorb_branch(child->view);
    if (child->vote && child->vote->kind() == Vote::Kind::pause)
      child->vote = fail(FailureKind::invalid_argument, "pause_not_here",
                         "stage '" + std::string(child->stage->name()) + "' paused inside parallel '" + name_ +
                             "'; make it a step of its own");
    if (child->vote && child->vote->kind() == Vote::Kind::done)
      child->vote = fail(FailureKind::invalid_argument, "done_in_parallel",
                         "stage '" + std::string(child->stage->name()) + "' voted done inside parallel '" +
                             name_ + "'; vote skip, or take it out");
    if (!child->vote) {
      states += kBegan;
      if ((may_have_happened(child->vote.error().kind()) || child->view.unsure_before_) && !undoes_outside(*child->stage))
        exchange.unsure_before_ = true;
      // What failed first of its own is the cause, not who was cancelled for it.
      if (first == nullptr || (first->kind() == FailureKind::cancelled &&
                               child->vote.error().kind() != FailureKind::cancelled))
        first = &child->vote.error();
      continue;
    }
    const bool in = child->vote->kind() != Vote::Kind::skip;
    states += in ? kJoined : kOut;
    joined = joined || in;
    for (const auto& group : child->vote->groups()) groups.push_back(group);
  }
  const std::string key = exchange.parallel_key();
  // What began in an earlier attempt, and not in this one, is still to be aborted.
  if (const std::string* before = exchange.get(durable_text(key)); before != nullptr && before->size() > states.size())
    states += before->substr(states.size());
  exchange.set(durable_text(key), states);
  // Who was cut short because another one declined is no failure of its own: the decline is the outcome.
  const bool declined = exchange.aborting() && first != nullptr && first->kind() == FailureKind::cancelled;
  if (first != nullptr && !declined) return fail(*first);
  if (declined) return Vote::continue_();
  if (!groups.empty()) return Vote::route(std::move(groups));
  return joined ? Vote::continue_() : Vote::skip();
}

Task<Status> ParallelStage::commit_task(Exchange& exchange) {
  const std::string key = exchange.parallel_key();
  const std::string* states = exchange.get(durable_text(key));
  Status first;  // every child's commit is tried; the first failure is told
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    if (!stages_[i]->has_commit()) continue;
    if (states != nullptr && (i >= states->size() || (*states)[i] != kJoined)) continue;
    auto task = second_phase(exchange, i, true, true);
    Status status = co_await task;
    if (!status && first) first = status;
  }
  co_return first;
}

// One child's commit or abort. A throw is its failure alone: the others still get theirs, and the
// token of whatever comes next is its own.
Task<Status> ParallelStage::second_phase(Exchange& exchange, std::size_t child, bool committing, bool prepared) {
  exchange.enter_branch(static_cast<std::uint32_t>(child + 1));
  // What it may call is its own business, not that of the boldest beside it.
  const bool outside = std::exchange(exchange.context().outside, stages_[child]->effect() == Effect::external);
  Status status;
  try {
    auto task = committing ? stages_[child]->commit_task(exchange) : stages_[child]->abort_task(exchange, prepared);
    status = co_await task;
  } catch (const std::exception& error) {
    status = fail(FailureKind::internal, "exception", std::string("a stage threw: ") + error.what());
  } catch (...) {
    status = fail(FailureKind::internal, "exception", "a stage threw something that is no std::exception");
  }
  exchange.context().outside = outside;
  exchange.leave_branch();
  co_return status;
}

// Every child's abort is tried, also when one of them fails; the first failure is told.
Task<Status> ParallelStage::abort_task(Exchange& exchange, bool prepared) {
  const std::string key = exchange.parallel_key();
  const std::string* found = exchange.get(durable_text(key));
  // Cut off by a crash: any of them may have begun.
  const std::string states = found != nullptr ? *found : std::string(stages_.size(), kBegan);
  (void)prepared;
  Status first;
  for (std::size_t i = std::min(states.size(), stages_.size()); i-- > 0;) {
    if (!stages_[i]->has_abort() || states[i] == kOut) continue;
    auto task = second_phase(exchange, i, false, states[i] == kJoined);
    Status status = co_await task;
    if (!status && first) first = status;
  }
  co_return first;
}

StagePtr parallel(std::string name, std::vector<StagePtr> stages) {
  return std::make_shared<ParallelStage>(std::move(name), std::move(stages));
}

}  // namespace sluice::flow
