// One form for all texts of one JSON value, so that requests that say the same are the same.
#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "sluice/rpc/json_check.hpp"

namespace sluice::rpc {

/// Writes `text`, which check_json() has passed, to `out` in the form that every text of that value
/// has: no blanks, members by the bytes of their names, strings in UTF-8 with the escapes that must
/// be. Numbers stay as they are written: whether 1 and 1.0 are the same is the command's to say. A
/// name that stands twice in one object is the problem; `out` is of no use then. Does not recurse.
std::optional<JsonProblem> canonical_json(std::string_view text, std::string& out);

}  // namespace sluice::rpc
