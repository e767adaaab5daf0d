// The stages behind sluice/flow/combine.hpp.
#pragma once
#include <algorithm>

#include "sluice/flow/combine.hpp"

namespace sluice::flow {

/// Of a stage that failed so: what it does outside may have taken effect.
inline bool may_have_happened(FailureKind kind) noexcept {
  // in_doubt, pending and in_progress: what was asked decided, or still runs, and has not said how it ends.
  return kind == FailureKind::unknown_outcome || kind == FailureKind::timeout || kind == FailureKind::cancelled ||
         kind == FailureKind::internal || kind == FailureKind::in_doubt || kind == FailureKind::pending ||
         kind == FailureKind::in_progress;
}
/// Whether all a stage does outside can be undone.
inline bool undoes_outside(const Stage& stage) {
  const auto children = stage.children();
  if (children.empty()) return stage.effect() != Effect::external || stage.has_abort();
  return std::ranges::all_of(children, [](const StagePtr& child) { return undoes_outside(*child); });
}

class RetryStage final : public Stage {
 public:
  RetryStage(StagePtr stage, Random& random, resilience::RetryPolicy policy, resilience::RetryBudget* shared);
  std::string_view name() const noexcept override { return inner_->name(); }
  Effect effect() const noexcept override { return inner_->effect(); }
  bool asynchronous() const noexcept override { return true; }
  bool has_commit() const noexcept override { return inner_->has_commit(); }
  bool has_abort() const noexcept override { return inner_->has_abort(); }
  Duration time_limit() const noexcept override { return inner_->time_limit(); }
  std::vector<std::string> routes() const override { return inner_->routes(); }
  std::vector<StagePtr> children() const override { return inner_->children(); }
  Task<Result<Vote>> prepare_task(Exchange& exchange) override;
  Task<Status> commit_task(Exchange& exchange) override { return inner_->commit_task(exchange); }
  Task<Status> abort_task(Exchange& exchange, bool prepared) override {
    return inner_->abort_task(exchange, prepared);
  }

 private:
  struct Mark {
    std::size_t guards, mutations, events;
    std::optional<Reply> response;
    std::uint32_t responded_at;
  };
  static void rewind(Exchange& exchange, const Mark& mark);
  Task<Result<Vote>> attempt(Exchange& exchange);

  StagePtr inner_;
  Random& random_;
  resilience::RetryPolicy policy_;
  resilience::RetryBudget own_;
  resilience::RetryBudget& budget_;
};

class ParallelStage final : public Stage {
 public:
  ParallelStage(std::string name, std::vector<StagePtr> stages);
  std::string_view name() const noexcept override { return name_; }
  Effect effect() const noexcept override { return effect_; }
  bool asynchronous() const noexcept override { return true; }
  bool has_commit() const noexcept override;
  bool has_abort() const noexcept override;
  std::vector<std::string> routes() const override;
  std::vector<StagePtr> children() const override { return stages_; }
  Task<Result<Vote>> prepare_task(Exchange& exchange) override;
  Task<Status> commit_task(Exchange& exchange) override;
  Task<Status> abort_task(Exchange& exchange, bool prepared) override;

 private:
  struct Child;
  struct Join;
  Task<Status> second_phase(Exchange& exchange, std::size_t child, bool committing, bool prepared);
  Result<Vote> outcome(Exchange& exchange, std::vector<std::unique_ptr<Child>>& children) const;

  std::string name_;
  std::vector<StagePtr> stages_;
  Effect effect_ = Effect::none;
};

}  // namespace sluice::flow
