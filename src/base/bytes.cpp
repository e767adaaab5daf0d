#include "sluice/base/bytes.hpp"

#include <openssl/evp.h>

#include <array>
#include <memory>

#include "sluice/base/failure.hpp"
#include "sluice/base/random.hpp"

namespace sluice {
namespace {

constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82F63B78u : 0);
    table[i] = crc;
  }
  return table;
}
constexpr auto kCrcTable = make_crc_table();

std::uint32_t crc_portable(std::uint32_t crc, ByteView data) noexcept {
  for (const char c : data)
    crc = (crc >> 8) ^ kCrcTable[(crc ^ static_cast<std::uint8_t>(c)) & 0xFF];
  return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t crc_sse42(std::uint32_t crc,
                                                          ByteView data) noexcept {
  std::uint64_t wide = crc;
  while (data.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, data.data(), 8);
    wide = __builtin_ia32_crc32di(wide, word);
    data.remove_prefix(8);
  }
  auto narrow = static_cast<std::uint32_t>(wide);
  for (const char c : data) narrow = __builtin_ia32_crc32qi(narrow, static_cast<std::uint8_t>(c));
  return narrow;
}
#endif

}  // namespace

std::uint32_t crc32c(ByteView data) noexcept {
#if defined(__x86_64__)
  static const bool kFast = __builtin_cpu_supports("sse4.2") != 0;
  if (kFast) return ~crc_sse42(~0u, data);
#endif
  return ~crc_portable(~0u, data);
}

std::uint64_t hash64(ByteView data, std::uint64_t seed) noexcept {
  // Multiply-fold over 8-byte words; the multiplier is 2^64 / golden ratio (Knuth, TAOCP 6.4).
  constexpr std::uint64_t kMultiplier = 0x9E3779B97F4A7C15ull;
  const auto fold = [](std::uint64_t a, std::uint64_t b) {
    const auto wide = static_cast<Uint128>(a) * b;
    return static_cast<std::uint64_t>(wide) ^ static_cast<std::uint64_t>(wide >> 64);
  };
  std::uint64_t h = seed ^ (data.size() * kMultiplier);
  while (data.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, data.data(), 8);
    h = fold(h ^ word, kMultiplier);
    data.remove_prefix(8);
  }
  std::uint64_t tail = 0;
  if (!data.empty()) std::memcpy(&tail, data.data(), data.size());
  h = fold(h ^ tail, kMultiplier ^ 0xD6E8FEB86659FD93ull);
  return h ^ (h >> 32);
}

std::string to_hex(ByteView data) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(data.size() * 2);
  for (const char c : data) {
    out.push_back(kDigits[static_cast<std::uint8_t>(c) >> 4]);
    out.push_back(kDigits[static_cast<std::uint8_t>(c) & 15]);
  }
  return out;
}

std::optional<Bytes> from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  Bytes out;
  out.reserve(hex.size() / 2);
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = digit(hex[i]);
    const int low = digit(hex[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    out.push_back(static_cast<char>((high << 4) | low));
  }
  return out;
}

namespace {
// Looked up once: by its name, at each call, that costs more than a short digest itself.
EVP_MD* sha256_algorithm() noexcept {
  static EVP_MD* const algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  return algorithm;
}
struct FreeContext {
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
};
}  // namespace

Digest sha256(ByteView data) noexcept {
  thread_local const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  Digest digest;
  const bool made = context && EVP_DigestInit_ex(context.get(), sha256_algorithm(), nullptr) == 1 &&
                    EVP_DigestUpdate(context.get(), data.data(), data.size()) == 1 &&
                    EVP_DigestFinal_ex(context.get(), digest.bytes, nullptr) == 1;
  SLUICE_ASSERT(made, "OpenSSL has no SHA-256 here");  // keys and tokens cannot be told apart without
  return digest;
}

}  // namespace sluice
