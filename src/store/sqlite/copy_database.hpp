// A consistent copy of a database that others are writing to.
#pragma once
#include <string>

#include "sluice/base/files.hpp"
#include "sluice/store/backup.hpp"

namespace sluice::store {

/// Copies one snapshot of `from` to `to`, by way of "<to>.partial", so that `to` is whole or absent; durable
/// on return. The copy has no incarnation: it draws one when it is opened. Fails `backup_exists` when
/// either name is taken, and leaves nothing behind then or otherwise.
Status copy_database(Files& files, const std::string& from, const std::string& to, const char* vfs,
                     const BackupProgress& progress);

}  // namespace sluice::store
