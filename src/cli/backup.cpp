// sluice backup: a copy of the database while the server works.
#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "sluice/store/backup.hpp"

namespace sluice::cli {
namespace {

struct Options {
  std::string config, store, to;
  bool json = false;
};

// One line on a terminal, renewed with each percent; nothing elsewhere.
class Percent {
 public:
  explicit Percent(bool shown) : shown_(shown) {}
  ~Percent() {
    if (told_ >= 0) fmt::print(stderr, "\n");
  }
  void tell(std::uint64_t copied, std::uint64_t pages) {
    const int now = pages == 0 ? 100 : static_cast<int>(copied * 100 / pages);
    if (!shown_ || std::exchange(told_, now) == now) return;
    fmt::print(stderr, "\r{} of {} pages ({} %)\033[K", copied, pages, now);
    std::fflush(stderr);
  }

 private:
  const bool shown_;
  int told_ = -1;
};

void backup(const Options& options) {
  const auto config = load_config_or_die(options.config, environment_with_store(options.store));
  if (!config.postgres.url.empty())
    die({FailureKind::invalid_argument, "backup_by_postgres",
         "the store is PostgreSQL, whose own tools make its backups: pg_dump, or pg_basebackup with archived logs; "
         "docs/how-to/postgres.md, \"Backup and restore\""});
  if (config.store_kind == "memory")
    die({FailureKind::invalid_argument, "nothing_to_back_up", "the store is kept in memory: there is no file to copy"});
  need_store(config);
  std::uint64_t all = 0;
  Status done;
  {
    Percent percent(!options.json && isatty(STDERR_FILENO) == 1);
    done = store::backup_sqlite_store(config.sqlite.path, options.to, [&](std::uint64_t copied, std::uint64_t pages) {
      all = pages;
      percent.tell(copied, pages);
    });
  }
  if (!done) die(done.error());
  std::error_code error;
  const auto bytes = std::filesystem::file_size(options.to, error);
  if (options.json) {
    const nlohmann::ordered_json out = {{"store", config.sqlite.path}, {"to", options.to}, {"pages", all}, {"bytes", bytes}};
    fmt::print("{}\n", out.dump());
    return;
  }
  fmt::print("{} was copied to {} ({:.1f} MB). The copy has an incarnation of its own: started on it, a server takes no fencing\n"
             "token from before.\n", config.sqlite.path, options.to, static_cast<double>(bytes) / 1e6);
}

}  // namespace

void add_backup(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("backup", "Copies the SQLite database while the server works");
  add_config_option(*command, options->config);
  command->add_option("--store", options->store, "Path of the SQLite database");
  command->add_option("--to", options->to, "The file to make; it must not exist")->required();
  command->add_flag("--json", options->json, "For programs; no progress");
  command->footer("To restore: stop the server, move the database and what lies beside it (-wal, -shm) away together, put\n"
                  "the copy in its place, start. PostgreSQL has its own tools: docs/how-to/postgres.md.\n"
                  "Example: sluice backup --store sluice.db --to backups/sluice-monday.db");
  command->callback([options] { backup(*options); });
}

}  // namespace sluice::cli
