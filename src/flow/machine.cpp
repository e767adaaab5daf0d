#include "flow/machine.hpp"

#include <algorithm>

namespace sluice::flow {

Action Machine::start() {
  group_ = graph_->entry;
  position_ = 0;
  return next_prepare();
}

void Machine::reset() {
  steps_.clear();
  pending_groups_.clear();
  routed_.clear();
  cursor_ = 0;
  decision_ = Decision::none;
  cause_.clear();
}

Action Machine::next_group() {
  while (position_ >= graph_->groups[group_].stages.size()) {
    for (auto at = routed_.rbegin(); at != routed_.rend(); ++at) pending_groups_.push_back(*at);
    routed_.clear();
    if (pending_groups_.empty()) {
      decision_ = Decision::commit;
      return {Action::Kind::decide};
    }
    group_ = pending_groups_.back();
    pending_groups_.pop_back();
    position_ = 0;
  }
  if (steps_.size() >= max_stages_)
    return want_abort("too_many_stages");
  return step_into(graph_->groups[group_].stages[position_++]);
}

Action Machine::want_abort(std::string cause) {
  decision_ = Decision::abort;
  cause_ = cause.empty() ? "aborted" : std::move(cause);
  return {Action::Kind::decide};
}

Action Machine::prepared(const Vote& vote, bool aborting, std::string_view why, bool unsure) {
  if (vote.kind() == Vote::Kind::pause && !aborting) return {Action::Kind::pause, current()};
  Step& step = steps_.back();
  step.prepared = true;
  step.joined = vote.kind() == Vote::Kind::continue_ || vote.kind() == Vote::Kind::route;
  step.unsure = aborting && unsure;
  if (aborting) return want_abort(std::string(why));
  if (vote.kind() == Vote::Kind::done) {
    decision_ = Decision::commit;
    return {Action::Kind::decide};
  }
  for (const auto& name : vote.groups()) {
    const int group = graph_->find_group(name);
    if (group < 0) return want_abort("unknown_group: " + name);
    routed_.push_back(static_cast<std::uint16_t>(group));
  }
  return next_prepare();
}

Action Machine::prepare_failed(std::string cause, bool unsure, bool nothing_left) {
  if (!steps_.empty() && !steps_.back().prepared) {
    steps_.back().unsure = unsure;
    steps_.back().finished = nothing_left && !unsure;
  }
  return want_abort(std::move(cause));
}

Action Machine::stop(std::string cause) {
  // The step that was about to run has not begun.
  if (!steps_.empty() && !steps_.back().prepared) steps_.pop_back();
  return want_abort(std::move(cause));
}

Action Machine::decided(Decision decision) {
  decision_ = decision;
  cursor_ = 0;
  return next_second_phase();
}

Action Machine::next_abort() {
  const auto count = static_cast<std::uint32_t>(steps_.size());
  // What may have happened outside and cannot be undone is nobody's to call aborted.
  for (std::uint32_t i = 0; i < count; ++i)
    if (Step& step = steps_[i]; step.external && step.unsure && !facts_of(i).undoes_outside) {
      gave_up_ = true;
      if (!facts_of(i).has_abort) step.given_up = true;  // else what can be undone still is
    }
  for (; cursor_ < count; ++cursor_)
    if (const auto i = count - 1 - cursor_; takes_part(i)) return {Action::Kind::abort, i};
  return over();
}

Action Machine::gave_up(std::uint32_t step) {
  steps_[step].given_up = true;
  gave_up_ = true;
  return next_second_phase();
}

void Machine::restore_intent(std::uint32_t step, std::uint16_t stage) {
  // Steps in between had no external effect: they left nothing behind and take no part.
  while (steps_.size() < step) steps_.push_back({.prepared = true, .finished = true});
  steps_.push_back({.stage = stage, .external = true, .unsure = true});
  any_external_ = true;
}

void Machine::restore_decision(Decision decision, std::string cause, Steps steps) {
  decision_ = decision;
  cause_ = std::move(cause);
  steps_ = std::move(steps);
  any_external_ = std::ranges::any_of(steps_, &Step::external);
}

void Machine::restore_finished(std::uint32_t step) {
  if (step < steps_.size()) steps_[step].finished = true;
}

void Machine::restore_position(Position at) {
  group_ = at.group;
  position_ = at.position;
  pending_groups_ = std::move(at.pending);
  routed_ = std::move(at.routed);
  steps_ = std::move(at.steps);
  any_external_ = std::ranges::any_of(steps_, &Step::external);
}

Action Machine::resume() {
  if (decision_ == Decision::none) return want_abort("interrupted");
  cursor_ = 0;
  return next_second_phase();
}

}  // namespace sluice::flow
