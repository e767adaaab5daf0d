// What the author of a flow writes: stages that prepare, and optionally commit or abort.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sluice/base/task.hpp"
#include "sluice/flow/exchange.hpp"

namespace sluice::flow {

/// What a stage may change. Decides what must be durable before it runs (docs/concepts.md).
enum class Effect : std::uint8_t {
  none,      ///< reads and computes
  store,     ///< adds to the exchange's draft; nothing is written until the decision
  external,  ///< may change something outside; an intent is durable before its prepare. Give it an
             ///< abort, an empty one if there is nothing to undo: without one, a prepare that may or
             ///< may not have happened leaves the exchange in doubt
};

/// How a prepare ended, when it did not fail.
class Vote {
 public:
  enum class Kind : std::uint8_t { continue_, skip, route, done, pause };
  /// Join and go on. The default.
  static Vote continue_() noexcept { return Vote(Kind::continue_); }
  /// Go on without joining.
  static Vote skip() noexcept { return Vote(Kind::skip); }
  /// Join, and run these groups, in this order, after the rest of the current one and before
  /// anything routed to earlier. No group: continue.
  static Vote route(std::vector<std::string> groups) {
    Vote vote(groups.empty() ? Kind::continue_ : Kind::route);
    vote.groups_ = std::move(groups);
    return vote;
  }
  /// Do not join; stop preparing, routed groups too; commit those that joined.
  static Vote done() noexcept { return Vote(Kind::done); }
  /// Sleep until the token given to Exchange::expect_wake() is woken, or `timeout` has passed (more
  /// than zero); then prepare of this same stage is called again, with exchange.wake() set. What
  /// was drafted stays; transient bag keys are gone then, in memory too. Holds no thread and no
  /// permit; on a durable store it survives restarts. Not inside parallel().
  static Vote pause(Duration timeout) noexcept {
    Vote vote(Kind::pause);
    vote.timeout_ = timeout;
    return vote;
  }

  Vote() noexcept = default;
  Kind kind() const noexcept { return kind_; }
  const std::vector<std::string>& groups() const noexcept { return groups_; }
  Duration timeout() const noexcept { return timeout_; }

 private:
  explicit Vote(Kind kind) noexcept : kind_(kind) {}
  Kind kind_ = Kind::continue_;
  Duration timeout_{0};
  std::vector<std::string> groups_;
};

/// Implementations are shared by all exchanges: keep state in the Exchange. commit() and abort()
/// may be called more than once for the same exchange (when retried, and after a crash): use
/// exchange.token() as the idempotency key of what they call. A throw from any phase is a
/// classified failure. A commit() of a stage that is not external is called once after the decision
/// and is not repeated after a crash: declare the stage external if it must be.
class Stage {
 public:
  virtual ~Stage() = default;
  virtual std::string_view name() const noexcept = 0;
  virtual Effect effect() const noexcept { return Effect::none; }
  /// True: prepare_task, commit_task and abort_task are used instead of the synchronous ones.
  virtual bool asynchronous() const noexcept { return false; }
  virtual bool has_commit() const noexcept { return false; }
  virtual bool has_abort() const noexcept { return false; }
  /// Ends a suspended prepare after this long, failing `timeout`; zero: only the exchange's
  /// deadline does.
  virtual Duration time_limit() const noexcept { return Duration::zero(); }

  /// The groups its vote may route to, for the drawing and the lint; routing elsewhere still works.
  virtual std::vector<std::string> routes() const { return {}; }

  /// The stages it is made of, for the graph's hash and the lint.
  virtual std::vector<std::shared_ptr<Stage>> children() const { return {}; }

  virtual Result<Vote> prepare(Exchange& exchange);
  virtual Status commit(Exchange& exchange);
  /// `prepared` is false when its prepare began and failed, or was cut off by a crash.
  virtual Status abort(Exchange& exchange, bool prepared);

  virtual Task<Result<Vote>> prepare_task(Exchange& exchange);
  virtual Task<Status> commit_task(Exchange& exchange);
  virtual Task<Status> abort_task(Exchange& exchange, bool prepared);
};

using StagePtr = std::shared_ptr<Stage>;

/// A prepare-only, synchronous stage.
StagePtr func(std::string name, std::function<Result<Vote>(Exchange&)> fn,
              Effect effect = Effect::store);
/// A prepare-only stage that may suspend.
StagePtr task_func(std::string name, std::function<Task<Result<Vote>>(Exchange&)> fn,
                   Effect effect = Effect::store);
/// A synchronous stage made of functions; null commit or abort: it has none.
struct Phases {
  std::function<Result<Vote>(Exchange&)> prepare;
  std::function<Status(Exchange&)> commit;
  std::function<Status(Exchange&, bool prepared)> abort;
  std::vector<std::string> routes;  ///< declared, see Stage::routes
};
StagePtr phases(std::string name, Effect effect, Phases phases);

/// A stage that asks something outside and sleeps until the answer is woken: `ask` sends, with
/// exchange.token() as the wake token and the key of the request; `answer` gets what came. No answer
/// within `timeout` fails the stage `timeout`, code no_answer.
struct Awaited {
  std::function<Status(Exchange&)> ask;
  std::function<Result<Vote>(Exchange&, ByteView answer)> answer;
  std::function<Status(Exchange&)> commit;
  std::function<Status(Exchange&, bool prepared)> abort;
  Duration timeout = seconds(30);
};
StagePtr await_answer(std::string name, Effect effect, Awaited awaited);

}  // namespace sluice::flow
