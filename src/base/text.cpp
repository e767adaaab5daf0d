#include "sluice/base/text.hpp"

namespace sluice {
namespace {

constexpr bool continues(unsigned char byte) noexcept { return (byte & 0xC0) == 0x80; }

// The bytes of the character that begins there; 0: none does. RFC 3629: no longer than needed, no
// surrogates, none past U+10FFFF.
std::size_t character_at(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t size = lead >= 0xC2 && lead <= 0xDF ? 2 : (lead & 0xF0) == 0xE0 ? 3 : lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
  if (size == 0 || at + size > text.size()) return 0;
  for (std::size_t i = 1; i < size; ++i)
    if (!continues(byte(i))) return 0;
  const unsigned char next = byte(1);
  if ((lead == 0xE0 && next < 0xA0) || (lead == 0xED && next > 0x9F) || (lead == 0xF0 && next < 0x90) || (lead == 0xF4 && next > 0x8F))
    return 0;
  return size;
}

}  // namespace

std::string_view beginning_of(std::string_view text, std::size_t limit) noexcept {
  if (text.size() <= limit) return text;
  while (limit > 0 && continues(static_cast<unsigned char>(text[limit]))) --limit;
  return text.substr(0, limit);
}

std::size_t utf8_until(std::string_view text) noexcept {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t size = character_at(text, at);
    if (size == 0) break;
    at += size;
  }
  return at;
}

}  // namespace sluice
