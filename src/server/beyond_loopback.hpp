// Doors that others can reach need TLS, or a word that something in front of them has it.
#pragma once
#include "sluice/server/server.hpp"

namespace sluice::server {

/// Fails invalid_argument (remote_not_allowed) for a door beyond the loopback without either.
Status check_reach(const Config& config);

}  // namespace sluice::server
