// The connection of a stream's client: blocking calls, none of the retries and waits of rpc::Channel.
#pragma once
#include <grpcpp/channel.h>

#include "sluice/transport/grpc_channel.hpp"

namespace sluice::transport {

/// Connects when first used. Fails invalid_argument for certificates that cannot be used.
Result<std::shared_ptr<grpc::Channel>> connect_stream(const GrpcChannelOptions& options);

}  // namespace sluice::transport
