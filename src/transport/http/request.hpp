// One HTTP request as the routes see it: only what Sluice uses, in buffers that are kept between
// requests of a connection.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "sluice/base/failure.hpp"

namespace sluice::transport {

/// The code of a failure that is about the body alone: the header was read whole.
inline constexpr std::string_view kBodyTooLarge = "body_too_large";

enum class Method : std::uint8_t { get, head, post, other };

struct HttpRequest {
  Method method = Method::other;
  std::string target;
  std::string authorization, app, shadow, key, deadline, trace, correlation, version, content_type, content_encoding;
  bool has_key = false;
  bool bad_host = false;  ///< HTTP/1.1 without a Host, or two of them
  bool repeated = false;  ///< a header that may stand once stands twice
  bool keep_alive = true;
  bool expects_continue = false;
  std::string body;

  void clear() {
    method = Method::other;
    for (std::string* text : {&target, &authorization, &app, &shadow, &key, &deadline, &trace,
                              &correlation, &version, &content_type, &content_encoding, &body})
      text->clear();
    has_key = bad_host = repeated = expects_continue = false;
    keep_alive = true;
  }
};

/// Reads one request after the other from the bytes of a connection.
class RequestParser {
 public:
  struct Limits {
    std::size_t header_bytes;
    std::size_t body_bytes;
  };
  explicit RequestParser(Limits limits);
  ~RequestParser();
  /// Starts the next request; `out` must live until it is done.
  void reset(HttpRequest& out);

  struct Step {
    std::size_t consumed = 0;
    bool done = false;
    std::optional<Failure> failure;  ///< the connection cannot go on after it
  };
  /// Bytes that are not consumed must be given again, with more behind them.
  Step feed(std::string_view bytes);
  bool header_done() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::transport
