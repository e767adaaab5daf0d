// A flow as a command's handler: the invocation becomes an exchange, its claim the exchange's.
#pragma once
#include "sluice/flow/flow.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::rpc {

/// `flow` must outlive the registry. `prepare` (may be empty) sees the exchange before it runs, for
/// instance to set its reference.
Handler flow_handler(flow::Flow& flow,
                     std::function<void(const Command&, flow::Exchange&)> prepare = {});

/// What a flow's outcome is to a caller.
Answer to_answer(flow::Outcome outcome);

}  // namespace sluice::rpc
