// Which refusals of strangers leave a row in the audit trail: who has no good token must not be able to
// fill a disk.
#pragma once
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "sluice/base/time.hpp"

namespace sluice::rpc {

/// Thread-safe.
class Refusals {
 public:
  static constexpr Duration kEvery = seconds(1);
  static constexpr std::size_t kMaxCauses = 1000;  // past it further ones are one

  /// Whether this one leaves a row, and then how many of its cause have left none since the last.
  std::optional<std::uint64_t> row(const std::string& cause, Instant now) {
    const std::lock_guard lock(mutex_);
    const bool known = causes_.size() < kMaxCauses || causes_.contains(cause);
    Cause& one = causes_[known ? cause : std::string()];
    if (one.seen && now < one.last + kEvery) {
      ++one.without;
      return std::nullopt;
    }
    one.seen = true;
    one.last = now;
    return std::exchange(one.without, 0);
  }

 private:
  struct Cause {
    bool seen = false;
    Instant last{};
    std::uint64_t without = 0;
  };
  std::mutex mutex_;
  std::map<std::string, Cause> causes_;
};

}  // namespace sluice::rpc
