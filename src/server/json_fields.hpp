// Takes typed fields out of a command's payload, with messages that name the field.
#pragma once
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "sluice/base/failure.hpp"
#include "sluice/base/text.hpp"

namespace sluice::server {

using Json = nlohmann::json;

/// One JSON object whose fields are all asked for; what nobody asked for is refused by done().
class JsonFields {
 public:
  static Result<JsonFields> parse(std::string_view payload) {
    JsonFields out;
    out.object_ = Json::parse(payload, nullptr, false);
    if (!out.object_.is_object())
      return fail(FailureKind::invalid_argument, "bad_payload",
                  "expected a JSON object, got " + kind_of(out.object_));
    return out;
  }
  /// A text of up to `max` bytes, which may be empty; absent: nothing.
  std::optional<std::string> any_text(const char* name, std::size_t max) {
    const Json* value = take(name, false);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) return wrong(name, "text", *value), std::nullopt;
    auto out = value->get<std::string>();
    if (out.size() > max)
      note(std::string(name) + ": expected at most " + std::to_string(max) + " bytes, got " + std::to_string(out.size()));
    return out;
  }
  /// A text of 1 to `max` bytes; absent: empty, or a failure when `required`.
  std::string text(const char* name, std::size_t max = 256, bool required = true) {
    const Json* value = take(name, required);
    if (value == nullptr) return {};
    if (!value->is_string()) return wrong(name, "text", *value), std::string();
    auto out = value->get<std::string>();
    if (out.empty() || out.size() > max)
      note(std::string(name) + ": expected 1–" + std::to_string(max) + " bytes, got " +
           std::to_string(out.size()));
    return out;
  }
  std::optional<std::int64_t> number(const char* name, bool required = false) {
    const Json* value = take(name, required);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number_integer()) return wrong(name, "a whole number", *value), std::nullopt;
    if (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX)
      return note(std::string(name) + ": too large"), std::nullopt;
    return value->get<std::int64_t>();
  }
  bool flag(const char* name) {
    const Json* value = take(name, false);
    if (value == nullptr) return false;
    if (!value->is_boolean()) return wrong(name, "true or false", *value), false;
    return value->get<bool>();
  }
  std::vector<std::string> texts(const char* name) {
    std::vector<std::string> out;
    const Json* value = take(name, false);
    if (value == nullptr) return out;
    if (!value->is_array()) return wrong(name, "a list of texts", *value), out;
    for (const auto& item : *value) {
      if (!item.is_string()) return wrong(name, "a list of texts", item), out;
      out.push_back(item.get<std::string>());
    }
    return out;
  }
  /// Any JSON; null pointer when absent.
  const Json* any(const char* name, bool required = true) { return take(name, required); }
  /// The first thing that was wrong, or a field nobody knows.
  Status done() {
    if (problem_.empty())
      for (const auto& [name, value] : object_.items())
        if (!asked_.contains(name))
          note(std::string(beginning_of(name, 64)) + ": unknown field");
    if (problem_.empty()) return {};
    return fail(FailureKind::invalid_argument, "bad_payload", problem_);
  }

 private:
  const Json* take(const char* name, bool required) {
    asked_.insert(name);
    const auto found = object_.find(name);
    if (found != object_.end() && (required || !found->is_null())) return &*found;
    if (required) note(std::string(name) + ": is missing");
    return nullptr;
  }
  void wrong(const char* name, const char* expected, const Json& got) {
    note(std::string(name) + ": expected " + expected + ", got " + kind_of(got));
  }
  // A number as it is: 1.5 is one, and not a whole one.
  static std::string kind_of(const Json& got) {
    if (got.is_number() || got.is_boolean() || got.is_null()) return got.dump();
    return got.is_string() ? "text" : got.is_array() ? "a list" : "an object";
  }
  void note(std::string what) {
    if (problem_.empty()) problem_ = std::move(what);
  }
  Json object_;
  std::set<std::string, std::less<>> asked_;
  std::string problem_;
};

/// JSON text that is always valid UTF-8.
inline std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice::server
