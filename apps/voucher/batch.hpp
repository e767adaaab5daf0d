// A batch of items: each a child exchange with its own key and Commit, run side by side so that
// they share a group; the reply is a pure function of theirs, in the order of the request.
#pragma once
#include "apps/voucher/distribution.hpp"
#include "sluice/rpc/registry.hpp"

namespace sluice::voucher {

inline constexpr std::size_t kMaxItems = 500;

/// Runs one invocation of the batch command. Ends by invocation.finish(). Lane-only.
void distribute_batch(rpc::Invocation& invocation, Distribution& distribution);

}  // namespace sluice::voucher
