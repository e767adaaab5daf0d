// A question whose answer comes from elsewhere and may be late: its caller waits until the deadline.
#pragma once
#include <atomic>
#include <functional>
#include <memory>

#include "sluice/base/lane.hpp"

namespace sluice::server {

/// Keeps itself until it has an end.
template <class T>
class FirstAnswer {
 public:
  using Done = std::move_only_function<void(T)>;
  using Shared = std::shared_ptr<FirstAnswer>;

  /// On `lane`, which outlives it, as `done` is called: once, with what is given or at `deadline` with `late`.
  static Shared wait(Lane& lane, Instant deadline, T late, Done done) {
    Shared self(new FirstAnswer(lane, std::move(late), std::move(done)));
    self->self_ = self;
    if (deadline != kNever)
      self->timer_.arm(lane, deadline, [](void* of) noexcept {
        auto& waiting = *static_cast<FirstAnswer*>(of);
        waiting.end(std::move(waiting.late_));
      }, self.get());
    return self;
  }
  /// Whether nobody waits any more. Any thread.
  bool too_late() const noexcept { return ended_.load(std::memory_order_relaxed); }
  /// Once, on any thread; nothing happens when it is too late.
  static void give(Shared self, T answer) {
    Lane& lane = self->lane_;
    lane.post([self = std::move(self), answer = std::move(answer)]() mutable { self->end(std::move(answer)); });
  }

 private:
  FirstAnswer(Lane& lane, T late, Done done) : lane_(lane), late_(std::move(late)), done_(std::move(done)) {}
  void end(T answer) {
    if (ended_.exchange(true, std::memory_order_relaxed)) return;
    const Shared kept = std::move(self_);
    timer_.cancel();
    auto done = std::move(done_);
    done(std::move(answer));
  }
  Lane& lane_;
  T late_;
  Done done_;
  Timer timer_;
  std::atomic<bool> ended_{false};
  Shared self_;
};

}  // namespace sluice::server
