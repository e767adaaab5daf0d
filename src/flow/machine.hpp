// decide(): the two-phase protocol as a pure state machine. It does no I/O, reads no clock and is
// told what happened; it answers what must be done next. The live run, crash recovery and the
// operator's view all use it.
#pragma once
#include <boost/container/small_vector.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "flow/graph.hpp"

namespace sluice::flow {

/// One prepare that began, in order. Its place in the list is the step number of tokens and records.
struct Step {
  std::uint16_t stage = 0;
  bool external = false;
  bool prepared = false;  ///< its prepare returned
  bool joined = false;    ///< takes part in the second phase
  bool finished = false;  ///< its commit or abort is done
  bool given_up = false;  ///< its retries are used up
  bool unsure = false;    ///< its prepare may or may not have had its effect
};

/// Most flows have few stages: their steps cost no allocation.
using Steps = boost::container::small_vector<Step, 8>;

enum class Decision : std::uint8_t { none = 0, commit = 1, abort = 2 };

/// What the driver must do next. `step` indexes Machine::steps().
struct Action {
  enum class Kind : std::uint32_t {  // as wide as the step: passed in one register
    prepare,       ///< run the prepare of `step`
    write_intent,  ///< make the intent of `step` durable, then call intent_written()
    decide,        ///< make decision() durable, then call decided()
    commit,        ///< run the commit of `step`, then finished() or gave_up()
    abort,         ///< run the abort of `step`, likewise
    end,           ///< nothing is left: record the end, tell the caller
    in_doubt,      ///< some stage gave up: list it, tell the caller
    pause,         ///< make the pause of `step` durable, sleep, then woken()
  };
  Kind kind;
  std::uint32_t step = 0;
};

class Machine {
 public:
  Machine(const Graph& graph, std::uint32_t max_stages) : graph_(&graph), max_stages_(max_stages) {}

  /// Begins at the entry group.
  Action start();
  Action intent_written() { return {Action::Kind::prepare, current()}; }
  /// The current prepare returned; `aborting` (with why) when the exchange voted abort. `unsure`: as for
  /// prepare_failed(), of a stage whose children were cut short by that.
  Action prepared(const Vote& vote, bool aborting, std::string_view why = {}, bool unsure = false);
  /// prepared() of one that votes to go on, as most do.
  Action went_on() {
    Step& step = steps_.back();
    step.prepared = step.joined = true;
    return next_prepare();
  }
  /// The pause is over: its prepare is called again.
  Action woken() { return {Action::Kind::prepare, current()}; }
  /// The current prepare failed, was cut off, or threw.
  /// `unsure`: what it does outside may have happened. `nothing_left`: nothing did.
  Action prepare_failed(std::string cause, bool unsure = false, bool nothing_left = false);
  /// Stops before the next prepare: deadline, cancellation, a failed intent.
  Action stop(std::string cause);
  /// The decision is durable (or needs no durability). `commit` may differ from what was asked: a
  /// refused precondition decides abort.
  Action decided(Decision decision);
  /// The commit or abort of `step` succeeded.
  Action finished(std::uint32_t step) {
    steps_[step].finished = true;
    return next_second_phase();
  }
  /// Its retries are used up.
  Action gave_up(std::uint32_t step);
  /// Runs prepare again from the start (a verified read changed). Only without externals.
  void reset();

  Decision decision() const noexcept { return decision_; }
  const Steps& steps() const noexcept { return steps_; }
  const std::string& cause() const noexcept { return cause_; }
  bool any_external() const noexcept { return any_external_; }
  const Stage& stage_of(std::uint32_t step) const { return *graph_->stages[steps_[step].stage]; }
  const StageFacts& facts_of(std::uint32_t step) const { return graph_->facts[steps_[step].stage]; }
  Stage& stage_of(std::uint32_t step) { return *graph_->stages[steps_[step].stage]; }

  // Recovery folds durable records into the same state.
  void restore_intent(std::uint32_t step, std::uint16_t stage);
  void restore_decision(Decision decision, std::string cause, Steps steps);
  void restore_finished(std::uint32_t step);
  /// Where a first phase stands, for the record of a pause.
  struct Position {
    std::uint16_t group = 0, position = 0;
    std::vector<std::uint16_t> pending, routed;
    Steps steps;
  };
  Position position() const { return {group_, position_, pending_groups_, routed_, steps_}; }
  void restore_position(Position at);
  /// What follows once every record is folded in.
  Action resume();

 private:
  std::uint32_t current() const noexcept { return static_cast<std::uint32_t>(steps_.size() - 1); }
  // The next stage of the current group; at its end, what it routed to; then what waits.
  Action next_prepare() {
    const auto& stages = graph_->groups[group_].stages;
    if (position_ >= stages.size() || steps_.size() >= max_stages_) return next_group();
    return step_into(stages[position_++]);
  }
  Action step_into(std::uint16_t stage) {
    const bool external = graph_->facts[stage].external;
    Step& step = steps_.emplace_back();  // filled in place: a copy would stall on its narrow writes
    step.stage = stage;
    step.external = external;
    any_external_ = any_external_ || external;
    return {external ? Action::Kind::write_intent : Action::Kind::prepare, current()};
  }
  Action next_group();
  // Commits in the order of prepare, aborts in reverse.
  Action next_second_phase() {
    if (decision_ != Decision::commit) return next_abort();
    for (const auto count = static_cast<std::uint32_t>(steps_.size()); cursor_ < count; ++cursor_)
      if (takes_part(cursor_)) return {Action::Kind::commit, cursor_};
    return over();
  }
  Action next_abort();
  // In commit when it joined; in abort when it joined, or when its prepare began and did not return.
  bool takes_part(std::uint32_t i) const {
    const Step& step = steps_[i];
    if (step.finished || step.given_up) return false;
    const StageFacts& stage = graph_->facts[step.stage];
    if (decision_ == Decision::commit) return step.joined && stage.has_commit;
    return (step.joined || !step.prepared) && stage.has_abort;
  }
  Action over() const { return {gave_up_ ? Action::Kind::in_doubt : Action::Kind::end}; }
  Action want_abort(std::string cause);

  const Graph* graph_;
  std::uint32_t max_stages_;
  Steps steps_;
  std::uint32_t cursor_ = 0;  // second phase: where to look for the next step
  std::vector<std::uint16_t> pending_groups_;  // last is next
  std::vector<std::uint16_t> routed_;          // by the current group, in order
  std::uint16_t group_ = 0;
  std::uint16_t position_ = 0;
  bool any_external_ = false;
  bool gave_up_ = false;
  Decision decision_ = Decision::none;
  std::string cause_;
};

}  // namespace sluice::flow
