// What all streams of a pipeline have received and not finished, and how much of the rest one may take.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>

namespace sluice::stream {

/// Shared out by what is left: a stream may hold a quarter of it. So many greedy streams come to hold the
/// same each, there is always some left for one that comes new, and what may wait is never used up by
/// messages of one key (dynamic thresholds, Choudhury and Hahne 1998). A stream that holds nothing may
/// always read one message; what it holds wakes it when it ends, so nobody waits for room. Thread-safe.
class Room {
 public:
  Room(std::size_t messages, std::size_t bytes) noexcept : all_messages_(messages), all_bytes_(bytes) {}
  /// A stream; it may have one read on its way at any time, which is counted with it.
  void enter() noexcept { messages_.fetch_add(1, std::memory_order_relaxed); }
  void leave() noexcept { messages_.fetch_sub(1, std::memory_order_relaxed); }
  void take(std::size_t bytes) noexcept {
    messages_.fetch_add(1, std::memory_order_relaxed);
    bytes_.fetch_add(bytes, std::memory_order_relaxed);
  }
  void give_back(std::size_t bytes) noexcept {
    messages_.fetch_sub(1, std::memory_order_relaxed);
    bytes_.fetch_sub(bytes, std::memory_order_relaxed);
  }
  /// Whether a stream that holds so much may read one more message.
  bool has_place(std::size_t messages, std::size_t bytes) const noexcept {
    if (messages == 0) return true;
    return messages < left(all_messages_, messages_) / kShare && bytes < left(all_bytes_, bytes_) / kShare;
  }

 private:
  static constexpr std::size_t kShare = 4;
  static std::size_t left(std::size_t all, const std::atomic<std::size_t>& used) noexcept {
    return all - std::min(all, used.load(std::memory_order_relaxed));
  }
  const std::size_t all_messages_, all_bytes_;
  std::atomic<std::size_t> messages_{0}, bytes_{0};
};

}  // namespace sluice::stream
