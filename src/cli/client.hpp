// How the command line talks to a running server: plain HTTP, one request at a time, and messages
// that say what to do when it cannot.
#pragma once
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace sluice::cli {

/// Where the server is and who asks; shared by every subcommand that needs one.
struct ServerOptions {
  std::string server = "http://127.0.0.1:8080";
  std::string token;
  bool json = false;
};
/// --server, --token, --json with their environment variables.
void add_server_options(CLI::App& command, ServerOptions& options);

struct HttpAnswer {
  int status = 0;
  std::string body;
  bool replayed = false;
  std::string transaction;
  nlohmann::ordered_json json;  ///< of the body; discarded when it is none

  bool ok() const { return status >= 200 && status < 300 && status != 202; }
  /// Decided or accepted, not settled: 202 in doubt, 504 pending.
  bool unsettled() const { return status == 202 || (status == 504 && json.is_object() && json.contains("transaction")); }
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;
/// Both end the process (status 1) when the server cannot be reached, saying how to start one.
HttpAnswer http_get(const ServerOptions& options, const std::string& target);
HttpAnswer http_post(const ServerOptions& options, const std::string& target, std::string body,
                     const HttpHeaders& headers = {});
/// POST to a command.
HttpAnswer run_command(const ServerOptions& options, const std::string& name, const nlohmann::ordered_json& payload);

/// Prints the problem an answer tells, with what follows from it, and throws CLI::RuntimeError: 1
/// when it failed, 3 when it is not settled yet.
[[noreturn]] void refuse(const ServerOptions& options, const HttpAnswer& answer);

}  // namespace sluice::cli
