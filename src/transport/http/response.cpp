#include "transport/http/response.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

namespace sluice::transport {

namespace {

std::string_view reason(int status) noexcept {
  switch (status) {
    case 200:
      return "OK";
    case 202:
      return "Accepted";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Status";
  }
}

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kProblem = "application/problem+json";

int status_of(FailureKind kind, std::string_view code) noexcept {
  // Finer than the kind: what HTTP itself has a number for.
  if (code == "header_too_large") return 431;
  if (code == "request_timeout") return 408;
  if (code == kMethodNotAllowed) return 405;
  if (code == "unsupported_media_type") return 415;
  return traits(kind).http_status;
}

std::string problem_body(FailureKind kind, std::string_view code, std::string_view detail) {
  const auto& row = traits(kind);
  const std::string_view shown = code.empty() ? row.name : code;
  return fmt::format(
      R"({{"type":"urn:sluice:failure:{}","title":{},"status":{},"kind":"{}","code":{},"retryable":{},"detail":{})",
      row.name, json_string(row.meaning), status_of(kind, code), row.name, json_string(shown),
      row.retryable, json_string(detail));
}

// What a header can carry: a name that is a token, a value without control characters. Others are left out, as over
// gRPC: whoever chose them would write headers of their own. Source: RFC 9110, 5.1 and 5.5.
bool usable_header(std::string_view name, std::string_view value) noexcept {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  const auto token = [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || kMarks.find(c) != kMarks.npos;
  };
  const auto plain = [](char c) { return c == '\t' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7F); };
  return !name.empty() && std::ranges::all_of(name, token) && std::ranges::all_of(value, plain);
}

std::string location(ExchangeId exchange) {
  return "Location: /v1/transactions/" + to_string(exchange) + "\r\n";
}

void append_reply(std::string& out, const rpc::Answer& answer, const ResponseContext& context) {
  auto reply = Reply::decode(*answer.reply);
  if (!reply) return append_problem(out, reply.error(), context);
  std::string headers;
  for (const auto& [name, value] : reply->headers)
    if (usable_header(name, value)) headers.append(name).append(": ").append(value).append("\r\n");
  if (answer.exchange) headers.append("X-Sluice-Transaction: ").append(to_string(answer.exchange)).append("\r\n");
  if (answer.replayed) headers += "Idempotency-Replayed: true\r\n";
  if (reply->kind == FailureKind::none)
    return append_response(out, 200, kJson, headers, reply->body, context);
  std::string body = problem_body(reply->kind, reply->code, reply->detail);
  if (!reply->body.empty()) body += ",\"data\":" + reply->body;
  body += "}";
  append_response(out, status_of(reply->kind, reply->code), kProblem, headers, body, context);
}

void append_unsettled(std::string& out, const rpc::Answer& answer, const ResponseContext& context) {
  const bool pending = answer.kind == rpc::Answer::Kind::pending;
  const std::string id = to_string(answer.exchange);
  if (!pending) {
    const std::string body = fmt::format(
        R"({{"outcome":"in_doubt","transaction":"{}","status":"/v1/transactions/{}"}})", id, id);
    return append_response(out, 202, kJson, location(answer.exchange), body, context);
  }
  std::string body =
      problem_body(FailureKind::pending, {},
                   "the transaction is not settled yet: ask its status, or repeat the request "
                   "with the same Idempotency-Key");
  fmt::format_to(std::back_inserter(body),
                 R"(,"outcome":"pending","transaction":"{}","correlation_id":{}}})", id,
                 json_string(context.correlation));
  append_response(out, 504, kProblem, location(answer.exchange), body, context);
}

}  // namespace

std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string http_date(WallTime now) {
  return fmt::format("{:%a, %d %b %Y %H:%M:%S} GMT",
                     fmt::gmtime(static_cast<std::time_t>(
                         std::chrono::floor<seconds>(now).time_since_epoch().count())));
}

void append_response(std::string& out, int status, std::string_view content_type,
                     std::string_view extra_headers, std::string_view body,
                     const ResponseContext& context) {
  const fmt::format_int code(status), length(body.size());
  const std::string_view parts[] = {
      "HTTP/1.1 ", {code.data(), code.size()}, " ", reason(status),
      "\r\nDate: ", context.date,
      "\r\nContent-Type: ", content_type,
      "\r\nContent-Length: ", {length.data(), length.size()},
      "\r\nX-Correlation-Id: ", context.correlation,
      "\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n", extra_headers,
      context.keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n",
      context.head ? std::string_view() : body};
  std::size_t all = 0;
  for (const auto part : parts) all += part.size();
  out.reserve(out.size() + all);
  for (const auto part : parts) out += part;  // a format string read per response costs more than this
}

void append_problem(std::string& out, const Failure& failure, const ResponseContext& context) {
  std::string body = problem_body(failure.kind(), failure.code(), failure.detail());
  for (const auto& [key, value] : failure.details())
    fmt::format_to(std::back_inserter(body), ",{}:{}", json_string(key), json_string(value));
  fmt::format_to(std::back_inserter(body), ",\"correlation_id\":{}}}",
                 json_string(context.correlation));
  std::string headers;
  if (failure.code() == kMethodNotAllowed)
    for (const auto& [key, value] : failure.details())
      if (key == kAllow && usable_header(key, value)) fmt::format_to(std::back_inserter(headers), "Allow: {}\r\n", value);
  if (failure.kind() == FailureKind::unauthenticated)
    headers += "WWW-Authenticate: Bearer realm=\"sluice\"\r\n";
  if (const auto after = failure.retry_after())  // whole seconds, rounded up
    fmt::format_to(std::back_inserter(headers), "Retry-After: {}\r\n",
                   std::chrono::ceil<seconds>(*after).count());
  append_response(out, status_of(failure.kind(), failure.code()), kProblem, headers, body, context);
}

void append_short_refusal(std::string& out, const Failure& failure) {
  const int status = status_of(failure.kind(), failure.code());
  const std::string body = problem_body(failure.kind(), failure.code(), failure.detail()) + "}";
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n", status, reason(status),
                 kProblem, body.size());
  if (const auto after = failure.retry_after())
    fmt::format_to(std::back_inserter(out), "Retry-After: {}\r\n", std::chrono::ceil<seconds>(*after).count());
  out.append("Connection: close\r\n\r\n").append(body);
}

void append_answer(std::string& out, const rpc::Answer& answer, const ResponseContext& context) {
  switch (answer.kind) {
    case rpc::Answer::Kind::reply:
      return append_reply(out, answer, context);
    case rpc::Answer::Kind::failure:
      return append_problem(out, *answer.failure, context);
    case rpc::Answer::Kind::pending:
    case rpc::Answer::Kind::in_doubt:
      return append_unsettled(out, answer, context);
  }
}

}  // namespace sluice::transport
