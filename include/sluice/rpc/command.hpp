// A request as every door hands it to the registry: decoded once, then authenticated, authorised,
// fingerprinted, ordered and handled as the same object.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/base/ids.hpp"
#include "sluice/base/namespace.hpp"
#include "sluice/base/reply.hpp"
#include "sluice/base/time.hpp"

namespace sluice::rpc {

/// Who asks. Permissions are "app:command" patterns ("*:*" is the administrator's).
struct Principal {
  std::string id;  ///< empty: anonymous
  std::vector<std::string> permissions;
  bool may_shadow = false;
  bool may(std::string_view app, std::string_view command) const noexcept;
};

struct Command {
  std::string name;
  std::uint32_t version = 1;
  Namespace ns;
  std::shared_ptr<const Principal> principal;
  std::optional<std::string> idempotency_key;
  Instant deadline = kNever;
  std::string trace;        ///< W3C traceparent
  std::string correlation;  ///< in every answer and log line
  std::string client;       ///< where it came from, for logs
  Bytes payload;            ///< JSON text
  /// canonical_json() of the payload, which the fingerprint covers. A door fills it, for it refuses
  /// names that stand twice; empty: it is made when it is needed.
  Bytes canonical;
};

}  // namespace sluice::rpc
