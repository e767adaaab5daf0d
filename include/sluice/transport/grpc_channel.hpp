// Calls over gRPC: resolution, balancing, TLS, keepalive and reconnecting are gRPC's own.
#pragma once
#include <memory>
#include <string>

#include "sluice/base/log.hpp"
#include "sluice/rpc/client.hpp"

namespace sluice::transport {

struct GrpcChannelOptions {
  std::string target;  ///< as gRPC names it: "codes:9090", "dns:///codes.internal:9090"
  bool tls = false;
  std::string tls_ca;           ///< PEM file of trusted authorities; empty: the system's
  std::string tls_cert;         ///< PEM file shown to a callee that asks who calls; with tls_key
  std::string tls_key;          ///< PEM file
  Duration tls_watch = seconds(10);  ///< between two looks at those files; replaced ones are used by new calls
  Logger* logger = nullptr;          ///< told of replaced files and of a certificate that ends; outlives the channel
  std::string tls_server_name;  ///< the name the certificate must have; empty: the target's
  std::string token;            ///< sent as `authorization: Bearer`; empty: none
  std::string balancing = "round_robin";  ///< or pick_first
  Duration keepalive = seconds(30);       ///< a ping on a silent connection; at least 10 s
  Duration keepalive_timeout = seconds(5);  ///< for its answer; then the connection is lost
  /// Three calls or more time out and nothing is answered for so long: the next ones go over new connections.
  /// Keepalive needs longer, and finds the one of several that is dead. Zero: never.
  Duration silence = seconds(3);
  Duration connect_timeout = seconds(1);
  Duration max_backoff = seconds(1);        ///< between attempts to connect
  Duration default_deadline = seconds(30);  ///< of calls whose task has none
  std::size_t max_message_bytes = 4 << 20;  ///< of an answer
  std::size_t max_calls = 10'000;           ///< at once; past it: overloaded
};

/// Connects when first used. Failures come from the callee's status, ErrorInfo and RetryInfo (or
/// grpc-retry-pushback-ms); without details of ours the code decides, and a command that is not
/// read-only is unknown_outcome once it was sent. Metadata: idempotency-key, traceparent,
/// x-correlation-id, x-sluice-shadow and the context's headers. Fails invalid_argument for an empty
/// target or a certificate file that cannot be used. Destroying it cancels what runs; lanes may go
/// before it once nothing waits on them.
Result<std::shared_ptr<rpc::Channel>> make_grpc_channel(GrpcChannelOptions options);

/// Bytes of a message of a linked .proto as JSON text; for logs. Says so when they are none.
std::string message_json(std::string_view type, ByteView body);

}  // namespace sluice::transport
