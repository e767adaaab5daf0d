// From a request to what it asks for. Pure functions over text: no sockets here.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "sluice/transport/http.hpp"
#include "transport/envelope.hpp"
#include "transport/http/request.hpp"

namespace sluice::transport {

struct Route {
  enum class Kind : std::uint8_t {
    none,
    command,
    commands,
    openapi,
    transaction,
    transactions,
    healthz,
    readyz,
    metrics,
    home,
  };
  Kind kind = Kind::none;
  std::string_view name;   ///< the command's name, or the transaction's id
  std::string_view path;   ///< before the '?'
  std::string_view query;  ///< behind it
  bool method_matches = false;
};
Route route_of(Method method, std::string_view target) noexcept;

/// The value of `name` in a query string; empty when absent. No percent-decoding: none of the
/// values in use has anything to decode.
std::string_view query_value(std::string_view query, std::string_view name) noexcept;

/// Null principal: anonymous. Fails unauthenticated for a malformed header or an unknown token.
Result<std::shared_ptr<const rpc::Principal>> authenticate(const HttpRequest& request,
                                                           const HttpHooks& hooks);

/// Everything but principal, correlation and client. Moves the request's body.
Status decode_command(HttpRequest& request, std::string_view name, const HttpOptions& options,
                      const rpc::Registry& registry, Instant now, rpc::Command& out);
/// When who asks has gone, bounded by `options`.
Result<Instant> deadline_of(const HttpRequest& request, const HttpOptions& options, Instant now);
Result<TransactionQuery> decode_query(const Route& route);

}  // namespace sluice::transport
