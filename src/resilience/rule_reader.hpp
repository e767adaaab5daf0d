// Reads one policy's table: every field checked, unknown ones refused, each mistake kept with its
// place. Only rule_file.cpp includes this (it sees toml++).
#pragma once
#include "sluice/base/toml_assert.hpp"  // before toml++

#include <toml++/toml.h>

#include <concepts>
#include <map>
#include <set>

#include "resilience/rule_text.hpp"

namespace sluice::resilience {

/// The mistakes of a file, so that all are mended at once. Past kMax the rest is not told.
struct RuleErrors {
  static constexpr std::size_t kMax = 50;
  std::string file;
  std::string where{};  // the table being read, for people
  std::multimap<std::pair<std::uint32_t, std::uint32_t>, std::string> all{};  // by line and column

  void add(const toml::source_region& at, const std::string& what) {
    if (all.size() < kMax)
      all.emplace(std::pair{at.begin.line, at.begin.column},
                  fmt::format("{}:{}:{}: {}{}", file, at.begin.line, at.begin.column,
                              where.empty() ? "" : where + ": ", what));
  }
  Failure failure() const {
    std::string text;
    for (const auto& [place, line] : all) text += (text.empty() ? "" : "\n") + line;
    return Failure(FailureKind::invalid_argument, "bad_rule", std::move(text));
  }
};

inline std::string text_of(const toml::node& node) {
  if (const auto* s = node.as_string()) return fmt::format("\"{}\"", s->get());
  if (const auto* i = node.as_integer()) return fmt::format("{}", i->get());
  if (const auto* d = node.as_floating_point()) return fmt::format("{}", d->get());
  if (const auto* b = node.as_boolean()) return b->get() ? "true" : "false";
  return node.is_table() ? "a table" : node.is_array() ? "an array" : "a date";
}

class FieldReader {
 public:
  FieldReader(const toml::table& table, RuleErrors& errors) : table_(table), errors_(errors) {}

  template <class T>
  void number(std::string_view name, T& value, double min, double max) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    if (const auto number = read<T>(*node, min, max))
      value = static_cast<T>(*number);
    else
      wrong(*node, name, fmt::format("{} from {} to {}", kind<T>(), min, max));
  }
  void duration(std::string_view name, Duration& value, Duration min, Duration max) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    const auto text = node->value<std::string>();
    const auto read = text ? parse_duration(*text) : std::nullopt;
    if (read && *read >= min && *read <= max)
      value = *read;
    else
      wrong(*node, name,
            fmt::format("a duration from {} to {}, as in \"250ms\"", duration_text(min),
                        duration_text(max)));
  }
  void flag(std::string_view name, bool& value) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    if (const auto* read = node->as_boolean())
      value = read->get();
    else
      wrong(*node, name, "true or false");
  }
  template <class E>
  void choice(std::string_view name, E& value, std::span<const std::string_view> names) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    const auto text = node->value<std::string>();
    for (std::size_t i = 0; text && i < names.size(); ++i)
      if (names[i] == *text) return void(value = static_cast<E>(i));
    std::string all;
    for (const auto& known : names) all += fmt::format("{}\"{}\"", all.empty() ? "" : ", ", known);
    wrong(*node, name, "one of " + all);
  }
  void shares(std::string_view name, std::array<double, 4>& value) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    const auto* array = node->as_array();
    if (array == nullptr || array->size() > value.size())
      return wrong(*node, name, fmt::format("up to {} numbers from 0 to 1", value.size()));
    std::array<double, 4> read{};
    for (std::size_t i = 0; i < array->size(); ++i) {
      const auto share = this->read<double>(*array->get(i), 0, 1);
      if (!share) return wrong(*array->get(i), name, "numbers from 0 to 1");
      read[i] = *share;
    }
    value = read;
  }
  void limits(std::string_view name, std::vector<std::pair<std::string, std::uint64_t>>& value,
              std::size_t max) {
    const toml::node* node = find(name);
    if (node == nullptr) return;
    const auto* table = node->as_table();
    if (table == nullptr || table->size() > max)
      return wrong(*node, name, fmt::format("a table of up to {} limits", max));
    value.clear();
    for (const auto& [key, limit] : *table) {
      const auto number = read<std::uint64_t>(limit, 0, 1e9);
      if (!number) return wrong(limit, name, "whole numbers from 0 to 1e+09");
      value.emplace_back(std::string(key.str()), static_cast<std::uint64_t>(*number));
    }
  }
  /// Refuses what nobody asked for: a misspelt field must not pass for a default.
  void end() {
    for (const auto& [key, node] : table_)
      if (!known_.contains(key.str()))
        errors_.add(key.source(), fmt::format("unknown field '{}'; known: {}", key.str(), known()));
  }

 private:
  const toml::node* find(std::string_view name) {
    known_.insert(name);
    return table_.get(name);
  }
  template <class T>
  static std::optional<double> read(const toml::node& node, double min, double max) {
    std::optional<double> number;
    if (const auto* whole = node.as_integer())
      number = static_cast<double>(whole->get());
    else if (const auto* real = node.as_floating_point(); real && std::floating_point<T>)
      number = real->get();
    // Written so that NaN is refused.
    if (number && !(*number >= min && *number <= max)) number.reset();
    return number;
  }
  template <class T>
  static std::string_view kind() {
    return std::floating_point<T> ? "a number" : "a whole number";
  }
  void wrong(const toml::node& node, std::string_view name, const std::string& expected) {
    errors_.add(node.source(),
                fmt::format("{}: expected {}, got {}", name, expected, text_of(node)));
  }
  std::string known() const {
    std::string all;
    for (const auto& name : known_) all += fmt::format("{}{}", all.empty() ? "" : ", ", name);
    return all;
  }
  const toml::table& table_;
  RuleErrors& errors_;
  std::set<std::string_view> known_;
};

}  // namespace sluice::resilience
