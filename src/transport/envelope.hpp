// What stands around a command on every wire that has headers, decoded once for all of them: HTTP
// headers and gRPC metadata carry the same names. Pure functions over text.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "sluice/rpc/registry.hpp"

namespace sluice::transport {

using Authenticate =
    std::function<Result<std::shared_ptr<const rpc::Principal>>(std::string_view token)>;

/// Views into the request; empty: not sent.
struct Envelope {
  std::string_view app, shadow, key, trace;
  bool has_key = false;   ///< also when the key is empty
  bool repeated = false;  ///< a header that may stand once stands twice
};

/// Whether X-Sluice-Shadow says so.
bool says_shadow(std::string_view value) noexcept;
/// Finds the spec and fills name, version, namespace, key and trace of `out`. Fails with what the
/// caller did wrong.
Status decode_envelope(const Envelope& envelope, std::string_view name, std::uint32_t version,
                       const rpc::Registry& registry, rpc::Command& out);
/// `depth_key`: the configuration key of the depth, which is told. An empty payload becomes {}; fills the canonical form. Fails bad_json, json_too_deep or
/// repeated_member, saying where.
Status check_payload(rpc::Command& command, std::size_t max_json_depth, std::string_view depth_key);
/// Null principal: anonymous. Fails unauthenticated for a malformed header or an unknown token.
Result<std::shared_ptr<const rpc::Principal>> authenticate_bearer(std::string_view authorization,
                                                                  const Authenticate& authenticate);
Failure needs_token();
/// Of "Bearer <token>"; empty when it is not that.
std::string_view token_of(std::string_view authorization) noexcept;

/// Whose a token is that is no longer good; empty: nobody's.
using NameOf = std::function<std::string(std::string_view token)>;
/// Who asked for what, as far as it could be read.
struct Asked {
  std::string_view authorization, command, correlation, client;
  const rpc::Principal* principal = nullptr;  ///< null: no good token
  Instant now{};
  bool shadow = false;  ///< as it says itself
};
/// What a request that a door refuses is told, once its audit row is on its way: a stranger is told
/// that it needs a token, not which commands there are, nor how to ask.
Failure refuse(rpc::Registry& registry, const NameOf& name_of, const Asked& asked, Failure failure);

/// The caller's correlation id if it is fit to be repeated in headers and logs: 1–128 visible
/// ASCII characters other than quotes and backslashes.
bool usable_correlation(std::string_view text) noexcept;
/// At most 64 characters of `text` in quotes, without control characters.
std::string quoted(std::string_view text);

}  // namespace sluice::transport
