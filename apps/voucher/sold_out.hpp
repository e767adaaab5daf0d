// Vouchers that were seen sold out.
#pragma once
#include <map>
#include <mutex>
#include <string>

#include "sluice/base/time.hpp"

namespace sluice::voucher {

/// Remembers vouchers seen sold out, so that further requests do not touch the hot row, until they are
/// restocked here, or for kSoldOutFor: another node of the same store may have done it. Bounded by the
/// catalogue. Thread-safe.
class SoldOut {
 public:
  bool has(const std::string& ns, const std::string& voucher, Instant now) const;
  /// Which restocks an item that begins now has seen.
  std::uint64_t mark() const;
  /// Seen by an item that began at `mark`: nothing if it was restocked here since, or is remembered still.
  void add(const std::string& ns, const std::string& voucher, Instant now, std::uint64_t mark);
  void remove(const std::string& ns, const std::string& voucher);

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Instant> until_;
  std::map<std::string, std::uint64_t> restocked_;
  std::uint64_t restocks_ = 0;
};
inline constexpr Duration kSoldOutFor = seconds(10);

}  // namespace sluice::voucher
