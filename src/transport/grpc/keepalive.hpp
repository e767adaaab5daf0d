// How a client looks after its connections: a line that is dead and was not ended is found by a ping.
#pragma once
#include <grpcpp/support/channel_arguments.h>

#include "sluice/transport/grpc_channel.hpp"

namespace sluice::transport {

inline void set_keepalive(grpc::ChannelArguments& arguments, const GrpcChannelOptions& options) {
  const auto ms = [](Duration duration) { return static_cast<int>(std::chrono::duration_cast<milliseconds>(duration).count()); };
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, ms(options.keepalive));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, ms(options.keepalive_timeout));
  // Calls that have timed out look after no connection. A callee that allows no such pings counts two and ends
  // the connection at the third; gRPC sends no more than two without data between them.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 2);
}

}  // namespace sluice::transport
