#include "server/found_database.hpp"

#include <filesystem>

namespace sluice::server {

Found look_for_database(const Config& config) {
  if (config.store_kind == "memory" || !config.postgres.url.empty()) return Found::database;
  std::error_code error;
  const auto size = std::filesystem::file_size(config.sqlite.path, error);
  if (error) return Found::nothing;
  return size == 0 ? Found::empty_file : Found::database;
}

void tell_what_was_made(Found found, const Config& config, Logger& logger) {
  if (found == Found::nothing) logger.info("there was no database, an empty one was made", {{"path", config.sqlite.path}});
  if (found == Found::empty_file)
    logger.warn("the database file was empty: a new store was made in it; if it held something, stop and restore a backup",
                {{"path", config.sqlite.path}});
}

}  // namespace sluice::server
