// Makes what a write-ahead log shows durable before anything is appended to it.
#pragma once
#include <string>

#include "sluice/base/files.hpp"

namespace sluice::store {

/// After a failed sync the kernel keeps showing pages that never reached the disk, and no later sync
/// writes them. A database opened on such a log would append behind a hole, and lose everything
/// after the hole at the next power failure, acknowledged or not. Writing the log's bytes over
/// themselves makes the pages dirty again; then they are synced. Costs one pass over a log that was
/// left by a crash (checkpoint_pages bound its size); a clean close leaves none.
Status rewrite_log(Files& files, const std::string& database);

}  // namespace sluice::store
