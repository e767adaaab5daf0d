// What the last heartbeat said about the nodes on the database. Thread-safe.
#pragma once
#include <atomic>
#include <bitset>
#include <mutex>

#include "sluice/base/ids.hpp"

namespace sluice::store {

class Membership {
 public:
  static constexpr std::size_t kNodes = 1024;
  /// Returns those that became this node's to finish.
  std::bitset<kNodes> set(const std::bitset<kNodes>& known, const std::bitset<kNodes>& ours,
                          const std::bitset<kNodes>& alive, std::uint16_t self) {
    const std::scoped_lock lock(mutex_);
    const auto kept = ours & ~passing_;
    auto adopted = kept & ~ours_;
    adopted.reset(self);
    if (ours_ != kept || known_ != known) changes_.fetch_add(1, std::memory_order_relaxed);
    known_ = known;
    ours_ = kept;
    self_ = self;
    living_ = alive.count() + 1;
    // Of what no node is known to have begun (its row is long gone), the first of the living takes care.
    first_ = true;
    for (std::size_t n = 0; n < self; ++n) first_ = first_ && !alive[n];
    return adopted;
  }
  void none() {
    const std::scoped_lock lock(mutex_);
    ours_.reset();
    known_.set();
    first_ = false;
    living_ = 0;
  }
  std::size_t living() const {
    const std::scoped_lock lock(mutex_);
    return living_;
  }
  void pass_on(std::uint16_t node) {
    const std::scoped_lock lock(mutex_);
    if (node == self_ || !ours_[node]) return;
    ours_.reset(node);
    passing_.set(node);
  }
  /// Those to pass on; passed() once the database knows.
  std::bitset<kNodes> passing() const {
    const std::scoped_lock lock(mutex_);
    return passing_;
  }
  void passed(std::size_t node) {
    const std::scoped_lock lock(mutex_);
    passing_.reset(node);
  }
  std::uint64_t changes() const noexcept { return changes_.load(std::memory_order_relaxed); }
  bool ours(std::uint16_t node) const {
    const std::scoped_lock lock(mutex_);
    return ours_[node] || (first_ && !known_[node]);
  }

 private:
  std::atomic<std::uint64_t> changes_{0};
  mutable std::mutex mutex_;
  std::bitset<kNodes> known_, ours_, passing_;
  std::uint16_t self_ = 0;
  bool first_ = false;
  std::size_t living_ = 0;
};

}  // namespace sluice::store
