#include "store/sqlite/orphan_log.hpp"

namespace sluice::store {
namespace {

Result<bool> holds_something(Files& files, const std::string& path) {
  SLUICE_ASSIGN(const bool there, files.exists(path));
  if (!there) return false;
  SLUICE_ASSIGN(const auto file, files.open(path, OpenMode::read));
  SLUICE_ASSIGN(const std::uint64_t size, file->size());
  return size != 0;
}

}  // namespace

Status refuse_orphan_log(Files& files, const std::string& database) {
  const std::string log = database + "-wal";
  SLUICE_ASSIGN(const bool logged, holds_something(files, log));
  if (!logged) return {};
  SLUICE_ASSIGN(const bool holds, holds_something(files, database));
  if (holds) return {};
  return fail(FailureKind::corrupt, "log_without_database",
              "opening " + database + ": it is absent or empty, and " + log +
                  " holds commits that were acknowledged; put the database file back that this log belongs to, or, to "
                  "begin with an empty one, move the log away first; nothing was changed");
}

}  // namespace sluice::store
