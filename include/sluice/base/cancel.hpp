// Cancellation and deadline of one piece of work. Lane-only; other threads post to the lane.
#pragma once
#include <optional>

#include "sluice/base/failure.hpp"
#include "sluice/base/lane.hpp"

namespace sluice {

class CancelScope;

/// Embedded in whatever waits. Linked while waiting; `cancelled` runs at most once per link.
class CancelListener {
 public:
  CancelListener() = default;
  CancelListener(const CancelListener&) = delete;
  CancelListener& operator=(const CancelListener&) = delete;
  ~CancelListener() { unlink(); }
  void link(CancelScope& scope, void (*cancelled)(void* owner) noexcept, void* owner) noexcept;
  void unlink() noexcept {
    if (link_ == nullptr) return;
    *link_ = next_;
    if (next_ != nullptr) next_->link_ = link_;
    link_ = nullptr;
    next_ = nullptr;
  }

 private:
  friend class CancelScope;
  CancelListener* next_ = nullptr;
  CancelListener** link_ = nullptr;
  void (*cancelled_)(void*) noexcept = nullptr;
  void* owner_ = nullptr;
};

/// Owned by the work; cancelled once, with a reason (kind cancelled, timeout or shutting_down).
class CancelScope {
 public:
  CancelScope() = default;
  CancelScope(const CancelScope&) = delete;
  CancelScope& operator=(const CancelScope&) = delete;
  ~CancelScope() {
    if (destroyed_ != nullptr) *destroyed_ = true;
    while (head_ != nullptr) head_->unlink();
  }
  bool cancelled() const noexcept { return reason_ != FailureKind::none; }
  /// none until cancelled.
  FailureKind reason() const noexcept { return reason_; }
  /// Idempotent: the first reason stays. Listeners run before it returns; they may destroy
  /// other listeners, and the scope itself with the work that owns it.
  void cancel(FailureKind reason = FailureKind::cancelled) noexcept;
  void reset() noexcept { reason_ = FailureKind::none; }

 private:
  friend class CancelListener;
  CancelListener* head_ = nullptr;
  bool* destroyed_ = nullptr;  // on the stack of a running cancel()
  FailureKind reason_ = FailureKind::none;
};

/// What a running Task can ask for: its lane, its scope and its deadline.
struct TaskContext {
  Lane* lane = nullptr;
  CancelScope* scope = nullptr;
  Instant deadline = kNever;
  /// Whether it may change something outside: not in a stage of a flow that is declared otherwise.
  bool outside = true;
};

}  // namespace sluice
