#include "apps/voucher/segments.hpp"

#include <algorithm>

namespace sluice::voucher {
namespace {
constexpr std::uint8_t kFormat = 1;
}  // namespace

Bytes Segments::encode() const {
  Bytes out;
  ByteWriter w(out);
  w.u8(kFormat);
  w.signed_varint(next_);
  w.varint(leased_.size());
  for (const auto& s : leased_) {
    w.signed_varint(s.first);
    w.signed_varint(s.count);
    w.varint(s.token);
    w.bytes(s.owner);
    w.signed_varint(s.expires.time_since_epoch().count());
  }
  return out;
}

Result<Segments> Segments::decode(ByteView bytes) {
  Segments out;
  if (bytes.empty()) return out;
  ByteReader r(bytes);
  const bool known = r.u8() == kFormat;
  out.next_ = r.signed_varint();
  const std::uint64_t count = r.varint();
  for (std::uint64_t i = 0; i < count && r.ok(); ++i) {
    Segment s;
    s.first = r.signed_varint();
    s.count = r.signed_varint();
    s.token = r.varint();
    s.owner = r.bytes();
    s.expires = WallTime(milliseconds(r.signed_varint()));
    out.leased_.push_back(std::move(s));
  }
  if (!known || !r.at_end())
    return fail(FailureKind::corrupt, "segment_row", "a stored segment list does not read back as written");
  return out;
}

std::vector<Segment> Segments::resume(const std::string& owner, WallTime expires, std::int64_t codes_max) {
  std::vector<Segment*> own;
  for (auto& s : leased_)
    if (s.owner == owner) own.push_back(&s);
  std::ranges::sort(own, {}, [](const Segment* s) { return std::pair(s->expires, s->first); });
  std::vector<Segment> given;
  std::int64_t codes = 0;
  for (Segment* s : own) {
    if (codes >= codes_max) break;
    codes += s->count;
    s->expires = expires;
    given.push_back(*s);
  }
  return given;
}

std::optional<WallTime> Segments::first_end() const {
  if (leased_.empty()) return std::nullopt;
  return std::ranges::min(leased_, {}, &Segment::expires).expires;
}

std::optional<Segment> Segments::lease(const std::string& owner, std::int64_t codes, std::int64_t count, WallTime now,
                                       WallTime expires, std::int64_t codes_max) {
  for (auto& s : leased_) {
    if (s.expires > now || s.count > codes_max) continue;
    ++s.token;  // whoever had it before is fenced
    s.owner = owner;
    s.expires = expires;
    return s;
  }
  if (next_ >= codes || leased_.size() >= kMaxLeased) return std::nullopt;
  Segment fresh{next_, std::min(count, codes - next_), 1, owner, expires};
  next_ += fresh.count;
  leased_.push_back(fresh);
  return fresh;
}

bool Segments::finish(const std::string& owner, std::int64_t first, std::uint64_t token) {
  return std::erase_if(leased_, [&](const Segment& s) {
           return s.owner == owner && s.first == first && s.token == token;
         }) != 0;
}

}  // namespace sluice::voucher
