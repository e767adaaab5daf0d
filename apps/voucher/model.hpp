// What voucher distribution is about: vouchers, their codes, and users. Plain values; the encoding
// of the durable ones is in model.cpp and described in README.md.
#pragma once
#include <cstdint>
#include <string>

#include "sluice/base/bytes.hpp"
#include "sluice/base/time.hpp"

namespace sluice::voucher {

/// One voucher of the catalogue. Money is integer minor units of `currency` (cents, not floats).
struct Voucher {
  std::string id;                 ///< 1–64 of A–Z a–z 0–9 - _ .
  std::string name;               ///< for people
  std::string region;             ///< two capital letters, or "ALL"
  WallTime from{};                ///< inclusive
  WallTime to{};                  ///< exclusive
  std::int64_t value_minor = 0;   ///< what one voucher costs the budget; > 0
  std::string currency;           ///< ISO 4217, three capital letters
  std::int64_t stock = 0;         ///< how many may ever be issued
  std::int64_t user_quota = 0;    ///< how many one user may have; > 0
  std::int64_t day_quota = 0;     ///< how many may be issued on one UTC day; > 0
  std::int64_t budget_minor = 0;  ///< what may be spent in all
  bool operator==(const Voucher&) const = default;
};

/// A code as it stands in a file: it belongs to one voucher and goes to at most one user.
struct Code {
  std::string voucher;
  std::string text;  ///< 4–64 of A–Z 0–9 -
};

struct User {
  std::string id;
  std::string region;
  bool operator==(const User&) const = default;
};

/// Who got a code, in which transaction. Its row's existence is the assignment.
struct Assignment {
  std::string user;
  std::string code;
  std::uint64_t exchange = 0;
  std::int64_t day = 0;          ///< days since 1970-01-01, UTC
  std::int64_t value_minor = 0;  ///< what it took from the budget
  bool operator==(const Assignment&) const = default;
};

Bytes encode(const Voucher& voucher);
Bytes encode(const User& user);
Bytes encode(const Assignment& assignment);
/// Fail `corrupt` on anything encode() did not write.
Result<Voucher> decode_voucher(ByteView bytes);
Result<User> decode_user(ByteView bytes);
Result<Assignment> decode_assignment(ByteView bytes);

/// Names of vouchers and users: 1–64 of A–Z a–z 0–9 - _ . (they stand in row keys).
bool valid_id(std::string_view id) noexcept;
bool valid_code(std::string_view text) noexcept;
bool valid_region(std::string_view region) noexcept;

std::int64_t day_of(WallTime at) noexcept;

}  // namespace sluice::voucher
