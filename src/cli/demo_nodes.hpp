// The demonstration on PostgreSQL.
#pragma once
#include <cstdint>
#include <string>

namespace sluice::cli {

/// Returns the exit status. `folder` takes the nodes' logs; `url` names an empty database.
int demo_nodes(const std::string& folder, const std::string& url, std::uint64_t requests, bool stay);

}  // namespace sluice::cli
