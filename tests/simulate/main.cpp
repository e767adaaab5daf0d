// sluice_simulate: plays seeded histories and judges them. A failing seed prints the command that
// replays it.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "simulate/campaign.hpp"
#include "simulate/rare_paths.hpp"

namespace {

using namespace sluice::simulate;

void report(const HistoryOptions& options, const Verdict& verdict, const std::string& spine) {
  std::printf("seed %llu broke a promise:\n", static_cast<unsigned long long>(options.seed));
  for (const std::string& broken : verdict.violations) std::printf("  %s\n", broken.c_str());
  std::printf("replay: sluice_simulate --spine %s --store %s --seed %llu --print\n", spine.c_str(),
              std::string(to_string(options.backing)).c_str(),
              static_cast<unsigned long long>(options.seed));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Plays seeded histories of the spine and checks once, whole and honest.");
  HistoryOptions options;
  std::uint64_t histories = 1;
  std::string backing = "sqlite";
  std::string spine = default_spine();
  app.add_option("--seed", options.seed, "the first seed");
  app.add_option("--histories", histories, "how many seeds, counted up from the first");
  app.add_option("--store", backing, "memory, sqlite, or a database apart")
      ->check(CLI::IsMember({"memory", "sqlite", "database"}));
  app.add_option("--spine", spine, "what is driven")->check(CLI::IsMember(spine_names()));
  app.add_flag("--print", options.print, "every entry of the history");
  CLI11_PARSE(app, argc, argv);
  options.backing = *backing_named(backing);
  const SpineFactory factory = spine_named(spine);

  Verdict sum;
  std::uint64_t failed = 0;
  for (std::uint64_t i = 0; i < histories; ++i, ++options.seed) {
    options.externals = spine != "store";
    const Verdict verdict = run_history(options, factory);
    if (!verdict.violations.empty()) {
      ++failed;
      report(options, verdict, spine);
      if (failed >= 5) break;
    }
    sum.operations += verdict.operations;
    sum.attempts += verdict.attempts;
    sum.committed += verdict.committed;
    sum.declined += verdict.declined;
    sum.replayed += verdict.replayed;
    sum.crashes += verdict.crashes;
    sum.failed_opens += verdict.failed_opens;
    sum.partner_calls += verdict.partner_calls;
    sum.entries += verdict.entries;
    sum.hash = verdict.hash;
  }
  const auto n = [](std::uint64_t v) { return static_cast<unsigned long long>(v); };
  std::printf(
      "%llu histories: %llu operations, %llu attempts, %llu committed, %llu declined, %llu "
      "replayed, %llu crashes, %llu failed opens, %llu partner calls, %llu entries, last "
      "hash %016llx, %llu failed\n",
      n(histories), n(sum.operations), n(sum.attempts), n(sum.committed), n(sum.declined),
      n(sum.replayed), n(sum.crashes), n(sum.failed_opens), n(sum.partner_calls), n(sum.entries),
      n(sum.hash), n(failed));
  for (const auto& [name, hits] : sluice::probe_hits())
    std::printf("  probe %-40s %llu\n", name.c_str(), n(hits));
  for (const auto& path : never_taken()) std::printf("  probe %-40s never\n", path.c_str());
  return failed == 0 ? 0 : 1;
}
