// Tells a flow's observers; what they throw is logged and changes nothing.
#pragma once
#include "sluice/flow/flow.hpp"

namespace sluice::flow {

void tell(Flow& flow, const Exchange& exchange, EventKind kind, std::string_view cause,
          WallTime at) noexcept;

}  // namespace sluice::flow
