// The only file that sees Beast: its parser without its containers, so that a request costs no
// allocation once the connection's buffers have grown.
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/field.hpp>
#include <boost/beast/http/verb.hpp>

#include "transport/http/request.hpp"

namespace sluice::transport {

namespace http = boost::beast::http;
using boost::beast::iequals;
using BeastView = boost::beast::string_view;

namespace {

std::string_view view(BeastView text) noexcept { return {text.data(), text.size()}; }

constexpr std::size_t kChunkedEnd = 5;

// A whole URI is taken as well; which host it names is not looked at, as Host is not. Source: RFC 9112, 3.2.2.
std::string_view path_of(std::string_view target) noexcept {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.size() < scheme.size() || !iequals(BeastView(target.data(), scheme.size()), BeastView(scheme.data(), scheme.size()))) continue;
    const auto slash = target.find('/', scheme.size());
    return slash == target.npos ? "/" : target.substr(slash);
  }
  return target;
}

class Parser final : public http::basic_parser<true> {
 public:
  Parser(HttpRequest& out, RequestParser::Limits limits) : out_(out) {
    eager(true);
    header_limit(static_cast<std::uint32_t>(limits.header_bytes));
    body_limit(limits.body_bytes);
  }

 private:
  void once(std::string& into, BeastView value) {
    if (!into.empty()) out_.repeated = true;
    into.assign(value.data(), value.size());
  }

  void on_request_impl(http::verb method, BeastView, BeastView target, int version,
                       boost::system::error_code&) override {
    version_ = version;
    out_.method = method == http::verb::post   ? Method::post
                  : method == http::verb::get  ? Method::get
                  : method == http::verb::head ? Method::head
                                               : Method::other;
    out_.target = path_of(view(target));
  }
  void on_response_impl(int, BeastView, int, boost::system::error_code&) override {}
  void on_field_impl(http::field field, BeastView name, BeastView value,
                     boost::system::error_code& error) override {
    // Lines after a chunked body come by the same way: they are no headers. Source: RFC 9110, 6.5.1.
    if (is_header_done()) return;
    if (field == http::field::transfer_encoding) {
      // Any other coding leaves the body's length to the reader's opinion. Source: RFC 9112, 6.1.
      if (version_ < 11 || !iequals(value, "chunked")) error = http::error::bad_transfer_encoding;
      return;
    }
    if (field == http::field::host) {
      ++hosts_;
      return;
    }
    if (field == http::field::authorization) return once(out_.authorization, value);
    if (field == http::field::content_type) return once(out_.content_type, value);
    if (field == http::field::content_encoding) return once(out_.content_encoding, value);
    if (field == http::field::expect) {
      out_.expects_continue = iequals(value, "100-continue");
      return;
    }
    if (field != http::field::unknown) return;
    if (iequals(name, "idempotency-key")) {
      if (out_.has_key) out_.repeated = true;
      out_.has_key = true;
      out_.key = view(value);
    } else if (iequals(name, "x-sluice-app")) {
      once(out_.app, value);
    } else if (iequals(name, "x-sluice-shadow")) {
      once(out_.shadow, value.empty() ? BeastView(" ") : value);  // not "none": it is refused
    } else if (iequals(name, "x-sluice-deadline-ms")) {
      once(out_.deadline, value);
    } else if (iequals(name, "x-sluice-version")) {
      once(out_.version, value);
    } else if (iequals(name, "traceparent")) {
      once(out_.trace, value);
    } else if (iequals(name, "x-correlation-id")) {
      once(out_.correlation, value);
    }
  }
  void on_header_impl(boost::system::error_code&) override {
    out_.keep_alive = keep_alive();
    out_.bad_host = hosts_ > 1 || (hosts_ == 0 && version_ >= 11);
  }
  void on_body_init_impl(const boost::optional<std::uint64_t>& size,
                         boost::system::error_code&) override {
    if (size) out_.body.reserve(static_cast<std::size_t>(*size));  // within the limit already
  }
  std::size_t on_body_impl(BeastView text, boost::system::error_code&) override {
    out_.body.append(text.data(), text.size());
    return text.size();
  }
  void on_chunk_header_impl(std::uint64_t, BeastView, boost::system::error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, BeastView text,
                                 boost::system::error_code&) override {
    out_.body.append(text.data(), text.size());
    return text.size();
  }
  void on_finish_impl(boost::system::error_code&) override {}

  HttpRequest& out_;
  int version_ = 11;
  int hosts_ = 0;
};

Failure explain(const boost::system::error_code& error, RequestParser::Limits limits) {
  if (error == http::error::header_limit)
    return Failure(
        FailureKind::too_large, "header_too_large",
        "the request's header is longer than " + std::to_string(limits.header_bytes) + " bytes (http.max_header_bytes)");
  if (error == http::error::body_limit)
    return Failure(
        FailureKind::too_large, kBodyTooLarge,
        "the request's body is longer than " + std::to_string(limits.body_bytes) + " bytes (http.max_body_bytes)");
  if (error == http::error::bad_content_length || error == http::error::bad_transfer_encoding ||
      error == http::error::multiple_content_length)
    return Failure(FailureKind::invalid_argument, "bad_framing",
                   "the body's length is not clear: send Content-Length or Transfer-Encoding: "
                   "chunked, once and not both");
  return Failure(FailureKind::invalid_argument, "bad_http",
                 "this is not an HTTP/1.1 request: " + error.message());
}

}  // namespace

struct RequestParser::Impl {
  Limits limits;
  std::optional<Parser> parser;
};

RequestParser::RequestParser(Limits limits) : impl_(new Impl{limits, std::nullopt}) {}
RequestParser::~RequestParser() = default;

void RequestParser::reset(HttpRequest& out) {
  out.clear();
  impl_->parser.emplace(out, impl_->limits);
}

bool RequestParser::header_done() const noexcept {
  return impl_->parser && impl_->parser->is_header_done();
}

RequestParser::Step RequestParser::feed(std::string_view bytes) {
  Step step;
  auto& parser = *impl_->parser;
  while (step.consumed < bytes.size()) {
    boost::system::error_code error;
    const auto rest = bytes.substr(step.consumed);
    // Beast asserts that the last chunk, once begun, comes with five bytes or more. No chunked body
    // ends with fewer ("0\r\n\r\n"), so waiting for them keeps nothing back.
    if (parser.is_header_done() && parser.chunked() && rest.size() < kChunkedEnd) break;
    const std::size_t n = parser.put(boost::asio::const_buffer(rest.data(), rest.size()), error);
    step.consumed += n;
    if (error == http::error::need_more) break;
    if (error) {
      step.failure = explain(error, impl_->limits);
      return step;
    }
    if (parser.is_done()) break;
    if (n == 0) break;
  }
  step.done = parser.is_done();
  // A header has its limit and a body is taken as it comes. What is kept then is the line of a chunk, or
  // of what follows the body, that does not end; Beast sets it no limit.
  if (!step.done && bytes.size() - step.consumed > impl_->limits.header_bytes)
    step.failure = Failure(FailureKind::too_large, "framing_too_large",
                           "a line between the chunks of the body, or after it, is longer than " +
                               std::to_string(impl_->limits.header_bytes) + " bytes (http.max_header_bytes)");
  return step;
}

}  // namespace sluice::transport
