// Bytes and the one binary encoding used by every durable record: little-endian fixed integers,
// LEB128 varints, length-prefixed byte strings. docs/formats.md describes it.
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "sluice/base/failure.hpp"

namespace sluice {

static_assert(std::endian::native == std::endian::little, "fixed integers are copied as they are");

using Bytes = std::string;
using ByteView = std::string_view;

/// Appends to a caller-owned buffer. Never fails.
class ByteWriter {
 public:
  explicit ByteWriter(Bytes& out) noexcept : out_(out) {}
  void u8(std::uint8_t v) { out_.push_back(static_cast<char>(v)); }
  void u32(std::uint32_t v) { fixed(&v, sizeof v); }
  void u64(std::uint64_t v) { fixed(&v, sizeof v); }
  void varint(std::uint64_t v) {
    while (v >= 0x80) {
      u8(static_cast<std::uint8_t>(v | 0x80));
      v >>= 7;
    }
    u8(static_cast<std::uint8_t>(v));
  }
  void signed_varint(std::int64_t v) {
    varint((static_cast<std::uint64_t>(v) << 1) ^ static_cast<std::uint64_t>(v >> 63));
  }
  void bytes(ByteView v) {
    varint(v.size());
    out_.append(v);
  }
  void raw(ByteView v) { out_.append(v); }

 private:
  void fixed(const void* p, std::size_t n) { out_.append(static_cast<const char*>(p), n); }
  Bytes& out_;
};

/// Reads what ByteWriter wrote; safe on any input. After the first short or malformed read ok()
/// is false and every later read yields zero or empty. Views point into the input.
class ByteReader {
 public:
  explicit ByteReader(ByteView in) noexcept : in_(in) {}
  std::uint8_t u8() noexcept {
    if (at_ >= in_.size()) return bad();
    return static_cast<std::uint8_t>(in_[at_++]);
  }
  std::uint32_t u32() noexcept { return fixed<std::uint32_t>(); }
  std::uint64_t u64() noexcept { return fixed<std::uint64_t>(); }
  std::uint64_t varint() noexcept {
    std::uint64_t v = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const std::uint8_t byte = u8();
      if (!ok_) return 0;
      v |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if ((byte & 0x80) != 0) continue;
      // Only the shortest form is ours: a longer one, or bits past the 64th, is damage.
      if ((byte == 0 && shift > 0) || (shift == 63 && byte > 1)) return bad();
      return v;
    }
    return bad();
  }
  std::int64_t signed_varint() noexcept {
    const std::uint64_t v = varint();
    return static_cast<std::int64_t>(v >> 1) ^ -static_cast<std::int64_t>(v & 1);
  }
  ByteView bytes() noexcept {
    const std::uint64_t n = varint();
    return raw(n);
  }
  ByteView raw(std::uint64_t n) noexcept {
    if (!ok_ || n > in_.size() - at_) {
      bad();
      return {};
    }
    const ByteView v = in_.substr(at_, static_cast<std::size_t>(n));
    at_ += static_cast<std::size_t>(n);
    return v;
  }
  bool ok() const noexcept { return ok_; }
  bool at_end() const noexcept { return ok_ && at_ == in_.size(); }
  std::size_t offset() const noexcept { return at_; }

 private:
  std::uint8_t bad() noexcept {
    ok_ = false;
    at_ = in_.size();
    return 0;
  }
  template <class T>
  T fixed() noexcept {
    T v = 0;
    const ByteView b = raw(sizeof v);
    if (ok_) std::memcpy(&v, b.data(), sizeof v);
    return v;
  }
  ByteView in_;
  std::size_t at_ = 0;
  bool ok_ = true;
};

/// CRC-32C (Castagnoli) of `data`, hardware-accelerated where the CPU has it. Source: RFC 3720 B.4.
std::uint32_t crc32c(ByteView data) noexcept;
/// 64-bit non-cryptographic hash, stable across runs and machines.
std::uint64_t hash64(ByteView data, std::uint64_t seed = 0) noexcept;
std::string to_hex(ByteView data);
std::optional<Bytes> from_hex(std::string_view hex);

/// SHA-256 (OpenSSL underneath).
struct Digest {
  std::uint8_t bytes[32];
  bool operator==(const Digest&) const noexcept = default;
  ByteView view() const noexcept { return {reinterpret_cast<const char*>(bytes), sizeof bytes}; }
};
Digest sha256(ByteView data) noexcept;

}  // namespace sluice
