#include "sluice/resilience/bulkhead.hpp"

#include <algorithm>
#include <cmath>

#include "resilience/bulkhead_waiter.hpp"

namespace sluice::resilience {
namespace {

constexpr unsigned kBits = 16;

std::uint32_t used_by(std::uint64_t word, std::size_t partition) noexcept {
  return static_cast<std::uint32_t>(word >> (kBits * partition)) & kMaxInFlight;
}

std::uint32_t total_of(std::uint64_t word) noexcept {
  std::uint32_t total = 0;
  for (std::size_t p = 0; p < kPartitions; ++p) total += used_by(word, p);
  return total;
}

constexpr std::uint64_t one_of(std::size_t partition) noexcept {
  return std::uint64_t{1} << (kBits * partition);
}

std::size_t known(std::uint8_t partition) noexcept {
  return std::min<std::size_t>(partition, kPartitions - 1);
}

}  // namespace

Bulkhead::Bulkhead(BulkheadOptions options, Policy policy) : policy_(policy) {
  reconfigure(options);
}

Bulkhead::~Bulkhead() { SLUICE_ASSERT(oldest_ == nullptr, "a bulkhead died with a queue"); }

void Bulkhead::reconfigure(const BulkheadOptions& options) noexcept {
  {
    const std::lock_guard lock(mutex_);
    options_ = options;
    set_bounds(options.limit);
  }
  grant();
}

void Bulkhead::set_limit(std::uint32_t limit) noexcept {
  {
    const std::lock_guard lock(mutex_);
    set_bounds(limit);
  }
  grant();
}

void Bulkhead::set_bounds(std::uint32_t limit) noexcept {
  limit = std::min(limit, kMaxInFlight);
  const auto part = [&](double share) {
    return static_cast<std::uint32_t>(std::floor(std::clamp(share, 0.0, 1.0) * limit + 1e-9));
  };
  bool partitioned = false, ranked = false;
  for (std::size_t p = 0; p < kPartitions; ++p) {
    guarantees_[p].store(part(options_.shares[p]), std::memory_order_relaxed);
    partitioned = partitioned || options_.shares[p] > 0;
  }
  for (std::size_t p = 0; p < kPriorities; ++p) {
    const double share = options_.priorities[p];
    // A share of a small limit is still one call.
    const std::uint32_t cap = share > 0 && limit > 0 ? std::max(part(share), 1u) : 0;
    caps_[p].store(cap, std::memory_order_relaxed);
    ranked = ranked || cap < limit;
  }
  lend_.store(std::clamp(options_.lend, 0.0, 1.0), std::memory_order_relaxed);
  partitioned_.store(partitioned, std::memory_order_relaxed);
  ranked_.store(ranked, std::memory_order_relaxed);
  limit_.store(limit, std::memory_order_relaxed);
}

bool Bulkhead::fits(std::uint64_t word, std::uint8_t partition, Priority priority,
                    std::uint32_t& total) const noexcept {
  total = total_of(word);
  const std::uint32_t limit = limit_.load(std::memory_order_relaxed);
  if (total >= std::min(limit, cap_of(priority))) return false;
  if (!partitioned_.load(std::memory_order_relaxed)) return true;
  const std::size_t own = known(partition);
  if (used_by(word, own) < guarantees_[own].load(std::memory_order_relaxed)) return true;
  // Borrowing: what is kept of the others' unused guarantees must stay free.
  const double kept = 1 - lend_.load(std::memory_order_relaxed);
  double reserved = 0;
  for (std::size_t p = 0; p < kPartitions; ++p) {
    const std::uint32_t guarantee = guarantees_[p].load(std::memory_order_relaxed);
    const std::uint32_t used = used_by(word, p);
    if (p != own && used < guarantee) reserved += std::ceil(kept * (guarantee - used) - 1e-9);
  }
  return total + reserved < limit;
}

bool Bulkhead::take_word(std::uint8_t partition, Priority priority, std::uint32_t& total) noexcept {
  std::uint64_t word = in_flight_.load(std::memory_order_relaxed);
  while (fits(word, partition, priority, total))
    if (in_flight_.compare_exchange_weak(word, word + one_of(known(partition)),
                                         std::memory_order_seq_cst, std::memory_order_relaxed))
      return true;
  return false;
}

bool Bulkhead::try_take(std::uint8_t partition, Priority priority, Block& block) noexcept {
  std::uint32_t total = 0;
  const bool behind_others = queued_.load(std::memory_order_relaxed) != 0 &&
                             !partitioned_.load(std::memory_order_relaxed) &&
                             !ranked_.load(std::memory_order_relaxed);
  if (!behind_others && take_word(partition, priority, total)) return true;
  block.policy = policy_;
  block.observed = behind_others ? in_flight() : total;
  block.threshold = std::min(limit_.load(std::memory_order_relaxed), cap_of(priority));
  block.retry_after = kNoRetryAfter;
  return false;
}

// A releaser gives back and then looks for a queue; a waiter joins the queue and then tries once
// more. All four steps are sequentially consistent, so one of the two sees the other.
void Bulkhead::give_back(std::uint8_t partition) noexcept {
  in_flight_.fetch_sub(one_of(known(partition)), std::memory_order_seq_cst);
  if (queued_.load(std::memory_order_seq_cst) != 0) grant();
}

std::uint32_t Bulkhead::in_flight() const noexcept {
  return total_of(in_flight_.load(std::memory_order_seq_cst));
}

BulkheadStats Bulkhead::stats() const {
  const std::uint64_t word = in_flight_.load(std::memory_order_seq_cst);
  BulkheadStats stats{.limit = limit(),
                      .in_flight = total_of(word),
                      .waiting = queued_.load(std::memory_order_relaxed)};
  for (std::size_t p = 0; p < kPartitions; ++p) stats.partitions[p] = used_by(word, p);
  return stats;
}

}  // namespace sluice::resilience
