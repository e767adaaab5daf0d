// A flow as a command's handler: the invocation becomes an exchange, its claim the exchange's.
#pragma once
#include "sluice/flow/flow.hpp"
#include "sluice/rpc/client.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::rpc {

/// `flow` must outlive the registry. `prepare` (may be empty) sees the exchange before it runs, for
/// instance to set its reference.
Handler flow_handler(flow::Flow& flow,
                     std::function<void(const Command&, flow::Exchange&)> prepare = {});

/// For a call that a stage makes: the exchange's namespace, trace and correlation, and the stage's
/// token as the idempotency key, the same for every retry and for recovery. `what` tells calls of
/// one stage apart; it becomes part of the key.
CallContext outbound_context(const flow::Exchange& exchange, std::string_view what = {});

/// What a flow's outcome is to a caller.
Answer to_answer(flow::Outcome outcome);

}  // namespace sluice::rpc
