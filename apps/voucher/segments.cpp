#include "apps/voucher/segments.hpp"

#include <algorithm>

namespace sluice::voucher {
namespace {
constexpr std::uint8_t kFormat = 1;

// "store/owner", or "owner" where no store was told: what an earlier version wrote, which reads the other too, as the
// name of an owner that it does not know. Neither part may hold the bar.
std::string stored(const Holder& holder) { return holder.store.empty() ? holder.owner : holder.store + "/" + holder.owner; }
Holder holder_of(ByteView text) {
  const auto bar = text.find('/');
  if (bar == text.npos) return {{}, std::string(text)};
  return {std::string(text.substr(0, bar)), std::string(text.substr(bar + 1))};
}

// Whether the holder's store is where the segment's assignments are.
bool of_the_store(const Segment& s, const Holder& holder) {
  return s.holder.store.empty() ? s.holder.owner == holder.owner : s.holder.store == holder.store;
}
bool owned(const Segment& s, const Holder& holder) { return s.holder.owner == holder.owner && of_the_store(s, holder); }
}  // namespace

bool fits(const Segment& segment, const Which& which) noexcept {
  return (which.store.empty() || segment.holder.store == which.store) && (which.owner.empty() || segment.holder.owner == which.owner);
}

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
    w.bytes(stored(s.holder));
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
    s.holder = holder_of(r.bytes());
    s.expires = WallTime(milliseconds(r.signed_varint()));
    out.leased_.push_back(std::move(s));
  }
  if (!known || !r.at_end())
    return fail(FailureKind::corrupt, "segment_row", "a stored segment list does not read back as written");
  return out;
}

std::vector<Segment> Segments::resume(const Holder& holder, WallTime expires, std::int64_t codes_max) {
  std::vector<Segment*> own;
  for (auto& s : leased_)
    if (owned(s, holder)) own.push_back(&s);
  std::ranges::sort(own, {}, [](const Segment* s) { return std::pair(s->expires, s->first); });
  std::vector<Segment> given;
  std::int64_t codes = 0;
  for (Segment* s : own) {
    if (codes >= codes_max) break;
    codes += s->count;
    s->holder = holder;
    s->expires = expires;
    given.push_back(*s);
  }
  return given;
}

std::optional<WallTime> Segments::first_end(const Holder& holder, WallTime now, WallTime unknown) const {
  std::optional<WallTime> first;
  for (const auto& s : leased_) {
    const WallTime end = s.expires > now || of_the_store(s, holder) ? s.expires : unknown;
    first = std::min(first.value_or(end), end);
  }
  return first;
}

std::optional<Segment> Segments::lease(const Holder& holder, std::int64_t codes, std::int64_t count, WallTime now,
                                       WallTime expires, std::int64_t codes_max, bool fresh_first) {
  if (fresh_first)
    if (auto next = fresh(holder, codes, count, expires)) return next;
  for (auto& s : leased_) {
    if (s.expires > now || s.count > codes_max || !of_the_store(s, holder)) continue;
    ++s.token;  // whoever had it before is fenced
    s.holder = holder;
    s.expires = expires;
    return s;
  }
  return fresh(holder, codes, count, expires);
}

std::optional<Segment> Segments::fresh(const Holder& holder, std::int64_t codes, std::int64_t count, WallTime expires) {
  if (next_ >= codes || leased_.size() >= kMaxLeased) return std::nullopt;
  Segment next{next_, std::min(count, codes - next_), 1, holder, expires};
  next_ += next.count;
  leased_.push_back(next);
  return next;
}

bool Segments::finish(const Holder& holder, std::int64_t first, std::uint64_t token) {
  return std::erase_if(leased_, [&](const Segment& s) { return owned(s, holder) && s.first == first && s.token == token; }) != 0;
}

std::vector<Segment> Segments::free(const Which& which, const std::string& to_store) {
  std::vector<Segment> taken;
  for (const auto& s : leased_)
    if (fits(s, which)) taken.push_back(s);
  const auto is_taken = [&](const Segment& s) { return std::ranges::find(taken, s) != taken.end(); };
  if (to_store.empty()) {
    std::erase_if(leased_, is_taken);
    return taken;
  }
  for (auto& s : leased_)
    if (is_taken(s)) {
      ++s.token;
      s.holder = {to_store, {}};  // no owner resumes it: who had it may use it until its lease ends
    }
  return taken;
}

}  // namespace sluice::voucher
