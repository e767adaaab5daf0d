// Which ranges of a voucher's codes are leased to whom. The value of its segment row; a plain value,
// changed by the code service inside one transaction.
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/base/time.hpp"

namespace sluice::voucher {

struct Segment {
  std::int64_t first = 0;  ///< ordinals first … first + count - 1
  std::int64_t count = 0;
  std::uint64_t token = 0;  ///< grows each time it changes hands
  std::string owner;
  WallTime expires{};
  bool operator==(const Segment&) const = default;
};

class Segments {
 public:
  static constexpr std::size_t kMaxLeased = 256;  ///< at once; past it only those that ran out are leased
  static constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
  /// `codes`: how many the voucher has. Segments are disjoint, and none reaches past it.
  static Result<Segments> decode(ByteView bytes);
  Bytes encode() const;

  /// Those of the owner, their leases renewed: those renewed longest ago first, until they hold `codes_max` codes
  /// or more. The others are left as they are.
  std::vector<Segment> resume(const std::string& owner, WallTime expires, std::int64_t codes_max = kAny);
  /// The oldest whose lease has run out and that holds no more than `codes_max` codes, else the next `count` codes;
  /// nothing when none are left, or kMaxLeased are out.
  std::optional<Segment> lease(const std::string& owner, std::int64_t codes, std::int64_t count, WallTime now,
                               WallTime expires, std::int64_t codes_max = kAny);
  /// When the first lease ends; nothing when none is out: then every code there was is assigned, or fresh.
  std::optional<WallTime> first_end() const;
  /// Its codes are all assigned: it is never leased again. False: not (any more) this owner's.
  bool finish(const std::string& owner, std::int64_t first, std::uint64_t token);
  std::size_t leased() const noexcept { return leased_.size(); }
  const std::vector<Segment>& all() const noexcept { return leased_; }

 private:
  std::int64_t next_ = 0;  // no code from here on was ever leased
  std::vector<Segment> leased_;
};

}  // namespace sluice::voucher
