// What gRPC is for the whole process, whoever uses it: its own log lines and its callback threads.
#pragma once

namespace sluice::transport {

/// Before the first use of gRPC. Idempotent; thread-safe.
///
/// gRPC writes lines of its own to standard error, past every Logger. What they tell that matters is in
/// our failures; who hunts a problem of gRPC's sets GRPC_VERBOSITY and gets them.
///
/// The threads that run callbacks end with the last channel and server of the process. When that is let
/// go by one of these threads, it joins itself: the process aborts (github.com/grpc/grpc/issues/37858).
/// So one channel, which connects to nothing, is kept to the end of the process.
void prepare_grpc();

}  // namespace sluice::transport
