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

/// Who leases: a service, and the store its assignments are in. A service of an earlier version tells no store.
struct Holder {
  std::string store;
  std::string owner;
  bool operator==(const Holder&) const = default;
};

struct Segment {
  std::int64_t first = 0;  ///< ordinals first … first + count - 1
  std::int64_t count = 0;
  std::uint64_t token = 0;  ///< grows each time it changes hands
  Holder holder;  ///< whose it is until its codes are all assigned; no owner: nobody's of that store
  WallTime expires{};
  bool operator==(const Segment&) const = default;
};

/// Which segments are meant: an empty part is everybody's.
using Which = Holder;
bool fits(const Segment& segment, const Which& which) noexcept;

class Segments {
 public:
  static constexpr std::size_t kMaxLeased = 256;  ///< at once; past it only those that ran out are leased
  static constexpr std::int64_t kAny = std::numeric_limits<std::int64_t>::max();
  /// `codes`: how many the voucher has. Segments are disjoint, and none reaches past it.
  static Result<Segments> decode(ByteView bytes);
  Bytes encode() const;

  /// Those of the holder, their leases renewed: those renewed longest ago first, until they hold `codes_max` codes
  /// or more. The others are left as they are.
  std::vector<Segment> resume(const Holder& holder, WallTime expires, std::int64_t codes_max = kAny);
  /// The oldest of the holder's store whose lease has run out and that holds no more than `codes_max` codes, else the
  /// next `count` codes; nothing when none are left, or kMaxLeased are out. One of another store is never leased: which
  /// of its codes are assigned, that store alone knows. With `fresh_first` the next codes come before those.
  std::optional<Segment> lease(const Holder& holder, std::int64_t codes, std::int64_t count, WallTime now,
                               WallTime expires, std::int64_t codes_max = kAny, bool fresh_first = false);
  /// When the first lease ends; nothing when none is out: then every code there was is assigned, or fresh. One of another
  /// store that ran out comes back when somebody frees it: `unknown`.
  std::optional<WallTime> first_end(const Holder& holder, WallTime now, WallTime unknown) const;
  /// Its codes are all assigned: it is never leased again. False: not (any more) this holder's.
  bool finish(const Holder& holder, std::int64_t first, std::uint64_t token);
  /// Takes segments from who holds them, for good. Given a store, they are that store's: leased to it when their
  /// leases end. Without one their codes go to nobody. What was taken.
  std::vector<Segment> free(const Which& which, const std::string& to_store);
  std::size_t leased() const noexcept { return leased_.size(); }
  const std::vector<Segment>& all() const noexcept { return leased_; }

 private:
  std::optional<Segment> fresh(const Holder& holder, std::int64_t codes, std::int64_t count, WallTime expires);
  std::int64_t next_ = 0;  // no code from here on was ever leased
  std::vector<Segment> leased_;
};

}  // namespace sluice::voucher
