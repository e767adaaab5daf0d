// The HTTP door: event loops that accept connections, decode requests into Commands and run them on
// the loop's own lane, so that a request sees no other thread unless its handler does. DESIGN,
// "Doors", names the routes and headers.
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "sluice/base/lifecycle.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::transport {

struct HttpOptions {
  std::string address = "127.0.0.1";
  std::uint16_t port = 8080;  ///< 0: any free one; HttpDoor::port() tells which
  unsigned loops = 1;         ///< threads, each with a lane of its own
  std::size_t max_header_bytes = 16 << 10;
  std::size_t max_body_bytes = 1 << 20;
  std::size_t max_connections = 10'000;
  /// Of one client: an IPv4 address, or an IPv6 network of 64 bits. 0: no limit of its own (a proxy
  /// in front makes one client of all).
  std::size_t max_connections_per_client = 0;
  std::size_t max_json_depth = 64;
  Duration header_timeout = seconds(10);    ///< from the first byte to the end of the header
  Duration body_timeout = seconds(30);      ///< for the body
  Duration idle_timeout = seconds(60);      ///< between requests
  Duration write_timeout = seconds(30);     ///< for a client to take its answer
  Duration default_deadline = seconds(30);  ///< of a request that names none
  Duration max_deadline = seconds(300);     ///< longer ones are cut to this
};

/// A read-only question about transactions; answered with JSON text.
struct TransactionQuery {
  ExchangeId exchange;  ///< 0: a list
  ExchangeId before;    ///< of a list: newest first, from here on
  std::size_t limit = 50;
  std::string state;  ///< of a list: "" or "in_doubt", "open"
  std::shared_ptr<const rpc::Principal> principal;
  Lane* lane = nullptr;  ///< asked on it; `respond` must be called on it
  Instant deadline = kNever;  ///< answered by then
};
using RespondJson = std::move_only_function<void(Result<std::string>)>;

/// What the door asks others. All may be empty: then the route answers 404, the check passes, and
/// no token is known. Called on the loops' threads, concurrently.
struct HttpHooks {
  std::function<Result<std::shared_ptr<const rpc::Principal>>(std::string_view token)> authenticate;
  /// Whose a token is that is refused, for the audit trail; empty text: nobody's.
  std::function<std::string(std::string_view token)> name_of;
  std::function<void(const TransactionQuery&, RespondJson)> transactions;
  std::function<Status()> healthy;
  std::function<Status()> ready;
  std::function<std::string()> ready_body;  ///< JSON of /readyz when ready; empty: {"status":"ok"}
  std::function<std::string()> metrics;
  std::string home;  ///< HTML of GET /
};

struct HttpStats {
  std::uint64_t connections = 0;  ///< open now
  std::uint64_t accepted = 0, refused = 0, requests = 0, timeouts = 0, bad_requests = 0;
};

/// A Component: start() listens, drain() stops accepting and closes idle connections, cancel()
/// cancels what runs, stop() ends the loops. Close the store after stop() and before destroying it.
class HttpDoor final : public Component {
 public:
  HttpDoor(rpc::Registry& registry, Clock& clock, HttpOptions options, HttpHooks hooks,
           Logger& logger = null_logger(), Metrics* metrics = nullptr);
  ~HttpDoor() override;

  std::string_view name() const noexcept override { return "http"; }
  /// Fails unavailable when the address cannot be listened on, saying why and what to do.
  Status start() override;
  void drain() noexcept override;
  bool drained() noexcept override;
  void cancel() noexcept override;
  void stop() noexcept override;

  std::uint16_t port() const noexcept;
  /// The lanes of the loops; they live as long as the door and run between start() and stop().
  std::size_t lanes() const noexcept;
  Lane& lane(std::size_t i) noexcept;
  HttpStats stats() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::transport
