// Copies of the embedded store's database.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "sluice/base/failure.hpp"

namespace sluice::store {

/// How far a copy is: pages copied, pages in all.
using BackupProgress = std::function<void(std::uint64_t copied, std::uint64_t pages)>;

/// Copies one snapshot of the database at `from`, which another process may have open and write to. `to` is
/// whole or not there, durable on return, its owner's alone, and has an incarnation of its own. Blocks; calls
/// `progress`, if given, every few megabytes. Fails `backup_exists` when there is such a file.
Status backup_sqlite_store(const std::string& from, const std::string& to, const BackupProgress& progress = {});

}  // namespace sluice::store
