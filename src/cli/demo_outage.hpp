// The second act of the demonstration: the distribution service beside a code service and a user
// service, each a process of its own. The code service hangs for one region, is slow for it, is killed, comes back;
// shadow traffic runs against a failing service.
#pragma once
#include <string>
#include <vector>

namespace sluice::cli {

/// Prints what happens. Every sentence of the result is something that should not have happened.
std::vector<std::string> demo_outage(const std::string& folder, bool quiet);

}  // namespace sluice::cli
