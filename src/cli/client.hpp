// How the command line talks to a running server: plain HTTP, one request at a time, and messages
// that say what to do when it cannot.
#pragma once
#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace sluice::cli {

/// Where the server is and who asks; shared by every subcommand that needs one.
struct ServerOptions {
  std::string server = "http://127.0.0.1:8080";
  std::string token;
  std::int64_t deadline_ms = 30'000;  ///< told to the server; the client waits little longer
  bool json = false;
};
/// --server, --token, --deadline-ms, --json with their environment variables.
void add_server_options(CLI::App& command, ServerOptions& options);

/// Exit status: begun or decided, not settled yet.
inline constexpr int kUnsettledStatus = 3;
/// Exit status: it may have taken effect.
inline constexpr int kUnknownOutcomeStatus = 4;

struct HttpAnswer {
  int status = 0;
  std::string body;
  bool replayed = false;
  std::string transaction;
  nlohmann::ordered_json json;  ///< of the body; discarded when it is none

  bool ok() const { return status >= 200 && status < 300 && status != 202; }
  /// It may have taken effect, the server does not know.
  bool unknown() const { return json.is_object() && json.value("kind", std::string()) == "unknown_outcome"; }
  /// Decided or accepted, not settled: 202 in doubt, 504 pending.
  bool unsettled() const { return status == 202 || (status == 504 && json.is_object() && json.contains("transaction")); }
};

/// What the client itself knows of what it sends.
struct Request {
  std::string key;      ///< empty: none
  bool effects = true;  ///< whether it may change anything
  bool silent = false;  ///< without an answer nothing is printed: who asks goes on
  std::vector<std::pair<std::string, std::string>> headers{};
};
/// Both end the process (status 1) when the server cannot be reached, saying how to start one, and
/// when a request that has left is not answered: kUnknownOutcomeStatus if it may have taken effect.
HttpAnswer http_get(const ServerOptions& options, const std::string& target);
HttpAnswer http_post(const ServerOptions& options, const std::string& target, std::string body,
                     const Request& how = {});
/// POST to a command.
HttpAnswer run_command(const ServerOptions& options, const std::string& name, const nlohmann::ordered_json& payload);

/// Prints the problem an answer tells, with what follows from it, and throws CLI::RuntimeError: 1
/// when it failed, 3 when it is not settled yet, 4 when nobody knows whether it took effect.
[[noreturn]] void refuse(const ServerOptions& options, const HttpAnswer& answer);

}  // namespace sluice::cli
