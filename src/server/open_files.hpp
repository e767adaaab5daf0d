// How many files and sockets this process may have open.
#pragma once
#include <cstddef>

#include "sluice/base/log.hpp"

namespace sluice::server {

/// So many of `wanted` connections as there are file descriptors for, besides those the server needs itself. Raises the
/// process's own limit (`ulimit -Sn`) towards the one it may have (`ulimit -Hn`) first; warns when that is not enough.
std::size_t connections_that_fit(std::size_t wanted, Logger& logger);

}  // namespace sluice::server
