#include "sluice/base/namespace.hpp"

#include <algorithm>

#include "sluice/base/text.hpp"

namespace sluice {

Result<Namespace> Namespace::parse(std::string_view text) {
  constexpr std::string_view kShadow = "~shadow";
  const bool shadow = text.ends_with(kShadow);
  const std::string_view app = shadow ? text.substr(0, text.size() - kShadow.size()) : text;
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  };
  if (app.empty() || app.size() > 64 || !std::ranges::all_of(app, allowed))
    return fail(
        FailureKind::invalid_argument, "bad_namespace",
        "app name '" + std::string(beginning_of(app, 80)) + "': expected 1 to 64 of a-z 0-9 - _ .");
  return Namespace(app, shadow);
}

}  // namespace sluice
