// First come first served, linked through the waiting ones themselves; leaving is O(1).
#pragma once
#include <cstddef>

#include "sluice/admission/gate.hpp"

namespace sluice::admission {

class PendingQueue {
 public:
  bool empty() const noexcept { return first_ == nullptr; }
  std::size_t size() const noexcept { return size_; }
  PendingAdmission& front() const noexcept { return *first_; }
  void push(PendingAdmission& pending) noexcept {
    auto& w = pending.waiting;
    w.next = nullptr;
    w.previous = last_;
    (last_ != nullptr ? last_->waiting.next : first_) = &pending;
    last_ = &pending;
    ++size_;
  }
  void remove(PendingAdmission& pending) noexcept {
    auto& w = pending.waiting;
    (w.previous != nullptr ? w.previous->waiting.next : first_) = w.next;
    (w.next != nullptr ? w.next->waiting.previous : last_) = w.previous;
    --size_;
  }
  PendingAdmission* pop() noexcept {
    PendingAdmission* pending = first_;
    if (pending != nullptr) remove(*pending);
    return pending;
  }

 private:
  PendingAdmission* first_ = nullptr;
  PendingAdmission* last_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sluice::admission
