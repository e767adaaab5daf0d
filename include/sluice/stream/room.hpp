// What all streams of a pipeline have received and not finished, and how much of the rest one may take.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace sluice::stream {

/// Shared out by what is left: a stream may hold a quarter of it. So many greedy streams come to hold the
/// same each, there is always some left for one that comes new, and what may wait is never used up by
/// messages of one key (dynamic thresholds, Choudhury and Hahne 1998). A stream that holds nothing may
/// always read one message; what it holds wakes it when it ends, so nobody waits for room. Thread-safe.
class Room {
 public:
  Room(std::size_t messages, std::size_t bytes) noexcept : all_messages_(messages), all_bytes_(bytes) {}
  /// A stream; it may have one read on its way at any time, which is counted with it.
  void enter() noexcept { take(0); }
  void leave() noexcept { give_back(0); }
  void take(std::size_t bytes) noexcept { used_.fetch_add(kMessage + bytes, std::memory_order_relaxed); }
  void give_back(std::size_t bytes) noexcept { used_.fetch_sub(kMessage + bytes, std::memory_order_relaxed); }
  /// Whether a stream that holds so much may read one more message.
  bool has_place(std::size_t messages, std::size_t bytes) const noexcept {
    if (messages == 0) return true;
    const std::uint64_t used = used_.load(std::memory_order_relaxed);
    return messages < left(all_messages_, used / kMessage) / kShare && bytes < left(all_bytes_, used % kMessage) / kShare;
  }

 private:
  static constexpr std::size_t kShare = 4;
  // Both in one word, so that a message costs one step each way: 16 million messages, a tebibyte.
  static constexpr std::uint64_t kMessage = std::uint64_t{1} << 40;
  static std::size_t left(std::size_t all, std::uint64_t used) noexcept { return all - std::min<std::uint64_t>(all, used); }
  const std::size_t all_messages_, all_bytes_;
  std::atomic<std::uint64_t> used_{0};
};

}  // namespace sluice::stream
