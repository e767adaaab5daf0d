// A log whose database is gone.
#pragma once
#include <string>

#include "sluice/base/files.hpp"

namespace sluice::store {

/// Fails `log_without_database` when `database` is absent or empty and a log with something in it stands
/// beside it: its commits were acknowledged, and SQLite deletes the log of a database that has no pages.
/// A first start never leaves that: the first page is synced before there is a log. Without a log an
/// absent or empty file holds nothing (a first start that was killed leaves an empty one): good.
Status refuse_orphan_log(Files& files, const std::string& database);

}  // namespace sluice::store
