// Where the voucher app keeps what in the store: one function per collection. README.md has the
// table. Ordinals are written with ten digits so that rows list in their order.
#pragma once
#include <string>
#include <string_view>

#include "apps/voucher/model.hpp"
#include "sluice/store/rows.hpp"

namespace sluice::voucher {

inline constexpr std::string_view kVouchers = "voucher", kStock = "stock", kBudget = "budget",
                                  kUserQuota = "user_quota", kDayQuota = "day_quota",
                                  kUsers = "user", kCodes = "code", kCodeTexts = "code_text",
                                  kPool = "pool", kSegments = "segment", kAssigned = "assigned",
                                  kShared = "assigned_universal", kIdentity = "identity",
                                  kRestocked = "restocked";

inline store::KvKey row_key(std::string_view ns, std::string_view collection, std::string key) {
  return {std::string(ns), std::string(collection), std::move(key)};
}
/// "voucher/0000000042".
std::string ordinal_key(std::string_view voucher, std::int64_t ordinal);
/// The ordinal of such a key, or -1.
std::int64_t ordinal_of(std::string_view key) noexcept;

/// value: the Voucher as imported, with what was added since.
inline store::KvKey voucher_key(std::string_view ns, std::string_view id) {
  return row_key(ns, kVouchers, std::string(id));
}
/// value: a name that no other store has, made at the first start.
inline store::KvKey identity_key(std::string_view ns) { return row_key(ns, kIdentity, "store"); }
/// number: how many are left.
inline store::KvKey stock_key(std::string_view ns, std::string_view id) {
  return row_key(ns, kStock, std::string(id));
}
/// number: minor units left.
inline store::KvKey budget_key(std::string_view ns, std::string_view id) {
  return row_key(ns, kBudget, std::string(id));
}
/// number: how much of the voucher's stock and budget was added to what was imported.
inline store::KvKey restocked_stock_key(std::string_view ns, std::string_view id) {
  return row_key(ns, kRestocked, std::string(id) + "/stock");
}
inline store::KvKey restocked_budget_key(std::string_view ns, std::string_view id) {
  return row_key(ns, kRestocked, std::string(id) + "/budget");
}
/// number: how many this user has.
inline store::KvKey user_quota_key(std::string_view ns, std::string_view id,
                                   std::string_view user) {
  return row_key(ns, kUserQuota, std::string(id) + "/" + std::string(user));
}
/// number: how many were issued on this UTC day.
inline store::KvKey day_quota_key(std::string_view ns, std::string_view id, std::int64_t day) {
  return row_key(ns, kDayQuota, std::string(id) + "/" + std::to_string(day));
}
inline store::KvKey user_key(std::string_view ns, std::string_view user) {
  return row_key(ns, kUsers, std::string(user));
}
/// value: the code's text.
inline store::KvKey code_key(std::string_view ns, std::string_view id, std::int64_t ordinal) {
  return row_key(ns, kCodes, ordinal_key(id, ordinal));
}
/// value: the voucher; number: the ordinal. Makes texts unique.
inline store::KvKey code_text_key(std::string_view ns, std::string_view text) {
  return row_key(ns, kCodeTexts, std::string(text));
}
/// number: how many codes the voucher has; ordinals run from 0 to number - 1. value: empty, or the one
/// code that all buyers get (a universal code; number is 0 then).
inline store::KvKey pool_key(std::string_view ns, std::string_view id) {
  return row_key(ns, kPool, std::string(id));
}
/// number: ordinals below it have been leased to somebody; value: below which all are assigned.
inline store::KvKey segment_key(std::string_view ns, std::string_view id) {
  return row_key(ns, kSegments, std::string(id));
}
/// The code of the failure: codes are left, but each is leased to a service or held by another exchange.
inline constexpr std::string_view kCodesLeased = "codes_leased";
/// The ordinal of a universal code, which has no row of its own.
inline constexpr std::int64_t kUniversalOrdinal = -1;
/// value: the Assignment of a universal code; one row for each exchange that issued it.
inline store::KvKey shared_key(std::string_view ns, std::string_view id, std::uint64_t exchange) {
  return row_key(ns, kShared, std::string(id) + "/" + std::to_string(exchange));
}
/// value: the Assignment. Absent: the code is free.
inline store::KvKey assigned_key(std::string_view ns, std::string_view id, std::int64_t ordinal) {
  return row_key(ns, kAssigned, ordinal_key(id, ordinal));
}

}  // namespace sluice::voucher
