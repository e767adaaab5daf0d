// The options of policies as text, for differences and messages.
#pragma once
#include <fmt/core.h>

#include <span>

#include "resilience/rule_fields.hpp"

namespace sluice::resilience {

using FieldTexts = std::vector<std::pair<std::string_view, std::string>>;

/// "250ms", "1h30m" is "90m": the largest unit that divides it.
std::string duration_text(Duration duration);
/// A whole number and one of ns, us, ms, s, m, h.
std::optional<Duration> parse_duration(std::string_view text);

class FieldWriter {
 public:
  template <class T>
  void number(std::string_view name, const T& value, double, double) {
    texts.emplace_back(name, fmt::format("{}", value));
  }
  void duration(std::string_view name, const Duration& value, Duration, Duration) {
    texts.emplace_back(name, duration_text(value));
  }
  void flag(std::string_view name, const bool& value) {
    texts.emplace_back(name, value ? "true" : "false");
  }
  template <class E>
  void choice(std::string_view name, const E& value, std::span<const std::string_view> names) {
    texts.emplace_back(name, std::string(names[static_cast<std::size_t>(value)]));
  }
  void shares(std::string_view name, const std::array<double, 4>& value) {
    texts.emplace_back(name,
                       fmt::format("[{}, {}, {}, {}]", value[0], value[1], value[2], value[3]));
  }
  void limits(std::string_view name,
              const std::vector<std::pair<std::string, std::uint64_t>>& value, std::size_t) {
    std::string text;
    for (const auto& [key, limit] : value)
      text += fmt::format("{}{} = {}", text.empty() ? "" : ", ", key, limit);
    texts.emplace_back(name, "{" + text + "}");
  }
  FieldTexts texts;
};

/// The mode and all fields; empty for a policy that is absent.
template <class Options>
FieldTexts texts_of(const std::optional<Ruled<Options>>& ruled) {
  if (!ruled) return {};
  FieldWriter writer;
  writer.texts.emplace_back("mode", std::string(to_string(ruled->mode)));
  Options copy = ruled->options;
  fields(writer, copy);
  return std::move(writer.texts);
}

/// Looks at every field of options made in code as FieldReader does at a file's: `problem` names the
/// first that is out of its range.
class FieldChecker {
 public:
  template <class T>
  void number(std::string_view name, const T& value, double min, double max) {
    const auto got = static_cast<double>(value);
    if (!(got >= min && got <= max))  // NaN is refused
      note(name, fmt::format("a number from {} to {}", min, max), fmt::format("{}", value));
  }
  void duration(std::string_view name, const Duration& value, Duration min, Duration max) {
    if (value < min || value > max)
      note(name, fmt::format("a duration from {} to {}", duration_text(min), duration_text(max)),
           duration_text(value));
  }
  void flag(std::string_view, const bool&) {}
  template <class E>
  void choice(std::string_view name, const E& value, std::span<const std::string_view> names) {
    if (static_cast<std::size_t>(value) >= names.size())
      note(name, "one of its names", fmt::format("{}", static_cast<unsigned>(value)));
  }
  void shares(std::string_view name, const std::array<double, 4>& value) {
    for (const double share : value)
      if (!(share >= 0 && share <= 1)) note(name, "numbers from 0 to 1", fmt::format("{}", share));
  }
  void limits(std::string_view name, const std::vector<std::pair<std::string, std::uint64_t>>& value,
              std::size_t max) {
    if (value.size() > max) note(name, fmt::format("up to {} limits", max), fmt::format("{}", value.size()));
    for (const auto& [key, limit] : value)
      if (limit > kLimitMax) note(name, fmt::format("limits up to {}", kLimitMax), fmt::format("{}", limit));
  }
  std::string problem;

 private:
  static constexpr std::uint64_t kLimitMax = 1'000'000'000;
  void note(std::string_view name, const std::string& expected, const std::string& got) {
    if (problem.empty()) problem = fmt::format("{}: expected {}, got {}", name, expected, got);
  }
};

/// A name, a prefix with a final '*', or "*"; up to 128 characters.
bool good_pattern(std::string_view pattern) noexcept;
std::string bad_pattern(std::string_view pattern);

/// "guard 'code.*'" or "shadow 'code.*'".
std::string name_of(const Rule& rule);

}  // namespace sluice::resilience
