// The gRPC door: `sluice.v1.Commands` and typed services whose methods are commands, on one port
// with health and reflection. A call only hops to a lane; everything a command is belongs there.
// proto/sluice/v1/commands.proto names the metadata.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sluice/base/lifecycle.hpp"
#include "sluice/base/log.hpp"
#include "sluice/base/metrics.hpp"
#include "sluice/rpc/registry.hpp"
#include "sluice/stream/pipeline.hpp"

namespace sluice::transport {

struct GrpcOptions {
  std::string listen = "127.0.0.1:0";  ///< host:port; port 0: any free one, GrpcDoor::port() tells
  std::string tls_cert;                ///< PEM file, leaf first; with tls_key, else no TLS
  std::string tls_key;                 ///< PEM file
  std::string tls_client_ca;           ///< PEM file: callers must show a certificate of this authority
  Duration tls_watch = seconds(10);    ///< between two looks at those files; replaced ones are used by new connections
  std::size_t max_message_bytes = 1 << 20;
  std::size_t max_streams = 1000;  ///< calls at once on one connection; further ones wait there
  std::size_t max_calls = 10'000;  ///< calls at once; past it: overloaded
  std::size_t max_json_depth = 64;
  Duration default_deadline = seconds(30);  ///< of a call that names none
  Duration max_deadline = seconds(300);     ///< longer ones are cut to this
  stream::Options stream = stream_defaults();  ///< of Commands/ExecuteStream; always keyed

  static stream::Options stream_defaults() {
    stream::Options out;
    out.name = "command_stream";
    out.ordering.mode = stream::Order::keyed;
    out.retry.attempts = 3;
    return out;
  }
};

/// Methods of typed services that are commands: a line each. The service is known by its .proto,
/// whose generated messages must be linked; a request becomes the command's JSON payload with the
/// names of the .proto's fields (fields at their defaults are left out, 64-bit integers are text:
/// protobuf's JSON mapping), the reply's body becomes the response, names unknown to it left out.
class GrpcMethods {
 public:
  struct Binding {
    std::string method;   ///< "package.Service/Method"
    std::string command;  ///< as the registry knows it
    std::uint32_t version = 0;
  };
  void bind(std::string method, std::string command, std::uint32_t version = 0) {
    bindings_.push_back({std::move(method), std::move(command), version});
  }
  const std::vector<Binding>& bindings() const noexcept { return bindings_; }

 private:
  std::vector<Binding> bindings_;
};

/// What the door asks others; called on the lanes, concurrently. Empty: no token is known.
struct GrpcHooks {
  std::function<Result<std::shared_ptr<const rpc::Principal>>(std::string_view token)> authenticate;
  /// Whose a token is that is refused, for the audit trail; empty text: nobody's.
  std::function<std::string(std::string_view token)> name_of;
  /// Where streams that can be resumed keep their mark: a durable store. Null: resume is refused.
  store::Store* marks = nullptr;
  /// What health tells of all services (as /readyz over HTTP); must not block. Empty: ready while it does not drain.
  std::function<Status()> ready;
  Random* random = nullptr;  ///< spreads retries of messages; null: they are not spread
};

struct GrpcStats {
  std::uint64_t running = 0;  ///< now
  std::uint64_t calls = 0, refused = 0, bad_requests = 0, cancelled = 0;
  stream::PipelineStats streams;  ///< of Commands/ExecuteStream
};

/// A Component: start() listens, drain() tells health and refuses new calls, cancel() cancels what
/// runs, stop() says goodbye to the connections and closes. The lanes must run from before start()
/// until after stop(). Close the store after stop() and before destroying it.
/// Whether the certificate files of a door can be used; fails invalid_argument, as its start() would.
Status check_certificates(const GrpcOptions& options);

class GrpcDoor final : public Component {
 public:
  /// Calls are spread over `lanes`, of which there must be one.
  GrpcDoor(rpc::Registry& registry, Clock& clock, std::vector<Lane*> lanes, GrpcOptions options,
           GrpcHooks hooks, Logger& logger = null_logger(), Metrics* metrics = nullptr);
  ~GrpcDoor() override;

  std::string_view name() const noexcept override { return "grpc"; }
  /// Before start(); fails invalid_argument for a method that no linked .proto has, that is not
  /// unary, or that is bound already, and not_found for an unknown command.
  Status bind(const GrpcMethods& methods);
  /// Fails invalid_argument for an address, certificate or key that cannot be used, unavailable
  /// when the address cannot be listened on; all say why and what to do.
  Status start() override;
  /// Looks whether certificate files have changed, if the last look is `tls_watch` ago; new connections do
  /// too. What is found is told in the log. Thread-safe; reads files.
  void look_at_certificates() noexcept;
  /// Asks the hook and tells health, and who watches it, what has changed. Not at the same time as stop().
  void tell_health() noexcept;
  void drain() noexcept override;
  bool drained() noexcept override;
  void cancel() noexcept override;
  void stop() noexcept override;

  std::uint16_t port() const noexcept;
  GrpcStats stats() const noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice::transport
