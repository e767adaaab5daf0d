#include "resilience/rule_text.hpp"

#include <charconv>

namespace sluice::resilience {
namespace {

struct Unit {
  std::string_view name;
  std::int64_t ns;
};
// The longest name first where one ends in another.
constexpr std::array<Unit, 6> kUnits{{{"h", 3'600'000'000'000},
                                      {"m", 60'000'000'000},
                                      {"s", 1'000'000'000},
                                      {"ms", 1'000'000},
                                      {"us", 1'000},
                                      {"ns", 1}}};

}  // namespace

std::string duration_text(Duration duration) {
  if (duration == Duration::zero()) return "0s";
  for (const Unit& unit : kUnits)
    if (duration.count() % unit.ns == 0)
      return fmt::format("{}{}", duration.count() / unit.ns, unit.name);
  return fmt::format("{}ns", duration.count());
}

std::optional<Duration> parse_duration(std::string_view text) {
  std::int64_t amount = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), amount);
  if (error != std::errc() || amount < 0) return std::nullopt;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const Unit& known : kUnits) {
    if (known.name != unit) continue;
    if (amount > Duration::max().count() / known.ns) return std::nullopt;
    return Duration(amount * known.ns);
  }
  return std::nullopt;
}

bool good_pattern(std::string_view pattern) noexcept {
  if (pattern.empty() || pattern.size() > 128) return false;
  const auto star = pattern.find('*');
  return star == std::string_view::npos || star == pattern.size() - 1;
}

std::string bad_pattern(std::string_view pattern) {
  return fmt::format("pattern '{}': expected a command name of up to 128 characters, with at most one '*', at its end",
                     pattern);
}

std::string name_of(const Rule& rule) {
  return fmt::format("{} '{}'", rule.shadow ? "shadow" : "guard", rule.pattern);
}

}  // namespace sluice::resilience
