#include "sluice/resilience/rate_limiter.hpp"

#include <algorithm>

#include "resilience/rate_units.hpp"
#include "sluice/resilience/block.hpp"

namespace sluice::resilience {

using rate::bounded_product;
using rate::duration_of;
using rate::price_of;
using rate::units;

namespace {

// `judge` sees the word and says what would become of it; a refusal leaves it as it is.
template <class Judge>
RateAnswer take(std::atomic<std::int64_t>& word, const Judge& judge) noexcept {
  std::int64_t seen = word.load(std::memory_order_relaxed);
  for (;;) {
    const RateAnswer answer = judge(seen);
    if (!answer.passed || answer.after == answer.before) return answer;
    if (word.compare_exchange_weak(seen, answer.after, std::memory_order_relaxed)) return answer;
  }
}

void undo(std::atomic<std::int64_t>& word, const RateAnswer& answer) noexcept {
  if (!answer.passed || answer.after == answer.before) return;
  std::int64_t expected = answer.after;
  word.compare_exchange_strong(expected, answer.before, std::memory_order_relaxed);
}

}  // namespace

RateAnswer TokenBucket::judge(std::int64_t paid_until, Instant now,
                              std::uint32_t n) const noexcept {
  RateAnswer answer{.before = paid_until, .after = paid_until};
  if (n == 0) return answer;
  if (n > burst_.load(std::memory_order_relaxed)) {
    answer.passed = false;
    answer.wait = kNoRetryAfter;
    return answer;
  }
  const std::int64_t at = units(now);
  const std::int64_t cost = bounded_product(price_.load(std::memory_order_relaxed), n);
  const std::int64_t after = std::max(paid_until, at) + cost;
  const std::int64_t excess = after - at - capacity_.load(std::memory_order_relaxed);
  if (excess > 0) {
    answer.passed = false;
    answer.wait = duration_of(excess);
  } else {
    answer.after = after;
  }
  return answer;
}

RateAnswer TokenBucket::try_take(Instant now, std::uint32_t n) noexcept {
  return take(paid_until_, [&](std::int64_t seen) { return judge(seen, now, n); });
}

RateAnswer TokenBucket::peek(Instant now, std::uint32_t n) const noexcept {
  return judge(paid_until_.load(std::memory_order_relaxed), now, n);
}

void TokenBucket::give_back(const RateAnswer& answer) noexcept { undo(paid_until_, answer); }

std::uint64_t TokenBucket::available(Instant now) const noexcept {
  const std::int64_t at = units(now);
  const std::int64_t owed =
      std::max<std::int64_t>(paid_until_.load(std::memory_order_relaxed) - at, 0);
  const std::int64_t left = capacity_.load(std::memory_order_relaxed) - owed;
  return left <= 0 ? 0 : static_cast<std::uint64_t>(left / price_.load(std::memory_order_relaxed));
}

void TokenBucket::reconfigure(RateOptions options) noexcept {
  const std::int64_t price = price_of(options.limit, options.period);
  std::uint64_t burst = options.burst == 0 ? options.limit : options.burst;
  if (options.limit == 0) burst = 0;
  price_.store(price, std::memory_order_relaxed);
  capacity_.store(bounded_product(price, burst), std::memory_order_relaxed);
  burst_.store(burst, std::memory_order_relaxed);
}

RateAnswer Pacer::judge(std::int64_t paid_until, Instant now, std::uint32_t n) const noexcept {
  RateAnswer answer{.before = paid_until, .after = paid_until};
  if (n == 0) return answer;
  if (n > limit_.load(std::memory_order_relaxed)) {
    answer.passed = false;
    answer.wait = kNoRetryAfter;
    return answer;
  }
  const std::int64_t at = units(now);
  const std::int64_t start = std::max(paid_until, at);
  const std::int64_t late = start - at - max_wait_.load(std::memory_order_relaxed);
  if (late > 0) {
    answer.passed = false;
    answer.wait = duration_of(late);
  } else {
    answer.wait = duration_of(start - at);
    answer.after = start + bounded_product(price_.load(std::memory_order_relaxed), n);
  }
  return answer;
}

RateAnswer Pacer::try_take(Instant now, std::uint32_t n) noexcept {
  return take(paid_until_, [&](std::int64_t seen) { return judge(seen, now, n); });
}

RateAnswer Pacer::peek(Instant now, std::uint32_t n) const noexcept {
  return judge(paid_until_.load(std::memory_order_relaxed), now, n);
}

void Pacer::give_back(const RateAnswer& answer) noexcept { undo(paid_until_, answer); }

std::pair<std::uint64_t, Duration> Pacer::bounds() const noexcept {
  return {limit_.load(std::memory_order_relaxed),
          duration_of(max_wait_.load(std::memory_order_relaxed))};
}

void Pacer::reconfigure(PacerOptions options) noexcept {
  price_.store(price_of(options.limit, options.period), std::memory_order_relaxed);
  max_wait_.store(units(Instant(options.max_wait)), std::memory_order_relaxed);
  limit_.store(options.limit, std::memory_order_relaxed);
}

}  // namespace sluice::resilience
