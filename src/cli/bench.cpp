// sluice bench: the benches of this build, each beside its limit in the same run.
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "bench/benches.hpp"
#include "cli/commands.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/server/tokens.hpp"

namespace sluice::cli {
namespace {

// A bench fills the database with rows of its own, and would join the nodes that work there.
void need_no_ones_database(const std::string& url) {
  server::Config config;
  config.postgres.url = url;
  RealClock clock;
  RealRandom random;
  RealExecutor executor(clock);
  auto store = server::open_store(config, clock, random, executor);
  if (!store) die(store.error());
  server::Tokens tokens(**store, random);
  if (const auto loaded = tokens.load(); !loaded) die(loaded.error());
  const auto* nodes = store::nodes_of(**store);
  const bool used = !tokens.list().empty() || (nodes != nullptr && nodes->living() > 1);
  (*store)->close();
  if (used)
    die({FailureKind::invalid_argument, "database_in_use",
         fmt::format("{} is a server's: it has tokens, or nodes live on it, and a bench fills it with rows of its own; give it an "
                     "empty database", store::without_password(url))});
}

}  // namespace

void add_bench(CLI::App& app) {
  auto* command = app.add_subcommand("bench", "Measures this machine, each bench beside its limit");
  command->require_subcommand(1);
  command->footer("Status 1: a note says WRONG. docs/benchmarks.md says what each measures and what it gave.\n"
                  "Examples:\n  sluice bench http\n  sluice bench durable --rounds 3 --seconds 0.5 --json");
  for (const auto& bench : sluice::bench::benches()) {
    auto options = std::make_shared<sluice::bench::Options>();
    auto* one = command->add_subcommand(std::string(bench.name), std::string(bench.what));
    one->add_flag("--json", options->json, "JSON lines: bench, case, threads, metric, unit, median, p99, min, max, rounds");
    one->add_option("--rounds", options->rounds, "Repetitions; medians are over these")->check(CLI::Range(1, 1000));
    one->add_option("--seconds", options->seconds, "Length of a round")->check(CLI::Range(0.01, 3600.0));
    if (bench.name == "durable" || bench.name == "growth" || bench.name == "idempotency" || bench.name == "voucher")
      one->add_option("--store", options->store, "postgres://… of an empty database: there instead of on SQLite");
    if (bench.name == "nodes") one->add_option("--store", options->store, "postgres://… of an empty database of this machine")->required();
    if (bench.name == "growth")
      one->add_option("--up-to", options->up_to, "Transactions in the largest database")->check(CLI::Range(1'000, 100'000'000))->capture_default_str();
    one->add_option("--directory", options->directory, "Where databases go (default /var/tmp)");
    one->footer(fmt::format("Example: sluice bench {}{} --rounds 5 --json", bench.name,
                            bench.name == "nodes" ? " --store 'postgres://sluice@/sluice?host=/run/postgresql'" : ""));
    one->callback([options, bench] {
      sluice::bench::Report report(std::string(bench.name), options->json);
      if (!options->directory.empty() && access(options->directory.c_str(), W_OK | X_OK) != 0)
        die({FailureKind::invalid_argument, "bad_directory",
             fmt::format("--directory {}: expected a folder that can be written to; {}", options->directory,
                         std::generic_category().message(errno))});
      if (!options->store.empty() && bench.name != "voucher") need_no_ones_database(options->store);  // that one makes its own
      bench.run(*options, report);
      if (report.wrong()) throw CLI::RuntimeError(1);
    });
  }
}

}  // namespace sluice::cli
