#include "store/postgres/refused_login.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "sluice/base/text.hpp"

namespace sluice::store {
namespace {

constexpr std::size_t kCode = 5;
constexpr std::string_view kAfterSeverity = ":  ";  // in every language

struct Known {
  std::string_view words, code;
};
// Of servers that send no code, and of libpq itself.
constexpr Known kPasses[] = {{"starting up", "57P03"},       {"in recovery mode", "57P03"},
                             {"not yet accepting", "57P03"}, {"shutting down", "57P03"},
                             {"too many clients", "53300"},  {"too many connections", "53300"},
                             {"connection slots are reserved", "53300"}, {"session is read-only", "25006"},
                             {"is in hot standby", "25006"}};
// SLTLS is not a code of PostgreSQL's: the two did not come to an understanding about TLS.
constexpr Known kForGood[] = {{"authentication failed", "28000"},   {"no password supplied", "28000"},
                              {"no pg_hba.conf entry", "28000"},    {"not permitted to log in", "28000"},
                              {"permission denied for database", "42501"}, {"certificate", "SLTLS"},
                              {"SSL", "SLTLS"}};

bool passes(std::string_view code) noexcept { return code.starts_with("57") || code.starts_with("53") || code == "25006"; }
// Poolers give 08P01 for whatever it is: their words say more.
bool is_for_good(std::string_view code) noexcept { return code.starts_with("28") || code == "42501" || code == "3D000"; }

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

/// Where the code of a line begins; npos: it has none.
std::size_t code_at(std::string_view line) noexcept {
  const auto severity = line.find(kAfterSeverity);
  if (severity == std::string_view::npos) return severity;
  const std::size_t at = severity + kAfterSeverity.size();
  const std::string_view code = line.substr(at, kCode);
  const bool is_code = std::ranges::all_of(code, [](char c) { return is_digit(c) || (c >= 'A' && c <= 'Z'); });
  return is_code && line.substr(at + code.size()).starts_with(": ") ? at : std::string_view::npos;
}

/// "LOCATION:  ClientAuthentication, auth.c:335", its first word in the language of this process.
bool is_location(std::string_view line) noexcept {
  if (line.find(kAfterSeverity) == std::string_view::npos) return false;
  std::string_view last = line.substr(line.find_last_of(' ') + 1);
  const auto colon = last.rfind(':'), dot = last.rfind('.');
  if (colon == std::string_view::npos || dot == std::string_view::npos || dot > colon) return false;
  const std::string_view number = last.substr(colon + 1), extension = last.substr(dot + 1, colon - dot - 1);
  return !number.empty() && std::ranges::all_of(number, is_digit) && !extension.empty() && extension.size() <= 3 &&
         std::ranges::all_of(extension, [](char c) { return c >= 'a' && c <= 'z'; });
}

std::string in_utf8(std::string text) {
  for (std::size_t at = 0; (at += utf8_until(std::string_view(text).substr(at))) < text.size(); ++at) text[at] = '?';
  return text;
}

template <std::size_t kCount>
std::string_view known(const Known (&all)[kCount], std::string_view text) noexcept {
  const auto found = std::ranges::find_if(all, [&](const Known& one) { return text.find(one.words) != std::string_view::npos; });
  return found == std::end(all) ? std::string_view() : found->code;
}

std::string_view known_missing(std::string_view text) noexcept {
  if (text.find("does not exist") == std::string_view::npos) return {};
  if (text.find("database \"") != std::string_view::npos) return "3D000";
  return text.find("role \"") != std::string_view::npos ? "28000" : "";
}

}  // namespace

std::string words_of(std::string_view verbose) {
  std::string words;
  for (const auto line : lines_of(verbose)) {
    const auto code = code_at(line);
    if (line.empty() || (code == std::string_view::npos && is_location(line))) continue;
    if (!words.empty()) words += '\n';
    words += line.substr(0, code);
    if (code != std::string_view::npos) words += line.substr(code + kCode + 2);
  }
  return in_utf8(std::move(words));
}

std::string sqlstate_of(std::string_view verbose) {
  std::vector<std::string_view> codes;
  for (const auto line : lines_of(verbose))
    if (const auto at = code_at(line); at != std::string_view::npos) codes.push_back(line.substr(at, kCode));
  const std::string words = words_of(verbose);
  const auto first = [&](bool (*fits)(std::string_view) noexcept) {
    const auto found = std::ranges::find_if(codes, fits);
    return found == codes.end() ? std::string_view() : *found;
  };
  for (const std::string_view code : {first(passes), known(kPasses, words), first(is_for_good), known(kForGood, words), known_missing(words)})
    if (!code.empty()) return std::string(code);
  return "08006";
}

}  // namespace sluice::store
