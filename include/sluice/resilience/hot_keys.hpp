// A quota for each value of a parameter (one voucher, one user, one shop), so that a hot one cannot
// take what is meant for all. Remembers a bounded number of values, least recently used first out.
#pragma once
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sluice/base/random.hpp"
#include "sluice/resilience/rate_limiter.hpp"

namespace sluice::resilience {

/// A new value comes, all places are taken and the least recently used has not refilled.
enum class HotKeysFull : std::uint8_t {
  evict,   ///< that one is forgotten: it may exceed its quota by what is forgotten, once
  refuse,  ///< the new value is refused until a place is free: exact
};

struct HotKeyOptions {
  std::uint64_t limit = 10;      ///< calls per value and period; 0 refuses all
  Duration period = seconds(1);  ///< (0, 1 day]
  std::uint64_t burst = 0;       ///< 0: the value's limit
  std::uint32_t max_keys = 10'000;
  HotKeysFull on_full = HotKeysFull::evict;
  /// Limits of single values; 0 refuses them. Their burst is their limit.
  std::vector<std::pair<std::string, std::uint64_t>> overrides;
};

struct HotKeyStats {
  std::size_t keys = 0;
  std::uint64_t evicted = 0;        ///< those that had refilled: nothing was lost
  std::uint64_t evicted_early = 0;  ///< those that had not
};

/// Thread-safe, one short lock; a call allocates nothing. Values are told apart by a 64-bit
/// fingerprint under a random seed, so nobody can choose values that collide.
class HotKeys {
 public:
  HotKeys(HotKeyOptions options, Random& random);
  RateAnswer try_take(Instant now, std::string_view key, std::uint32_t n = 1) noexcept;
  RateAnswer peek(Instant now, std::string_view key, std::uint32_t n = 1) const noexcept;
  /// Undoes a passed answer, if nobody took of that key since.
  void give_back(std::string_view key, const RateAnswer& answer) noexcept;
  /// How many of this value would pass now.
  std::uint64_t available(Instant now, std::string_view key) const noexcept;
  /// Keeps what each value has spent; with fewer places, the most recently used stay.
  void reconfigure(HotKeyOptions options);
  HotKeyStats stats() const;

 private:
  static constexpr std::uint32_t kNone = ~0u;
  struct Entry {
    std::uint64_t print = 0;
    std::int64_t paid_until = 0;
    std::uint32_t chain = kNone;
    std::uint32_t older = kNone, newer = kNone;
  };
  struct Quota {
    std::int64_t price = 0;
    std::int64_t capacity = 0;
    std::uint64_t burst = 0;
  };
  std::uint64_t print_of(std::string_view key) const noexcept;
  const Quota& quota_of(std::uint64_t print) const noexcept;
  static RateAnswer judge(const Quota& quota, std::int64_t paid_until, Instant now,
                          std::uint32_t n) noexcept;
  std::uint32_t find(std::uint64_t print) const noexcept;
  std::uint32_t place_for(std::uint64_t print, Instant now) noexcept;
  void insert(std::uint32_t at, std::uint64_t print, std::int64_t paid_until) noexcept;
  void unchain(std::uint32_t at) noexcept;
  void link_newest(std::uint32_t at) noexcept;
  void unlink(std::uint32_t at) noexcept;
  void build(HotKeyOptions options);

  mutable std::mutex mutex_;
  const std::uint64_t seed_;
  HotKeyOptions options_;
  Quota common_;
  std::unordered_map<std::uint64_t, Quota> single_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> buckets_;
  std::uint32_t used_ = 0;
  std::uint32_t oldest_ = kNone, newest_ = kNone;
  HotKeyStats stats_;
};

}  // namespace sluice::resilience
