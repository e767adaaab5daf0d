// Answers as bytes: a status line, headers and a body in one buffer, so that a response is one
// write. What is stored is transcoded without anything of the moment in the body.
#pragma once
#include <string>
#include <string_view>

#include "sluice/rpc/registry.hpp"

namespace sluice::transport {

/// What every response carries.
struct ResponseContext {
  std::string_view correlation;
  std::string_view date;  ///< IMF-fixdate
  bool keep_alive = true;
  bool head = false;  ///< the headers of the answer, without its body
};

/// A failure of this code becomes a 405, whose header Allow is the failure's detail of that name.
inline constexpr std::string_view kMethodNotAllowed = "method_not_allowed", kAllow = "allow";

void append_response(std::string& out, int status, std::string_view content_type,
                     std::string_view extra_headers, std::string_view body,
                     const ResponseContext& context);
/// application/problem+json (RFC 9457).
void append_problem(std::string& out, const Failure& failure, const ResponseContext& context);
/// The same for a connection that is closed at once: before any request of it, so without a correlation id.
void append_short_refusal(std::string& out, const Failure& failure);
void append_answer(std::string& out, const rpc::Answer& answer, const ResponseContext& context);

/// "text" with JSON escapes, in quotes. Bytes that are no UTF-8 become U+FFFD.
std::string json_string(std::string_view text);
std::string http_date(WallTime now);

}  // namespace sluice::transport
