// A namespace is app × (live | shadow). It leads every durable and in-memory key, so that
// stress-test traffic never meets live data, counters or breakers.
#pragma once
#include <string>
#include <string_view>

#include "sluice/base/failure.hpp"

namespace sluice {

/// Text form: "app" for live, "app~shadow" for shadow. Interned once per app; cheap to copy.
class Namespace {
 public:
  Namespace() : Namespace("default") {}
  explicit Namespace(std::string_view app, bool shadow = false)
      : text_(shadow ? std::string(app) + "~shadow" : std::string(app)), app_size_(app.size()) {}
  /// App: 1–64 of a–z 0–9 - _ . ; fails invalid_argument otherwise.
  static Result<Namespace> parse(std::string_view text);
  std::string_view app() const noexcept { return std::string_view(text_).substr(0, app_size_); }
  bool shadow() const noexcept { return text_.size() != app_size_; }
  const std::string& text() const noexcept { return text_; }
  bool operator==(const Namespace& other) const noexcept { return text_ == other.text_; }

 private:
  std::string text_;
  std::size_t app_size_;
};

}  // namespace sluice
