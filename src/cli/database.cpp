// sluice migrate and sluice doctor: the database apart from the server.
#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.hpp"
#include "cli/options.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/store/backup.hpp"

namespace sluice::cli {
namespace {

struct Options {
  std::string config, store;
  bool restored = false, full = false, json = false;
};

constexpr const char* kNewIncarnation = "\nA new incarnation was drawn: leases and fencing tokens from before are void.";

void migrate(const Options& options) {
  const auto config = load_config_or_die(options.config, environment_with_store(options.store));
  RealClock clock;
  RealRandom random;
  RealExecutor executor(clock);
  nlohmann::ordered_json out;
  std::string text;
  if (config.postgres.url.empty()) {
    if (options.restored) need_store(config);
    std::error_code error;
    const bool made = !std::filesystem::exists(config.sqlite.path, error);
    auto sqlite = config.sqlite;
    sqlite.restored = options.restored;
    auto store = store::open_sqlite_store(std::move(sqlite), clock, random, executor);
    if (!store) die(store.error());
    const bool drawn = (*store)->of_another_file();
    (*store)->close();
    text = made ? fmt::format("There was no database at {}: an empty one was made.", config.sqlite.path) : "The database is of this version.";
    if (drawn) text += kNewIncarnation;
    out = {{"store", "sqlite"}, {"made", made}, {"new_incarnation", drawn}};
  } else {
    const auto done = store::migrate_postgres_database(config.postgres, random, options.restored);
    if (!done) die(done.error());
    text = done->from == done->to ? fmt::format("The database has schema {} already.", done->to)
                                  : fmt::format("The database has schema {} now; it had {}.", done->to, done->from);
    if (done->new_incarnation) text += kNewIncarnation;
    out = {{"store", "postgres"}, {"from", done->from}, {"to", done->to}, {"new_incarnation", done->new_incarnation}};
  }
  fmt::print("{}\n", options.json ? out.dump() : text);
}

void doctor(const Options& options) {
  const auto config = load_config_or_die(options.config, environment_with_store(options.store));
  RealClock clock;
  RealRandom random;
  RealExecutor executor(clock);
  std::vector<store::PostgresFinding> findings;
  using Level = store::PostgresFinding::Level;
  const auto check = [&](Status checked) {
    // What could not be read is not damaged.
    const bool damaged = !checked && checked.error().kind() == FailureKind::corrupt && !checked.error().code().starts_with("schema_");
    findings.push_back({checked ? Level::good : Level::error, "integrity", checked ? "good" : std::string(checked.error().detail()),
                        damaged ? "restore a backup; see docs/operations.md" : ""});
  };
  if (!config.postgres.url.empty()) {
    auto found = store::examine_postgres(config.postgres, clock);
    if (!found) die(found.error());
    findings = std::move(*found);
    if (options.full) check(store::check_postgres_database(config.postgres));
  } else {
    need_store(config);
    auto store = store::open_sqlite_store(config.sqlite, clock, random, executor);
    if (!store) die(store.error());
    findings.push_back({Level::good, "SQLite", config.sqlite.path, ""});
    if ((*store)->of_another_file())
      findings.push_back({Level::warning, "file", "another one than the database was in before: a copy, or a backup that was put in its place",
                          "nothing, if that was meant: a new incarnation was drawn just now, leases from before are void; what was "
                          "acknowledged after the copy was made is not in it"});
    check((*store)->integrity_check());
    (*store)->close();
  }
  bool healthy = true;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const auto& finding : findings) {
    const char* const level = finding.level == Level::good ? "good" : finding.level == Level::warning ? "warning" : "error";
    healthy = healthy && finding.level != Level::error;
    all.push_back({{"level", level}, {"what", finding.what}, {"found", finding.found}, {"advice", finding.advice}});
    if (options.json) continue;
    fmt::print("{:<8} {:<30} {}\n", level, finding.what, finding.found);
    if (!finding.advice.empty()) fmt::print("{:<8} {:<30} → {}\n", "", "", finding.advice);
  }
  if (options.json) fmt::print("{}\n", all.dump());
  if (!healthy) std::exit(1);
}

}  // namespace

server::Environment environment_with_store(const std::string& store) {
  auto environment = config_environment();
  if (!store.empty()) environment[store::is_postgres_url(store) ? "SLUICE_STORE_URL" : "SLUICE_STORE_PATH"] = store;
  return environment;
}

void need_store(const server::Config& config) {
  std::error_code error;
  if (!config.postgres.url.empty() || std::filesystem::exists(config.sqlite.path, error)) return;
  die({FailureKind::invalid_argument, "no_store",
       fmt::format("there is no store at {}; say where it is with --store, --config or SLUICE_STORE_PATH (`sluice serve` and "
                   "`sluice migrate` make one)", config.sqlite.path)});
}

void add_migrate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("migrate", "Makes or upgrades the database's schema");
  add_config_option(*command, options->config);
  command->add_option("--store", options->store, "Path of the SQLite database, or postgres://…");
  command->add_flag("--restored", options->restored, "The database was restored to an earlier point: leases from before are void");
  command->add_flag("--json", options->json, "For programs");
  command->footer("Nodes may run meanwhile: each schema suits the version before it.\n"
                  "Example: sluice migrate --store postgres://sluice@db.internal/orders");
  command->callback([options] { migrate(*options); });
}

void add_doctor(CLI::App& app) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("doctor", "Looks at the database and says what to change; status 1: an error");
  add_config_option(*command, options->config);
  command->add_option("--store", options->store, "Path of the SQLite database (of a stopped server), or postgres://…");
  command->add_flag("--full", options->full, "Also read every row (PostgreSQL; SQLite always does)");
  command->add_flag("--json", options->json, "For programs");
  command->footer("Example: sluice doctor --store postgres://sluice@db.internal/orders");
  command->callback([options] { doctor(*options); });
}

}  // namespace sluice::cli
