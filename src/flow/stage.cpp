#include "sluice/flow/stage.hpp"

namespace sluice::flow {
namespace {

class FunctionStage final : public Stage {
 public:
  FunctionStage(std::string name, Effect effect, Phases phases)
      : name_(std::move(name)), effect_(effect), phases_(std::move(phases)) {}
  std::string_view name() const noexcept override { return name_; }
  Effect effect() const noexcept override { return effect_; }
  bool has_commit() const noexcept override { return static_cast<bool>(phases_.commit); }
  bool has_abort() const noexcept override { return static_cast<bool>(phases_.abort); }
  Result<Vote> prepare(Exchange& exchange) override {
    return phases_.prepare ? phases_.prepare(exchange) : Vote();
  }
  std::vector<std::string> routes() const override { return phases_.routes; }
  Status commit(Exchange& exchange) override { return phases_.commit(exchange); }
  Status abort(Exchange& exchange, bool prepared) override {
    return phases_.abort(exchange, prepared);
  }

 private:
  std::string name_;
  Effect effect_;
  Phases phases_;
};

class TaskStage final : public Stage {
 public:
  TaskStage(std::string name, Effect effect, std::function<Task<Result<Vote>>(Exchange&)> fn)
      : name_(std::move(name)), effect_(effect), fn_(std::move(fn)) {}
  std::string_view name() const noexcept override { return name_; }
  Effect effect() const noexcept override { return effect_; }
  bool asynchronous() const noexcept override { return true; }
  Task<Result<Vote>> prepare_task(Exchange& exchange) override { return fn_(exchange); }

 private:
  std::string name_;
  Effect effect_;
  std::function<Task<Result<Vote>>(Exchange&)> fn_;
};

}  // namespace

Result<Vote> Stage::prepare(Exchange&) { return Vote(); }
Status Stage::commit(Exchange&) { return {}; }
Status Stage::abort(Exchange&, bool) { return {}; }
Task<Result<Vote>> Stage::prepare_task(Exchange& exchange) { co_return prepare(exchange); }
Task<Status> Stage::commit_task(Exchange& exchange) { co_return commit(exchange); }
Task<Status> Stage::abort_task(Exchange& exchange, bool prepared) {
  co_return abort(exchange, prepared);
}

namespace {

class AwaitStage final : public Stage {
 public:
  AwaitStage(std::string name, Effect effect, Awaited awaited)
      : name_(std::move(name)), effect_(effect), awaited_(std::move(awaited)) {}
  std::string_view name() const noexcept override { return name_; }
  Effect effect() const noexcept override { return effect_; }
  bool has_commit() const noexcept override { return static_cast<bool>(awaited_.commit); }
  bool has_abort() const noexcept override { return static_cast<bool>(awaited_.abort); }
  Result<Vote> prepare(Exchange& exchange) override {
    if (const Wake* wake = exchange.wake()) {
      if (!wake->timed_out) return awaited_.answer(exchange, wake->payload);
      return fail(FailureKind::timeout, "no_answer",
                  "stage '" + name_ + "' heard nothing within " +
                      std::to_string(awaited_.timeout / milliseconds(1)) + " ms");
    }
    // Before it is sent: the answer may be faster than the pause.
    SLUICE_TRY(exchange.expect_wake(exchange.token()));
    SLUICE_TRY(awaited_.ask(exchange));
    return Vote::pause(awaited_.timeout);
  }
  Status commit(Exchange& exchange) override { return awaited_.commit(exchange); }
  Status abort(Exchange& exchange, bool prepared) override {
    return awaited_.abort(exchange, prepared);
  }

 private:
  std::string name_;
  Effect effect_;
  Awaited awaited_;
};

}  // namespace

StagePtr await_answer(std::string name, Effect effect, Awaited awaited) {
  SLUICE_ASSERT(awaited.ask && awaited.answer, "await_answer needs ask and answer");
  return std::make_shared<AwaitStage>(std::move(name), effect, std::move(awaited));
}
StagePtr phases(std::string name, Effect effect, Phases phases) {
  return std::make_shared<FunctionStage>(std::move(name), effect, std::move(phases));
}
StagePtr func(std::string name, std::function<Result<Vote>(Exchange&)> fn, Effect effect) {
  Phases only;
  only.prepare = std::move(fn);
  return phases(std::move(name), effect, std::move(only));
}
StagePtr task_func(std::string name, std::function<Task<Result<Vote>>(Exchange&)> fn, Effect effect) {
  return std::make_shared<TaskStage>(std::move(name), effect, std::move(fn));
}

}  // namespace sluice::flow
