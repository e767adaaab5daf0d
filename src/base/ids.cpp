#include "sluice/base/ids.hpp"

namespace sluice {
namespace {
constexpr std::int64_t kEpochMs = 1704067200000;  // 2024-01-01T00:00:00Z
constexpr unsigned kNodeBits = 10;
constexpr unsigned kSequenceBits = 12;
constexpr std::string_view kAlphabet = "0123456789abcdefghjkmnpqrstvwxyz";
constexpr std::size_t kTextSize = 13;
}  // namespace

std::string id_to_text(std::uint64_t value) {
  std::string text(kTextSize, '0');
  for (std::size_t i = kTextSize; i-- > 0; value >>= 5) text[i] = kAlphabet[value & 31];
  return text;
}

std::optional<std::uint64_t> id_from_text(std::string_view text) noexcept {
  if (text.size() != kTextSize) return std::nullopt;
  std::uint64_t value = 0;
  for (char c : text) {
    const auto digit = kAlphabet.find(c);
    if (digit == std::string_view::npos || (value >> 59) != 0) return std::nullopt;
    value = (value << 5) | digit;
  }
  if (value >> 63) return std::nullopt;
  return value;
}

IdSource::IdSource(Clock& clock, std::uint16_t node) noexcept
    : clock_(clock), node_(node & ((1u << kNodeBits) - 1)) {}

std::uint64_t IdSource::next() noexcept {
  const std::int64_t since = clock_.coarse_wall().time_since_epoch().count() - kEpochMs;
  const std::uint64_t floor = static_cast<std::uint64_t>(since > 0 ? since : 1) << kSequenceBits;
  std::uint64_t last = last_.load(std::memory_order_relaxed);
  std::uint64_t mine;
  do {
    mine = last + 1 > floor ? last + 1 : floor;
  } while (!last_.compare_exchange_weak(last, mine, std::memory_order_relaxed));
  const std::uint64_t ms = mine >> kSequenceBits;
  return (ms << (kNodeBits + kSequenceBits)) | (node_ << kSequenceBits) |
         (mine & ((1u << kSequenceBits) - 1));
}

void IdSource::advance_past(std::uint64_t id) noexcept {
  const std::uint64_t ms = id >> (kNodeBits + kSequenceBits);
  const std::uint64_t floor = (ms + 1) << kSequenceBits;
  std::uint64_t last = last_.load(std::memory_order_relaxed);
  while (last < floor && !last_.compare_exchange_weak(last, floor, std::memory_order_relaxed)) {
  }
}

WallTime IdSource::time_of(std::uint64_t id) noexcept {
  return WallTime(
      milliseconds(static_cast<std::int64_t>(id >> (kNodeBits + kSequenceBits)) + kEpochMs));
}

std::uint64_t IdSource::first_at(WallTime at) noexcept {
  const std::int64_t since = at.time_since_epoch().count() - kEpochMs;
  return since <= 0 ? 0 : static_cast<std::uint64_t>(since) << (kNodeBits + kSequenceBits);
}

}  // namespace sluice
