// Fields of the server's answers as people read them.
#pragma once
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

namespace sluice::cli {

using Json = nlohmann::ordered_json;

/// Empty when there is no text under this name.
std::string text(const Json& json, const char* name);
/// Milliseconds since 1970 as a UTC date and time.
std::string when(const Json& json, const char* name);

}  // namespace sluice::cli
