#include "base/timer_wheel.hpp"

#include <algorithm>
#include <bit>

namespace sluice {

void TimerWheel::insert(Timer& timer, std::uint64_t tick) noexcept {
  tick = std::max(tick, now_ + 1);
  constexpr std::uint64_t kSpan = (std::uint64_t{1} << (kLevels * kBits)) - 1;
  const std::uint64_t placed = std::min(tick, now_ + kSpan);
  // The level is given by the highest bit in which the tick differs from now.
  const std::uint64_t differing = placed ^ now_;
  unsigned level =
      differing == 0 ? 0 : (63u - static_cast<unsigned>(std::countl_zero(differing))) / kBits;
  level = std::min(level, kLevels - 1);
  const auto slot = static_cast<unsigned>((placed >> (level * kBits)) & (kSlots - 1));
  timer.tick_ = tick;
  timer.level_ = static_cast<std::uint8_t>(level);
  timer.slot_ = static_cast<std::uint8_t>(slot);
  Timer*& head = slots_[level][slot];
  timer.next_ = head;
  timer.link_ = &head;
  if (head != nullptr) head->link_ = &timer.next_;
  head = &timer;
  used_[level] |= std::uint64_t{1} << slot;
}

void TimerWheel::remove(Timer& timer) noexcept {
  *timer.link_ = timer.next_;
  if (timer.next_ != nullptr) timer.next_->link_ = timer.link_;
  if (slots_[timer.level_][timer.slot_] == nullptr)
    used_[timer.level_] &= ~(std::uint64_t{1} << timer.slot_);
  timer.next_ = nullptr;
  timer.link_ = nullptr;
}

std::uint64_t TimerWheel::next_tick() const noexcept {
  std::uint64_t earliest = UINT64_MAX;
  for (unsigned level = 0; level < kLevels; ++level) {
    if (used_[level] == 0) continue;
    const unsigned shift = level * kBits;
    const auto here = static_cast<int>((now_ >> shift) & (kSlots - 1));
    // The slot of now itself holds timers a whole round away, so it counts last.
    const std::uint64_t ahead = std::rotr(used_[level], here) & ~std::uint64_t{1};
    const auto distance = ahead == 0 ? kSlots : static_cast<unsigned>(std::countr_zero(ahead));
    const std::uint64_t start = ((now_ >> shift) + distance) << shift;
    earliest = std::min(earliest, start);
  }
  return earliest;
}

Timer* TimerWheel::advance(std::uint64_t tick) noexcept {
  Timer* due = nullptr;
  Timer** tail = &due;
  while (now_ < tick) {
    const std::uint64_t next = next_tick();
    if (next > tick) {
      now_ = tick;
      break;
    }
    now_ = next;
    for (unsigned level = 0; level < kLevels; ++level) {
      const unsigned shift = level * kBits;
      if (level > 0 && (now_ & ((std::uint64_t{1} << shift) - 1)) != 0) break;
      const auto slot = static_cast<unsigned>((now_ >> shift) & (kSlots - 1));
      Timer* timer = slots_[level][slot];
      slots_[level][slot] = nullptr;
      used_[level] &= ~(std::uint64_t{1} << slot);
      while (timer != nullptr) {
        Timer* following = timer->next_;
        timer->next_ = nullptr;
        timer->link_ = nullptr;
        if (timer->tick_ <= now_) {
          // Due timers stay linked so that cancelling one from another's callback works.
          timer->link_ = tail;
          *tail = timer;
          tail = &timer->next_;
        } else {
          insert(*timer, timer->tick_);
        }
        timer = following;
      }
    }
  }
  return due;
}

}  // namespace sluice
