#include "server/found_database.hpp"

#include <filesystem>

namespace sluice::server {
namespace {

// Who moved to PostgreSQL by changing the address alone has an empty store, in which every key runs as new.
bool left_behind(const Config& config) {
  std::error_code error;
  return std::filesystem::is_regular_file(config.sqlite.path, error) && std::filesystem::file_size(config.sqlite.path, error) > 0 && !error;
}

}  // namespace

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
  const auto* shared = dynamic_cast<store::PostgresStore*>(&store);
  if (shared != nullptr && shared->of_another_database())
    logger.warn("the tables are in another database than before, restored from a dump or moved: a new incarnation was "
                "drawn", {{"url", store::without_password(config.postgres.url)}});
  if (shared != nullptr && left_behind(config))
    logger.warn("the store is the PostgreSQL database, and nothing of the SQLite file at store.path is in it: no keys, so that a retry "
                "of a request from before runs again, no data, no tokens; docs/how-to/postgres.md says how to move. To say no more of "
                "it, move the file away", {{"path", config.sqlite.path}, {"url", store::without_password(config.postgres.url)}});
}

}  // namespace sluice::server
