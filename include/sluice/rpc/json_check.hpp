// Whether text is one JSON value (RFC 8259), in one pass, without building it. What the RFC leaves
// to the reader is refused here, at the door, and not by whoever builds the value later: half a
// surrogate pair (`"\ud800"`), and a number past the range of a double (`1e999`).
#pragma once
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::rpc {

struct JsonProblem {
  std::size_t offset = 0;  ///< bytes from the start
  std::size_t line = 1;
  std::size_t column = 1;  ///< bytes from the start of the line, from 1
  std::string what;        ///< "expected ':' after a name"
  bool too_deep = false;
  /// "line 2, column 7: expected ':' after a name"
  std::string to_string() const;
};

/// `what` is wrong at this offset of the text.
JsonProblem problem_at(std::string_view text, std::size_t offset, std::string what);

/// Nothing when `text` is valid UTF-8 JSON that nests at most `max_depth` deep. Never throws on any
/// input; does not recurse.
std::optional<JsonProblem> check_json(std::string_view text, std::size_t max_depth = 64);

}  // namespace sluice::rpc
