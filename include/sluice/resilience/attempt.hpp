// One attempt with a scope and a deadline of its own. When the time is over the attempt is told
// (its scope is cancelled with `timeout`) and, if it does not end at once, destroyed: the caller
// has its answer on time whatever the attempt does.
#pragma once
#include <algorithm>
#include <utility>

#include "sluice/base/task.hpp"

namespace sluice::resilience {

namespace detail {

template <class T>
class Attempt final : public Suspension {
 public:
  Attempt(Task<Result<T>>& task, Instant deadline, Duration margin) noexcept
      : task_(task), deadline_(deadline), margin_(margin) {}
  ~Attempt() override {
    if (gone_ != nullptr) *gone_ = true;
  }
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    if (!suspend(self)) return false;
    deadline_ = std::min(deadline_, context().deadline);
    // The next hop is told to be done a little earlier, so that its answer still arrives.
    inner_ = {context().lane, &scope_, deadline_ == kNever ? kNever : deadline_ - margin_,
              context().outside};
    if (task_.start(inner_, &Attempt::ended, this)) return false;
    if (deadline_ != kNever) timer_.arm(*context().lane, deadline_, &Attempt::late, this);
    return true;
  }
  /// The attempt's own answer if it has one, else why there is none.
  Result<T> await_resume() {
    if (!task_ || !task_.done()) {
      if (cancel_kind() != FailureKind::none)
        return fail(cancel_kind(), {}, "cancelled by the caller while the call was running");
      return fail(FailureKind::timeout, "attempt_timeout",
                  "no answer within the time allowed for one attempt");
    }
    Result<T> answer = task_.take();
    const bool ours = late_ && cancel_kind() == FailureKind::none;
    if (ours && !answer && answer.error().kind() == FailureKind::cancelled)
      return fail(FailureKind::timeout, "attempt_timeout", std::string(answer.error().detail()));
    return answer;
  }

 private:
  static void ended(void* owner) noexcept {
    auto* self = static_cast<Attempt*>(owner);
    self->timer_.cancel();
    if (!self->cancelling_) self->finish();
  }
  static void late(void* owner) noexcept {
    auto* self = static_cast<Attempt*>(owner);
    bool gone = false;
    self->gone_ = &gone;
    self->late_ = true;
    self->scope_.cancel(FailureKind::timeout);  // may end the attempt, and with it this
    if (gone) return;
    self->gone_ = nullptr;
    self->task_.reset();
    self->finish();
  }
  // The caller is resumed right after this, so an attempt that ends in here must not do it.
  void on_cancel() noexcept override {
    cancelling_ = true;
    timer_.cancel();
    scope_.cancel(cancel_kind());
    if (!task_.done()) task_.reset();
  }

  Task<Result<T>>& task_;
  Instant deadline_;
  Duration margin_;
  CancelScope scope_;
  TaskContext inner_;
  Timer timer_;
  bool* gone_ = nullptr;  // on the stack of late()
  bool late_ = false;
  bool cancelling_ = false;
};

}  // namespace detail

/// Runs `task` until `deadline` or the caller's own, whichever is earlier. Fails timeout when it is
/// over; the caller's cancellation is reported as what it is. A task that was cut may have taken
/// effect: whether trying again is safe is for its caller to know. Inside, the deadline is earlier
/// by `margin`.
template <class T>
Task<Result<T>> with_deadline(Task<Result<T>> task, Instant deadline,
                              Duration margin = Duration::zero()) {
  detail::Attempt<T> attempt(task, deadline, margin);
  Result<T> answer = co_await attempt;
  co_return answer;
}

}  // namespace sluice::resilience
