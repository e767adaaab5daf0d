// The composition root: store → keys → registry → applications → recovery (beside requests) →
// HTTP and gRPC. Everything is made once, here, and taken down in reverse.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sluice/base/executor.hpp"
#include "sluice/server/app.hpp"
#include "sluice/server/config.hpp"
#include "sluice/server/tokens.hpp"

namespace sluice::server {

struct ServerParts {
  std::vector<std::unique_ptr<App>> apps;
  Clock* clock = nullptr;    ///< null: real time
  Random* random = nullptr;  ///< null: the operating system's
  Logger* logger = nullptr;  ///< null: standard error, as the configuration says
  /// Shown the administrator's token by the first start() that listens; null: it is not made.
  std::function<void(const std::string& token)> first_token;
};

/// Opened by one thread, which also starts and stops it.
class Server {
 public:
  /// Opens the store and installs the applications; nothing listens yet. Fails invalid_argument for
  /// an address beyond the loopback without server.allow_remote, and with what the store, an
  /// application or the tokens say.
  static Result<std::unique_ptr<Server>> open(Config config, ServerParts parts);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Listens, and begins recovery beside the requests.
  Status start();
  /// Not ready for the drain delay, then drains within the grace, cancels the rest, closes. Idempotent; blocks.
  Status stop();

  /// Reads the rules of outbound calls again (SIGHUP). Fails as the file does; the old ones stay.
  Result<resilience::ReloadPlan> reload_rules();

  std::uint16_t port() const noexcept;
  /// 0: grpc.listen is empty, or the server has not started.
  std::uint16_t grpc_port() const noexcept;
  AppContext& context() noexcept;
  Tokens& tokens() noexcept;
  const Config& config() const noexcept;
  transport::HttpStats http_stats() const noexcept;

 private:
  Server();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Whether an address (or the name localhost) is the loopback's.
bool is_loopback(std::string_view address) noexcept;
/// The store the configuration names; all of them must outlive it. `logger`, when there is one, is told of other nodes.
Result<std::unique_ptr<store::Store>> open_store(const Config& config, Clock& clock, Random& random,
                                                 Executor& executor, Logger* logger = nullptr);
/// A transaction as the HTTP API and the command line show it: JSON text.
std::string transaction_json(const flow::TransactionView& view);

}  // namespace sluice::server
