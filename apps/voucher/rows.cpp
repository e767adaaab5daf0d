#include "apps/voucher/rows.hpp"

#include <charconv>

namespace sluice::voucher {

std::string ordinal_key(std::string_view voucher, std::int64_t ordinal) {
  constexpr std::size_t kDigits = 10;
  const std::string digits = std::to_string(ordinal);
  std::string key(voucher);
  key.push_back('/');
  if (digits.size() < kDigits) key.append(kDigits - digits.size(), '0');
  key.append(digits);
  return key;
}

std::int64_t ordinal_of(std::string_view key) noexcept {
  const std::size_t slash = key.rfind('/');
  if (slash == std::string_view::npos) return -1;
  std::int64_t ordinal = -1;
  const char* end = key.data() + key.size();
  const auto [at, error] = std::from_chars(key.data() + slash + 1, end, ordinal);
  return error == std::errc() && at == end ? ordinal : -1;
}

}  // namespace sluice::voucher
