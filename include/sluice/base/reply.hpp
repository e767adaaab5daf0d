// The canonical reply of a command: what is stored, replayed byte for byte, and transcoded by each
// door in a deterministic way. docs/formats.md describes the encoding.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/base/failure.hpp"

namespace sluice {

struct Reply {
  FailureKind kind = FailureKind::none;  ///< none: success; else a stored decline or refusal
  std::string code;                      ///< stable word; empty on success
  std::string detail;                    ///< for people
  std::vector<std::pair<std::string, std::string>> headers;  ///< worth replaying, lower-case names
  bool declined = false;  ///< of an aborted transaction, also when `kind` is none (a decline in its own words)
  Bytes body;  ///< JSON text, or a protobuf message; may be empty

  static Reply ok(Bytes body) { return {.body = std::move(body)}; }
  static Reply from(const Failure& failure);
  Failure to_failure() const;
  Bytes encode() const;
  /// Fails `corrupt` on anything encode() did not write.
  static Result<Reply> decode(ByteView bytes);
  bool operator==(const Reply&) const = default;
};

}  // namespace sluice
