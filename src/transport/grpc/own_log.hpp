// gRPC writes lines of its own to standard error, past every Logger. What they tell that matters is
// in our failures; who hunts a problem of gRPC's sets GRPC_VERBOSITY and gets them.
#pragma once

namespace sluice::transport {

/// Before the first use of gRPC. Idempotent; thread-safe.
void hush_grpc();

}  // namespace sluice::transport
