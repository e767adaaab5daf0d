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

void tell_what_was_found(Found found, store::Store& store, const Config& config, Logger& logger) {
  if (found == Found::nothing) logger.info("there was no database, an empty one was made", {{"path", config.sqlite.path}});
  if (found == Found::empty_file)
    logger.warn("the database file was empty: a new store was made in it; if it held something, stop and restore a backup",
                {{"path", config.sqlite.path}});
  if (const auto* file = dynamic_cast<store::SqliteStore*>(&store); file != nullptr && file->of_another_file())
    logger.warn("the database is in another file than before, a copy or a backup that was put in its place: a new "
                "incarnation was drawn", {{"path", config.sqlite.path}});
  if (const auto* shared = dynamic_cast<store::PostgresStore*>(&store); shared != nullptr && shared->of_another_database())
    logger.warn("the tables are in another database than before, restored from a dump or moved: a new incarnation was "
                "drawn", {{"url", store::without_password(config.postgres.url)}});
}

}  // namespace sluice::server
