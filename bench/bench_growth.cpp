// What a durable transaction costs as the database grows, beside a young database in the same run,
// round by round: this machine's mood falls on both.
#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"

namespace sluice::bench {
namespace {

// An answered key of long ago: its row is read from the disk's pages, not from memory.
double replay_us(Rig& rig, std::uint64_t keys, int count) {
  const Stopwatch watch;
  std::uint64_t at = 12345;
  for (int i = 0; i < count; ++i) {
    at = at * 6364136223846793005ull + 1442695040888963407ull;
    const auto found = store::ask_now(*rig.store, store::FindKey{rig.scope_of(1 + (at >> 33) % keys)});
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
  const std::string grown_path = folder.path("grown.db");
  auto grown = std::make_unique<Rig>(grown_path);
  int number = 0;
  for (const std::uint64_t size : {1'000u, 10'000u, 100'000u, 1'000'000u}) {
    std::uint64_t missing = size > grown->next_key ? size - grown->next_key : 0;
    if (missing != 0) (void)run_round(*grown, 512, 3600, &missing);
    const std::uint64_t next_key = grown->next_key;
    grown.reset();
    const Stopwatch opening;
    grown = std::make_unique<Rig>(grown_path);
    const double opened_ms = opening.wall() * 1e3;
    grown->next_key = next_key;
    Rig young(folder.path("young" + std::to_string(number++) + ".db"));
    const std::string name = fmt::format("{:>9} transactions", size);
    for (const int callers : {1, 64}) {
      std::vector<double> rate, share, cpu_share;
      std::uint64_t failed = 0;
      (void)run_round(young, callers, options.seconds / 4);
      (void)run_round(*grown, callers, options.seconds / 4);
      for (int n = 0; n < options.rounds; ++n) {
        const Round small = run_round(young, callers, options.seconds);
        const Round large = run_round(*grown, callers, options.seconds);
        rate.push_back(large.per_second);
        share.push_back(large.per_second / small.per_second * 100);
        cpu_share.push_back(large.cpu_us / small.cpu_us * 100);
        failed += small.failed + large.failed;
      }
      report.add(name, callers, "rate", "1/s", rate);
      report.add(name, callers, "rate of young", "%", share);
      report.add(name, callers, "cpu of young", "%", cpu_share);
      if (failed != 0) report.note(fmt::format("WRONG: {} transactions did not commit", failed));
    }
    std::vector<double> replay;
    for (int n = 0; n < options.rounds; ++n) replay.push_back(replay_us(*grown, next_key, 2000));
    report.add(name, 1, "old key found", "us", replay);
    report.add(name, 1, "opening", "ms", {opened_ms});
    report.add(name, 1, "resident", "MiB", {resident_mib()});
  }
}

}  // namespace sluice::bench
