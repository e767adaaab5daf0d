// Failures as gRPC statuses, and back: the code of the failure table, ErrorInfo and RetryInfo.
#pragma once
#include <grpcpp/support/status.h>

#include "sluice/rpc/registry.hpp"

namespace sluice::transport {

/// What is known of the call the failure belongs to.
struct StatusContext {
  std::string_view correlation;
  ExchangeId exchange;    ///< 0: none
  std::string_view data;  ///< JSON text of a stored refusal; left out when too long for a header
};

grpc::Status to_grpc_status(const Failure& failure, const StatusContext& context = {});

/// The failure a peer's status tells. Without details of ours the code alone decides the kind. Not
/// for OK.
Failure from_grpc_status(const grpc::Status& status);

}  // namespace sluice::transport
