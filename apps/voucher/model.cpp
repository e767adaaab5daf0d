#include "apps/voucher/model.hpp"

#include <algorithm>

namespace sluice::voucher {
namespace {

// The first byte of every encoded value. Stored; append only.
constexpr std::uint8_t kVoucherFormat = 1, kUserFormat = 1, kAssignmentFormat = 1;

std::unexpected<Failure> corrupt(std::string_view what) {
  return fail(FailureKind::corrupt, "corrupt_row",
              "a stored " + std::string(what) +
                  " does not read back as written; run an integrity check of the database");
}
bool alphanumeric(char c) noexcept {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

}  // namespace

Bytes encode(const Voucher& v) {
  Bytes out;
  ByteWriter w(out);
  w.u8(kVoucherFormat);
  w.bytes(v.id);
  w.bytes(v.name);
  w.bytes(v.region);
  w.signed_varint(v.from.time_since_epoch().count());
  w.signed_varint(v.to.time_since_epoch().count());
  w.signed_varint(v.value_minor);
  w.bytes(v.currency);
  w.signed_varint(v.stock);
  w.signed_varint(v.user_quota);
  w.signed_varint(v.day_quota);
  w.signed_varint(v.budget_minor);
  return out;
}

Result<Voucher> decode_voucher(ByteView bytes) {
  ByteReader r(bytes);
  if (r.u8() != kVoucherFormat) return corrupt("voucher");
  Voucher v;
  v.id = r.bytes();
  v.name = r.bytes();
  v.region = r.bytes();
  v.from = WallTime(milliseconds(r.signed_varint()));
  v.to = WallTime(milliseconds(r.signed_varint()));
  v.value_minor = r.signed_varint();
  v.currency = r.bytes();
  v.stock = r.signed_varint();
  v.user_quota = r.signed_varint();
  v.day_quota = r.signed_varint();
  v.budget_minor = r.signed_varint();
  if (!r.at_end()) return corrupt("voucher");
  return v;
}

Bytes encode(const User& user) {
  Bytes out;
  ByteWriter w(out);
  w.u8(kUserFormat);
  w.bytes(user.id);
  w.bytes(user.region);
  return out;
}

Result<User> decode_user(ByteView bytes) {
  ByteReader r(bytes);
  if (r.u8() != kUserFormat) return corrupt("user");
  User user;
  user.id = r.bytes();
  user.region = r.bytes();
  if (!r.at_end()) return corrupt("user");
  return user;
}

Bytes encode(const Assignment& a) {
  Bytes out;
  ByteWriter w(out);
  w.u8(kAssignmentFormat);
  w.bytes(a.user);
  w.bytes(a.code);
  w.u64(a.exchange);
  w.signed_varint(a.day);
  w.signed_varint(a.value_minor);
  return out;
}

Result<Assignment> decode_assignment(ByteView bytes) {
  ByteReader r(bytes);
  if (r.u8() != kAssignmentFormat) return corrupt("assignment");
  Assignment a;
  a.user = r.bytes();
  a.code = r.bytes();
  a.exchange = r.u64();
  a.day = r.signed_varint();
  a.value_minor = r.signed_varint();
  if (!r.at_end()) return corrupt("assignment");
  return a;
}

bool valid_id(std::string_view id) noexcept {
  return !id.empty() && id.size() <= 64 && std::ranges::all_of(id, [](char c) {
    return alphanumeric(c) || c == '-' || c == '_' || c == '.';
  });
}
bool valid_code(std::string_view text) noexcept {
  return text.size() >= 4 && text.size() <= 64 && std::ranges::all_of(text, [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  });
}
bool valid_region(std::string_view region) noexcept {
  if (region == "ALL") return true;
  return region.size() == 2 &&
         std::ranges::all_of(region, [](char c) { return c >= 'A' && c <= 'Z'; });
}

std::int64_t day_of(WallTime at) noexcept {
  return std::chrono::floor<std::chrono::days>(at).time_since_epoch().count();
}

}  // namespace sluice::voucher
