#include "server/open_files.hpp"

#include <sys/resource.h>

#include <algorithm>

namespace sluice::server {

namespace {
// The store's files, gRPC's sockets, calls to others, logs.
constexpr rlim_t kOwn = 256;
}  // namespace

std::size_t connections_that_fit(std::size_t wanted, Logger& logger) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  const rlim_t asked = wanted + kOwn;
  if (limit.rlim_cur < asked && limit.rlim_cur < limit.rlim_max) {
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = std::min(asked, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  }
  if (limit.rlim_cur >= asked) return wanted;
  const std::size_t fit = limit.rlim_cur > 2 * kOwn ? limit.rlim_cur - kOwn : limit.rlim_cur / 2;
  logger.warn("fewer connections than http.max_connections: this process may not open more files; raise `ulimit -Hn` "
              "(LimitNOFILE= of a systemd unit)",
              {{"connections", fit}, {"http.max_connections", wanted}, {"open_files", limit.rlim_cur}});
  return fit;
}

}  // namespace sluice::server
