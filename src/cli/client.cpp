#include "cli/client.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <sstream>

#include "cli/commands.hpp"
#include "cli/options.hpp"

namespace sluice::cli {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;

namespace {

// Ends of the names of those of the server's own commands that change nothing.
constexpr std::string_view kReads[] = {".list", ".show", ".graph", ".diff"};
constexpr std::chrono::seconds kConnectTimeout{10};
// An answer that says the deadline is over comes after it.
constexpr std::chrono::seconds kPatienceAfterDeadline{3};

struct Address {
  std::string host, port;
};

Address parse_address(const std::string& server) {
  std::string rest = server;
  if (rest.starts_with("https://"))
    die(Failure(FailureKind::invalid_argument, "no_tls",
                "--server " + server + ": this client speaks plain HTTP; use http:// on the loopback"));
  if (rest.starts_with("http://")) rest = rest.substr(7);
  while (rest.ends_with('/')) rest.pop_back();
  const auto colon = rest.rfind(':');
  Address address{rest.substr(0, colon), colon == std::string::npos ? "80" : rest.substr(colon + 1)};
  if (address.host.starts_with('[') && address.host.ends_with(']'))
    address.host = address.host.substr(1, address.host.size() - 2);
  if (address.host.empty() || address.port.empty() ||
      address.port.find_first_not_of("0123456789") != std::string::npos)
    die(Failure(FailureKind::invalid_argument, "bad_server",
                "--server: expected http://host:port, got '" + server + "'"));
  return address;
}

[[noreturn]] void unreachable(const ServerOptions& options, const Request& request, const std::string& why) {
  if (!request.silent)
    fmt::print(stderr,
               "sluice: no answer from {}: {}\n"
               "  Start a server with `sluice serve`, or say where it is: --server http://host:port "
               "(or SLUICE_SERVER).\n",
               options.server, why);
  throw CLI::RuntimeError(1);
}

// What answered is no Sluice over HTTP, so nothing took effect.
[[noreturn]] void no_http(const ServerOptions& options, const Request& request) {
  if (!request.silent)
    fmt::print(stderr, "sluice: {} is no HTTP door; is it the gRPC one? --server takes the address of `Listening on http://…`\n",
               options.server);
  throw CLI::RuntimeError(1);
}

// Nothing is known of a request that has left: its words, and what to do. Status 4.
[[noreturn]] void unanswered(const ServerOptions& options, const Request& request, const std::string& why) {
  const std::string what = fmt::format("no answer from {}: {}", options.server, why);
  if (!request.effects) {
    if (!request.silent) fmt::print(stderr, "sluice: {}\n  Nothing was asked that changes anything; ask again.\n", what);
    throw CLI::RuntimeError(1);
  }
  const std::string todo = request.key.empty()
                               ? "It had no key: look whether it did, before you repeat it."
                               : fmt::format("Repeat it with --key {}: with the same key it takes effect once.", request.key);
  if (options.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"kind", "unknown_outcome"}, {"code", "no_answer"}, {"retryable", false},
                                              {"detail", what + "; it may have taken effect. " + todo}}
                           .dump());
  else
    fmt::print(stderr, "sluice: {}\n  It may have taken effect. {}\n", what, todo);
  throw CLI::RuntimeError(kUnknownOutcomeStatus);
}

/// One asynchronous step to its end.
template <class Start>
beast::error_code step(asio::io_context& io, Start start) {
  beast::error_code result;
  start([&result](beast::error_code error, auto&&...) { result = error; });
  io.restart();
  io.run();
  return result;
}

HttpAnswer exchange(const ServerOptions& options, const Request& meta, http::request<http::string_body> request) {
  const Address address = parse_address(options.server);
  beast::error_code error;
  asio::io_context io;
  asio::ip::tcp::resolver resolver(io);
  const auto found = resolver.resolve(address.host, address.port, error);
  if (error) unreachable(options, meta, error.message());
  beast::tcp_stream stream(io);
  stream.expires_after(kConnectTimeout);
  error = step(io, [&](auto done) { stream.async_connect(found, done); });
  if (error) unreachable(options, meta, error.message());
  request.set(http::field::host, address.host);
  if (!options.token.empty()) request.set(http::field::authorization, "Bearer " + options.token);
  request.prepare_payload();
  const auto patience = std::chrono::milliseconds(options.deadline_ms) + kPatienceAfterDeadline;
  stream.expires_after(patience);
  std::ostringstream wire;
  wire << request;
  const std::string text = std::move(wire).str();
  const beast::error_code sent = step(io, [&](auto done) { asio::async_write(stream, asio::buffer(text), done); });
  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(64 << 20);
  // Also when not all of it went out: a server that refuses a request closes behind its answer.
  error = step(io, [&](auto done) { http::async_read(stream, buffer, parser, done); });
  if (error) {
    // HTTP/2 greets with a frame and TLS with an alert: neither begins as text does.
    if (!parser.is_header_done() && buffer.size() > 0)
      if (const auto first = *static_cast<const unsigned char*>(buffer.data().data()); first < 0x20 && first != '\r' && first != '\n')
        no_http(options, meta);
    if (sent) error = sent;
    unanswered(options, meta,
               error == beast::error::timeout
                   ? fmt::format("none within {} ms", std::chrono::duration_cast<std::chrono::milliseconds>(patience).count())
               : error == http::error::end_of_stream || error == http::error::partial_message
                   ? "the connection was closed before it"
                   : error.message());
  }
  const auto& response = parser.get();
  HttpAnswer answer;
  answer.status = static_cast<int>(response.result_int());
  answer.body = response.body();
  answer.replayed = response["Idempotency-Replayed"] == "true";
  answer.transaction = std::string(response["X-Sluice-Transaction"]);
  answer.json = nlohmann::ordered_json::parse(answer.body, nullptr, false);
  return answer;
}

// A line end would begin another header.
std::string whole_line(const std::string& token) {
  if (token.find_first_of("\r\n") != std::string::npos) return "the token has a line end; give it without";
  const bool plain = std::ranges::all_of(token, [](char c) { return c > 0x20 && c < 0x7F; });
  return plain ? std::string() : "the token has a blank, or a character that is not ASCII";
}

}  // namespace

void add_server_options(CLI::App& command, ServerOptions& options) {
  from_environment(command, command.add_option("--server", options.server, "Address of the server")->capture_default_str(),
                   "SLUICE_SERVER");
  from_environment(command,
                   command.add_option("--token", options.token, "Who asks; better in the environment than in a command line")
                       ->check(CLI::Validator([](std::string& given) { return whole_line(given); }, "", "token")),
                   "SLUICE_TOKEN");
  command.add_option("--deadline-ms", options.deadline_ms, "How long the server may take; past it, and 3 s, nobody waits")
      ->check(CLI::Range(1, 86'400'000))
      ->capture_default_str();
  command.add_flag("--json", options.json, "The server's JSON as it is, for programs");
}

HttpAnswer http_get(const ServerOptions& options, const std::string& target) {
  http::request<http::string_body> request(http::verb::get, target, 11);
  return exchange(options, {.effects = false}, std::move(request));
}

HttpAnswer http_post(const ServerOptions& options, const std::string& target, std::string body, const Request& how) {
  http::request<http::string_body> request(http::verb::post, target, 11);
  request.set(http::field::content_type, "application/json");
  request.set("X-Sluice-Deadline-Ms", std::to_string(options.deadline_ms));
  if (!how.key.empty()) request.set("Idempotency-Key", how.key);
  for (const auto& [name, value] : how.headers) request.set(name, value);
  request.body() = std::move(body);
  return exchange(options, how, std::move(request));
}

HttpAnswer run_command(const ServerOptions& options, const std::string& name,
                       const nlohmann::ordered_json& payload) {
  Request how;
  how.effects = !std::ranges::any_of(kReads, [&](std::string_view end) { return name.ends_with(end); });
  return http_post(options, "/v1/commands/" + name, payload.dump(), how);
}

void refuse(const ServerOptions& options, const HttpAnswer& answer) {
  const int status = answer.unsettled() ? kUnsettledStatus : answer.unknown() ? kUnknownOutcomeStatus : 1;
  if (options.json) {
    fmt::print("{}\n", answer.body);
    throw CLI::RuntimeError(status);
  }
  const auto text = [&](const char* name) {
    return answer.json.is_object() && answer.json.contains(name) && answer.json[name].is_string()
               ? answer.json[name].get<std::string>()
               : std::string();
  };
  if (answer.unsettled()) {
    fmt::print(stderr, "{}: transaction {} is not settled yet. Look at it with `sluice tx show {}`, or repeat the "
               "request with the same key.\n",
               text("outcome"), text("transaction"), text("transaction"));
    throw CLI::RuntimeError(status);
  }
  if (text("kind").empty())
    fmt::print(stderr, "sluice: HTTP {} from {}: {}\n", answer.status, options.server, answer.body.substr(0, 400));
  else
    fmt::print(stderr, "sluice: {}{}: {}\n", text("kind"), text("code") == text("kind") ? "" : "/" + text("code"),
               text("detail"));
  if (text("code") == "idempotency_key_required")
    fmt::print(stderr, "  Give one: --key NAME; the same NAME again is the same request and takes effect once.\n");
  if (answer.status == 401)
    fmt::print(stderr, "  {} Tokens are made by the command sluice.token.create, or by `sluice token create` (on SQLite while the server "
               "is stopped, on PostgreSQL at any time: nodes know it within two seconds); the first start of a server prints the administrator's.\n",
               options.token.empty() ? "No token was given: --token or SLUICE_TOKEN." : "The token was not accepted.");
  if (text("code") == "database_went_back")
    fmt::print(stderr, "  Do not try it again before it is known what was lost: what was done before may run again, with its key too.\n");
  else if (answer.json.is_object() && answer.json.value("retryable", false))
    fmt::print(stderr, "  It may be tried again{}.\n", answer.status == 409 ? ", with the same key" : "");
  throw CLI::RuntimeError(status);
}

}  // namespace sluice::cli
