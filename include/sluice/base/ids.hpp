// Strong ids: never two bare integers side by side.
#pragma once
#include <atomic>
#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "sluice/base/time.hpp"

namespace sluice {

/// A 63-bit, time-ordered id; 0 means none. Text form: 13 characters of Crockford base32, which
/// sort as the numbers do.
template <class Tag>
struct Id64 {
  std::uint64_t value = 0;
  constexpr explicit operator bool() const noexcept { return value != 0; }
  constexpr auto operator<=>(const Id64&) const noexcept = default;
};

using ExchangeId = Id64<struct ExchangeTag>;
using EventId = Id64<struct EventTag>;
using DeliveryId = Id64<struct DeliveryTag>;

std::string id_to_text(std::uint64_t value);
std::optional<std::uint64_t> id_from_text(std::string_view text) noexcept;

template <class Tag>
std::string to_string(Id64<Tag> id) {
  return id_to_text(id.value);
}

/// Makes unique, time-ordered 63-bit numbers: 41 bits of milliseconds since 2024-01-01, 10 bits of
/// node, 12 bits of sequence. Never goes backwards: a clock that steps back, or more than 4096 ids
/// in a millisecond, borrows from the future. After a restart call `advance_past` with the largest
/// stored id. Thread-safe, lock-free.
class IdSource {
 public:
  IdSource(Clock& clock, std::uint16_t node) noexcept;
  std::uint64_t next() noexcept;
  ExchangeId exchange() noexcept { return {next()}; }
  EventId event() noexcept { return {next()}; }
  DeliveryId delivery() noexcept { return {next()}; }
  void advance_past(std::uint64_t id) noexcept;
  static WallTime time_of(std::uint64_t id) noexcept;
  /// The number of the node that made it.
  static std::uint16_t node_of(std::uint64_t id) noexcept { return static_cast<std::uint16_t>(id >> 12 & 1023); }
  /// No id made before `at` is as large; every id made at or after it is at least this.
  static std::uint64_t first_at(WallTime at) noexcept;

 private:
  Clock& clock_;
  std::uint64_t node_;
  std::atomic<std::uint64_t> last_{0};  // milliseconds << 12 | sequence
};

}  // namespace sluice

template <class Tag>
struct std::hash<sluice::Id64<Tag>> {
  std::size_t operator()(sluice::Id64<Tag> id) const noexcept {
    return static_cast<std::size_t>(id.value * 0x9E3779B97F4A7C15ull);
  }
};
