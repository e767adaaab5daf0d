#include "resilience/window.hpp"

#include <algorithm>

namespace sluice::resilience {
namespace {

std::int64_t slot_length(const BreakerOptions& options, std::size_t slots) {
  return std::max<std::int64_t>(options.window_time.count() / static_cast<std::int64_t>(slots), 1);
}

void subtract(BreakerTally& from, const BreakerTally& what) noexcept {
  from.calls -= what.calls;
  from.failures -= what.failures;
  from.slow -= what.slow;
}

}  // namespace

void Window::configure(const BreakerOptions& options) {
  kind_ = options.window;
  slot_ns_ = slot_length(options, kSlots);
  calls_.assign(
      kind_ == BreakerWindow::count ? std::max<std::uint32_t>(options.window_calls, 1) : 0, 0);
  clear();
}

bool Window::reconfigure(const BreakerOptions& options) {
  if (options.window != kind_) {
    configure(options);
    return false;
  }
  if (kind_ == BreakerWindow::count) {
    const std::size_t size = std::max<std::uint32_t>(options.window_calls, 1);
    if (size == calls_.size()) return true;
    std::vector<std::uint8_t> newest;  // oldest first
    const std::size_t keep = std::min<std::size_t>(tally_.calls, size);
    for (std::size_t i = keep; i > 0; --i)
      newest.push_back(calls_[(next_ + calls_.size() - i) % calls_.size()]);
    calls_.assign(size, 0);
    clear();
    for (const std::uint8_t call : newest) add(call);
  } else if (const std::int64_t length = slot_length(options, kSlots); length != slot_ns_) {
    slots_.fill({});
    head_ = head_ * slot_ns_ / length;
    slot_ns_ = length;
    slots_[static_cast<std::size_t>(head_) % kSlots] = tally_;
  }
  return true;
}

void Window::clear() noexcept {
  tally_ = {};
  next_ = 0;
  slots_.fill({});
}

void Window::add(BreakerTally& to, std::uint8_t call) noexcept {
  ++to.calls;
  to.failures += (call & kFailed) != 0 ? 1 : 0;
  to.slow += (call & kSlow) != 0 ? 1 : 0;
}

void Window::add(std::uint8_t call) noexcept {
  if (tally_.calls == calls_.size()) {
    BreakerTally oldest;
    add(oldest, calls_[next_]);
    subtract(tally_, oldest);
  }
  calls_[next_] = call;
  if (++next_ == calls_.size()) next_ = 0;
  add(tally_, call);
}

void Window::age(Instant now) noexcept {
  // Mostly in the newest slot still: a comparison instead of a division.
  if (kind_ != BreakerWindow::time || now.time_since_epoch().count() < slot_end()) return;
  const std::int64_t slot = now.time_since_epoch().count() / slot_ns_;
  if (slot <= head_) return;  // time never runs backwards into a slot
  if (slot - head_ >= static_cast<std::int64_t>(kSlots)) {
    if (tally_.calls != 0) clear();
  } else {
    for (std::int64_t i = head_ + 1; i <= slot; ++i) {
      BreakerTally& old = slots_[static_cast<std::size_t>(i) % kSlots];
      subtract(tally_, old);
      old = {};
    }
  }
  head_ = slot;
}

void Window::add_healthy(std::uint64_t calls) noexcept {
  slots_[static_cast<std::size_t>(head_) % kSlots].calls += calls;
  tally_.calls += calls;
}

void Window::record(Instant now, bool failed, bool slow) noexcept {
  const auto call = static_cast<std::uint8_t>((failed ? kFailed : 0) | (slow ? kSlow : 0));
  if (kind_ == BreakerWindow::count) return add(call);
  age(now);
  add(slots_[static_cast<std::size_t>(head_) % kSlots], call);
  add(tally_, call);
}

}  // namespace sluice::resilience
