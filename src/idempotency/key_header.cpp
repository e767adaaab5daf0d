#include "sluice/idempotency/key_header.hpp"

#include <algorithm>

namespace sluice::idempotency {
namespace {

std::unexpected<Failure> bad(std::string what) {
  return fail(FailureKind::invalid_argument, "bad_idempotency_key",
              "Idempotency-Key: " + what +
                  "; expected 1 to 255 printable ASCII characters, bare or in double quotes");
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool printable(char c) { return c >= 0x20 && c <= 0x7E; }

// RFC 8941, 4.2.5: only the quote and the backslash may be escaped.
Result<std::string> quoted(std::string_view text) {
  std::string key;
  for (std::size_t i = 1; i < text.size(); ++i) {
    char c = text[i];
    if (c == '"') {
      const auto rest = trimmed(text.substr(i + 1));
      if (!rest.empty() && rest.front() != ';') return bad("something follows the closing quote");
      return key;
    }
    if (c == '\\') {
      if (++i == text.size() || (text[i] != '"' && text[i] != '\\'))
        return bad("a backslash must escape a quote or a backslash");
      c = text[i];
    }
    if (!printable(c)) return bad("a character is not printable ASCII");
    if (key.size() == kMaxKeyBytes) return bad("it is longer than 255 characters");
    key.push_back(c);
  }
  return bad("the closing quote is missing");
}

// Wider than RFC 8941's token, since keys that begin with a digit (most UUIDs) are not tokens.
Result<std::string> bare(std::string_view text) {
  if (text.size() > kMaxKeyBytes) return bad("it is longer than 255 characters");
  for (const char c : text) {
    if (!printable(c)) return bad("a character is not printable ASCII");
    if (c == ' ' || c == '"' || c == '\\' || c == ',' || c == ';')
      return bad("a bare key has no spaces, quotes, backslashes, commas or semicolons");
  }
  return std::string(text);
}

}  // namespace

Result<std::string> parse_key_header(std::string_view value) {
  const std::string_view text = trimmed(value);
  auto key = text.starts_with('"') ? quoted(text) : bare(text);
  if (key && key->empty()) return bad("it is empty");
  return key;
}

}  // namespace sluice::idempotency
