// What a durable transaction costs as the database grows, round by round beside another in the same run, so
// that this machine's mood falls on both: on SQLite a young database; on PostgreSQL plain transactions that
// write the same rows into the same tables.
#include "bench/bare_postgres.hpp"
#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"

namespace sluice::bench {
namespace {

// An answered key of long ago: its row is read from the disk's pages, not from memory.
double replay_us(Rig& rig, std::uint64_t first, std::uint64_t keys, int count) {
  const Stopwatch watch;
  std::uint64_t at = 12345;
  for (int i = 0; i < count; ++i) {
    at = at * 6364136223846793005ull + 1442695040888963407ull;
    const auto found = store::ask_now(*rig.store, store::FindKey{rig.scope_of(first + 1 + (at >> 33) % keys)});
    if (!found || !found->has_value()) return -1;
  }
  return watch.wall() * 1e6 / count;
}

double resident_mib() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long size = 0, resident = 0;
  const int got = std::fscanf(file, "%ld %ld", &size, &resident);
  std::fclose(file);
  return got == 2 ? static_cast<double>(resident) * 4096 / (1 << 20) : 0;
}

}  // namespace

void bench_growth(const Options& options, Report& report) {
  const WorkFolder folder(options);
  const bool postgres = !options.store.empty();
  const std::string grown_path = postgres ? options.store : folder.path("grown.db");
  auto grown = std::make_unique<Rig>(grown_path);
  const std::uint64_t first_key = grown->next_key;
  int number = 0;
  for (std::uint64_t size = 1'000; size <= options.up_to; size *= 10) {
    const std::uint64_t there = grown->next_key - first_key;
    if (std::uint64_t missing = size > there ? size - there : 0; missing != 0) (void)run_round(*grown, 512, 36'000, &missing);
    const std::uint64_t next_key = grown->next_key;
    grown.reset();
    const Stopwatch opening;
    grown = std::make_unique<Rig>(grown_path);
    const double opened_ms = opening.wall() * 1e3;
    grown->next_key = next_key;
    std::unique_ptr<Rig> young;
    if (!postgres) young = std::make_unique<Rig>(folder.path("young" + std::to_string(number++) + ".db"));
    const std::string name = fmt::format("{:>9} transactions", size);
    for (const int callers : {1, 64}) {
      std::vector<double> rate, share, cpu, cpu_share;
      std::uint64_t failed = 0;
      if (young) (void)run_round(*young, callers, options.seconds / 4);
      (void)run_round(*grown, callers, options.seconds / 4);
      for (int n = 0; n < options.rounds; ++n) {
        Round beside;
        if (young)
          beside = run_round(*young, callers, options.seconds);
        else
          beside.per_second = bare_commits(options.store, durable_rows(), callers, options.seconds, false).per_second;
        const Round large = run_round(*grown, callers, options.seconds);
        rate.push_back(large.per_second);
        share.push_back(large.per_second / beside.per_second * 100);
        cpu.push_back(large.cpu_us);
        cpu_share.push_back(large.cpu_us / beside.cpu_us * 100);
        failed += beside.failed + large.failed;
      }
      report.add(name, callers, "rate", "1/s", rate);
      report.add(name, callers, young ? "rate of young" : "rate of bare", "%", share);
      report.add(name, callers, "cpu", "us/op", cpu);
      if (young) report.add(name, callers, "cpu of young", "%", cpu_share);
      if (failed != 0) report.note(fmt::format("WRONG: {} transactions did not commit", failed));
    }
    std::vector<double> replay;
    for (int n = 0; n < options.rounds; ++n) replay.push_back(replay_us(*grown, first_key, next_key - first_key, 2000));
    report.add(name, 1, "old key found", "us", replay);
    report.add(name, 1, "opening", "ms", {opened_ms});
    report.add(name, 1, "resident", "MiB", {resident_mib()});
  }
}

}  // namespace sluice::bench
