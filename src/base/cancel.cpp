#include "sluice/base/cancel.hpp"

namespace sluice {

void CancelListener::link(CancelScope& scope, void (*cancelled)(void*) noexcept,
                          void* owner) noexcept {
  unlink();
  cancelled_ = cancelled;
  owner_ = owner;
  next_ = scope.head_;
  link_ = &scope.head_;
  if (next_ != nullptr) next_->link_ = &next_;
  scope.head_ = this;
}

void CancelScope::cancel(FailureKind reason) noexcept {
  if (cancelled()) return;
  reason_ = reason;
  bool destroyed = false;
  destroyed_ = &destroyed;
  while (head_ != nullptr) {
    CancelListener* const listener = head_;
    listener->unlink();
    listener->cancelled_(listener->owner_);
    if (destroyed) return;
  }
  destroyed_ = nullptr;
}

}  // namespace sluice
