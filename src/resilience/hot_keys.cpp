#include "sluice/resilience/hot_keys.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "resilience/rate_units.hpp"
#include "sluice/resilience/block.hpp"

namespace sluice::resilience {

HotKeys::HotKeys(HotKeyOptions options, Random& random) : seed_(random.next()) {
  build(std::move(options));
}

// Multiply and fold, eight bytes at a time, under the seed.
std::uint64_t HotKeys::print_of(std::string_view key) const noexcept {
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15ull;
  std::uint64_t hash = seed_ ^ (key.size() * kOdd);
  const auto mix = [&](std::uint64_t word) {
    const Uint128 product = static_cast<Uint128>(hash ^ word) * (kOdd ^ (seed_ | 1));
    hash = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    hash += word * kOdd;
  };
  while (!key.empty()) {
    std::uint64_t word = 0;
    const std::size_t size = std::min(key.size(), sizeof word);
    std::memcpy(&word, key.data(), size);
    mix(word);
    key.remove_prefix(size);
  }
  mix(kOdd);
  return hash;
}

const HotKeys::Quota& HotKeys::quota_of(std::uint64_t print) const noexcept {
  if (single_.empty()) return common_;
  const auto found = single_.find(print);
  return found == single_.end() ? common_ : found->second;
}

RateAnswer HotKeys::judge(const Quota& quota, std::int64_t paid_until, Instant now,
                          std::uint32_t n) noexcept {
  RateAnswer answer{.before = paid_until, .after = paid_until};
  if (n == 0) return answer;
  if (n > quota.burst) {
    answer.passed = false;
    answer.wait = kNoRetryAfter;
    return answer;
  }
  const std::int64_t at = rate::units(now);
  const std::int64_t after = std::max(paid_until, at) + rate::bounded_product(quota.price, n);
  if (after - at > quota.capacity) {
    answer.passed = false;
    answer.wait = rate::duration_of(after - at - quota.capacity);
  } else {
    answer.after = after;
  }
  return answer;
}

RateAnswer HotKeys::peek(Instant now, std::string_view key, std::uint32_t n) const noexcept {
  const std::uint64_t print = print_of(key);
  const std::lock_guard lock(mutex_);
  const std::uint32_t at = find(print);
  return judge(quota_of(print), at == kNone ? 0 : entries_[at].paid_until, now, n);
}

std::uint64_t HotKeys::available(Instant now, std::string_view key) const noexcept {
  const std::uint64_t print = print_of(key);
  const std::lock_guard lock(mutex_);
  const Quota& quota = quota_of(print);
  const std::uint32_t at = find(print);
  const std::int64_t owed =
      at == kNone ? 0 : std::max<std::int64_t>(entries_[at].paid_until - rate::units(now), 0);
  const std::int64_t left = quota.capacity - owed;
  return left <= 0 ? 0 : static_cast<std::uint64_t>(left / quota.price);
}

RateAnswer HotKeys::try_take(Instant now, std::string_view key, std::uint32_t n) noexcept {
  const std::uint64_t print = print_of(key);
  const std::lock_guard lock(mutex_);
  const Quota& quota = quota_of(print);
  std::uint32_t at = find(print);
  const RateAnswer answer = judge(quota, at == kNone ? 0 : entries_[at].paid_until, now, n);
  if (!answer.passed || n == 0) return answer;
  if (at == kNone) {
    at = place_for(print, now);
    if (at == kNone) return {.passed = false, .wait = options_.period};
  }
  entries_[at].paid_until = answer.after;
  unlink(at);
  link_newest(at);
  return answer;
}

void HotKeys::give_back(std::string_view key, const RateAnswer& answer) noexcept {
  if (!answer.passed || answer.after == answer.before) return;
  const std::uint64_t print = print_of(key);
  const std::lock_guard lock(mutex_);
  const std::uint32_t at = find(print);
  if (at != kNone && entries_[at].paid_until == answer.after)
    entries_[at].paid_until = answer.before;
}

std::uint32_t HotKeys::place_for(std::uint64_t print, Instant now) noexcept {
  std::uint32_t at = used_;
  if (used_ < entries_.size()) {
    ++used_;
  } else {
    if (oldest_ == kNone) return kNone;
    at = oldest_;
    const bool refilled = entries_[at].paid_until <= rate::units(now);
    if (!refilled && options_.on_full == HotKeysFull::refuse) return kNone;
    ++(refilled ? stats_.evicted : stats_.evicted_early);
    unchain(at);
    unlink(at);
  }
  insert(at, print, 0);
  return at;
}

void HotKeys::insert(std::uint32_t at, std::uint64_t print, std::int64_t paid_until) noexcept {
  std::uint32_t& bucket = buckets_[print & (buckets_.size() - 1)];
  entries_[at] = {.print = print, .paid_until = paid_until, .chain = bucket};
  bucket = at;
  link_newest(at);
}

std::uint32_t HotKeys::find(std::uint64_t print) const noexcept {
  std::uint32_t at = buckets_[print & (buckets_.size() - 1)];
  while (at != kNone && entries_[at].print != print) at = entries_[at].chain;
  return at;
}

void HotKeys::unchain(std::uint32_t at) noexcept {
  std::uint32_t* link = &buckets_[entries_[at].print & (buckets_.size() - 1)];
  while (*link != at) link = &entries_[*link].chain;
  *link = entries_[at].chain;
}

void HotKeys::link_newest(std::uint32_t at) noexcept {
  entries_[at].older = newest_;
  entries_[at].newer = kNone;
  (newest_ != kNone ? entries_[newest_].newer : oldest_) = at;
  newest_ = at;
}

void HotKeys::unlink(std::uint32_t at) noexcept {
  const Entry& entry = entries_[at];
  (entry.older != kNone ? entries_[entry.older].newer : oldest_) = entry.newer;
  (entry.newer != kNone ? entries_[entry.newer].older : newest_) = entry.older;
}

void HotKeys::build(HotKeyOptions options) {
  std::vector<Entry> kept;  // newest first
  for (std::uint32_t at = newest_; at != kNone && kept.size() < options.max_keys;
       at = entries_[at].older)
    kept.push_back(entries_[at]);
  options_ = std::move(options);
  const auto quota = [&](std::uint64_t limit, std::uint64_t burst) {
    const std::int64_t price = rate::price_of(limit, options_.period);
    return Quota{price, rate::bounded_product(price, burst), limit == 0 ? 0 : burst};
  };
  common_ = quota(options_.limit, options_.burst == 0 ? options_.limit : options_.burst);
  single_.clear();
  for (const auto& [key, limit] : options_.overrides)
    single_.insert_or_assign(print_of(key), quota(limit, limit));
  entries_.assign(options_.max_keys, {});
  buckets_.assign(std::bit_ceil(std::max<std::size_t>(options_.max_keys, 1)), kNone);
  oldest_ = newest_ = kNone;
  used_ = 0;
  for (std::size_t i = kept.size(); i > 0; --i)
    insert(used_++, kept[i - 1].print, kept[i - 1].paid_until);
}

void HotKeys::reconfigure(HotKeyOptions options) {
  const std::lock_guard lock(mutex_);
  build(std::move(options));
}

HotKeyStats HotKeys::stats() const {
  const std::lock_guard lock(mutex_);
  HotKeyStats stats = stats_;
  stats.keys = used_;
  return stats;
}

}  // namespace sluice::resilience
