#include "sluice/base/mask.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace sluice {
namespace {

bool digit(char c) noexcept { return c >= '0' && c <= '9'; }
bool upper(char c) noexcept { return c >= 'A' && c <= 'Z'; }
bool letter(char c) noexcept { return upper(c) || (c >= 'a' && c <= 'z'); }
char lower(char c) noexcept { return upper(c) ? static_cast<char>(c - 'A' + 'a') : c; }

// Sorted, for binary search.
constexpr std::array<std::string_view, 26> kSecretWords = {
    "apikey", "arqc",     "authorization", "bearer", "cookie",     "credential", "credentials",
    "cvc",    "cvc2",     "cvv",           "cvv2",   "passphrase", "passwd",     "password",
    "pin",    "pinblock", "privatekey",    "pwd",    "secret",     "secrets",    "signature",
    "token",  "tokens",   "track",         "track1", "track2"};
static_assert(std::ranges::is_sorted(kSecretWords));
// `key` is secret only after one of these.
constexpr std::array<std::string_view, 5> kKeyOwners = {"access", "api", "encryption", "private",
                                                        "signing"};

bool luhn(std::string_view digits) noexcept {
  unsigned sum = 0;
  bool twice = false;
  for (std::size_t i = digits.size(); i-- > 0; twice = !twice) {
    unsigned value = static_cast<unsigned>(digits[i] - '0') * (twice ? 2 : 1);
    if (value > 9) value -= 9;
    sum += value;
  }
  return sum % 10 == 0;
}

// A word of a field name, lower-cased into a small buffer; longer words match nothing.
struct Word {
  std::array<char, 16> text{};
  std::size_t size = 0;
  void add(char c) noexcept {
    if (size < text.size()) text[size] = lower(c);
    ++size;
  }
  std::string_view view() const noexcept {
    return size <= text.size() ? std::string_view(text.data(), size) : std::string_view();
  }
};

std::size_t end_of_string(std::string_view json, std::size_t open_quote) noexcept {
  for (std::size_t i = open_quote + 1; i < json.size(); ++i) {
    if (json[i] == '\\')
      ++i;
    else if (json[i] == '"')
      return i;
  }
  return json.size();
}

// Undoes \uXXXX of ASCII and drops other escapes: a name must not hide behind its spelling.
std::string plain_name(std::string_view raw) {
  std::string name;
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\' || i + 1 >= raw.size()) {
      name.push_back(raw[i]);
      continue;
    }
    ++i;
    if (raw[i] != 'u' || i + 4 >= raw.size()) continue;
    unsigned code = 0;
    for (std::size_t k = 1; k <= 4; ++k) {
      const char c = lower(raw[i + k]);
      code = code * 16 + static_cast<unsigned>(digit(c) ? c - '0' : (c - 'a' + 10) & 15);
    }
    if (code < 0x80) name.push_back(static_cast<char>(code));
    i += 4;
  }
  return name;
}

std::size_t skip_blank(std::string_view json, std::size_t at) noexcept {
  while (at < json.size() &&
         (json[at] == ' ' || json[at] == '\t' || json[at] == '\n' || json[at] == '\r'))
    ++at;
  return at;
}

// The end of the value that starts at `at`: balanced brackets, a string, or a bare word.
std::size_t end_of_value(std::string_view json, std::size_t at) noexcept {
  if (at >= json.size()) return at;
  if (json[at] == '"') return std::min(json.size(), end_of_string(json, at) + 1);
  std::size_t depth = 0;
  for (; at < json.size(); ++at) {
    const char c = json[at];
    if (c == '"') {
      at = end_of_string(json, at);
      if (at == json.size()) break;
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;
      if (--depth == 0) return at + 1;
    } else if (c == ',' && depth == 0) {
      return at;
    }
  }
  return at;
}

}  // namespace

std::string mask_pan(std::string_view pan) {
  if (pan.size() < 13) return std::string(kMasked);
  std::string masked(pan);
  std::fill(masked.begin() + 6, masked.end() - 4, '*');
  return masked;
}

Sensitivity sensitivity_of(std::string_view name) noexcept {
  Sensitivity worst = Sensitivity::open;
  Word previous, word;
  const auto judge = [&] {
    const std::string_view w = word.view();
    if (std::ranges::binary_search(kSecretWords, w)) worst = Sensitivity::secret;
    if (w == "key" && std::ranges::binary_search(kKeyOwners, previous.view()))
      worst = Sensitivity::secret;
    const bool number = w == "number" || w == "no";
    if (worst == Sensitivity::open && (w == "pan" || (number && previous.view() == "card")))
      worst = Sensitivity::pan;
    if (word.size > 0) previous = word;
    word = {};
  };
  for (std::size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool hump = upper(c) && i > 0 && !upper(name[i - 1]);
    if (hump || !(letter(c) || digit(c))) judge();
    if (letter(c) || digit(c)) word.add(c);
  }
  judge();
  return worst;
}

std::string mask_text(std::string_view text) {
  std::string out(text);
  for (std::size_t i = 0; i < out.size();) {
    if (!digit(out[i])) {
      ++i;
      continue;
    }
    std::string digits;
    std::array<std::size_t, 20> places{};
    std::size_t at = i;
    std::size_t end = i;
    for (; at < out.size(); ++at) {
      if (digit(out[at])) {
        if (digits.size() < places.size()) {
          places[digits.size()] = at;
          digits.push_back(out[at]);
        } else {
          digits.push_back('0');
        }
        end = at + 1;
      } else if ((out[at] != ' ' && out[at] != '-') || at + 1 >= out.size() ||
                 !digit(out[at + 1])) {
        break;
      }
    }
    if (digits.size() >= 13 && digits.size() <= 19 && luhn(digits))
      for (std::size_t k = 6; k + 4 < digits.size(); ++k) out[places[k]] = '*';
    i = end;
  }
  return out;
}

std::string mask_field(std::string_view name, std::string_view value) {
  switch (sensitivity_of(name)) {
    case Sensitivity::secret:
      return std::string(kMasked);
    case Sensitivity::pan:
      return mask_pan(value);
    case Sensitivity::open:
      break;
  }
  const bool json = !value.empty() && (value.front() == '{' || value.front() == '[');
  return json ? mask_json(value) : mask_text(value);
}

std::string mask_json(std::string_view json, std::span<const std::string> secret_names) {
  std::string out;
  out.reserve(json.size());
  Sensitivity next = Sensitivity::open;  // of the value that follows the last name
  for (std::size_t at = 0; at < json.size();) {
    const char c = json[at];
    const std::size_t close = c == '"' ? end_of_string(json, at) : at;
    if (c == '"' && next == Sensitivity::open) {
      const std::size_t after = skip_blank(json, std::min(json.size(), close + 1));
      const std::string_view inside = json.substr(at + 1, close - at - 1);
      if (after < json.size() && json[after] == ':') {
        const std::string name = plain_name(inside);
        next = std::ranges::find(secret_names, name) != secret_names.end() ? Sensitivity::secret : sensitivity_of(name);
        out.append(json.substr(at, after + 1 - at));
        at = skip_blank(json, after + 1);
        out.append(json.substr(after + 1, at - after - 1));
        continue;
      }
      out.append("\"").append(mask_text(inside));
      if (close < json.size()) out.push_back('"');
      at = std::min(json.size(), close + 1);
      continue;
    }
    if (next != Sensitivity::open) {
      const std::size_t end = end_of_value(json, at);
      const std::string_view value = json.substr(at, end - at);
      const bool text = value.size() >= 2 && value.front() == '"' && value.back() == '"';
      out.push_back('"');
      if (next == Sensitivity::pan && (text || (!value.empty() && digit(value.front()))))
        out.append(mask_pan(text ? value.substr(1, value.size() - 2) : value));
      else
        out.append(kMasked);
      out.push_back('"');
      next = Sensitivity::open;
      at = end;
      continue;
    }
    if (digit(c)) {
      std::size_t end = at;
      while (end < json.size() && digit(json[end])) ++end;
      const std::string_view number = json.substr(at, end - at);
      const std::string masked = mask_text(number);
      if (masked == number)
        out.append(number);
      else
        out.append("\"").append(masked).append("\"");
      at = end;
      continue;
    }
    out.push_back(c);
    ++at;
  }
  return out;
}

}  // namespace sluice
