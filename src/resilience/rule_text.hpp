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

/// "guard 'code.*'" or "shadow 'code.*'".
std::string name_of(const Rule& rule);

}  // namespace sluice::resilience
