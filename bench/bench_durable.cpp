// Durable transactions on SQLite: claim a key, run a store-only flow, one Commit with journal,
// reply, state and event. Beside it, in the same run: fdatasync alone, a bare SQLite loop that
// writes the same rows in groups of the same size, and the same loop with one commit each.
#include <fmt/core.h>

#include <algorithm>

#include "bench/bare_disk.hpp"
#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"

namespace sluice::bench {

void bench_durable(const Options& options, Report& report) {
  if (!options.store.empty()) return bench_durable_postgres(options, report);
  const WorkFolder folder(options);
  std::vector<double> sync_us;
  for (int round = 0; round < options.rounds; ++round)
    sync_us.push_back(bare_fdatasync(folder.path("sync"), 300) * 1e6);
  report.add("limit: fdatasync of 4 KiB", 1, "time", "us", sync_us);

  const std::string bare_path = folder.path("bare.db");
  { const Rig maker(bare_path); }
  Rig rig(folder.path("sluice.db"));
  std::vector<double> single, single_cpu;
  for (int round = 0; round < options.rounds; ++round) {
    const BareResult one = bare_sqlite(bare_path, durable_rows(), 1, 1000);
    single.push_back(one.per_second);
    single_cpu.push_back(one.cpu_us);
  }
  report.add("limit: bare loop, one each", 1, "rate", "1/s", single);
  report.add("limit: bare loop, one each", 1, "cpu", "us/op", single_cpu);

  for (const int callers : {1, 16, 64, 512}) {
    std::vector<double> rate, cpu, p50, p99, group, bare, bare_cpu, ratio;
    std::uint64_t failed = 0;
    (void)run_round(rig, callers, options.seconds / 4);  // warm
    for (int n = 0; n < options.rounds; ++n) {
      const Round round = run_round(rig, callers, options.seconds);
      const int size = std::max(1, static_cast<int>(round.group + 0.5));
      const int groups = static_cast<int>(20'000 * std::min(1.0, options.seconds) / size);
      const BareResult limit = bare_sqlite(bare_path, durable_rows(), size, std::max(200, groups));
      rate.push_back(round.per_second);
      cpu.push_back(round.cpu_us);
      p50.push_back(round.p50);
      p99.push_back(round.p99);
      group.push_back(round.group);
      bare.push_back(limit.per_second);
      bare_cpu.push_back(limit.cpu_us);
      ratio.push_back(round.per_second / limit.per_second * 100);
      failed += round.failed;
    }
    report.add("durable transaction", callers, "rate", "1/s", rate);
    report.add("durable transaction", callers, "p50", "us", p50);
    report.add("durable transaction", callers, "p99", "us", p99);
    report.add("durable transaction", callers, "cpu", "us/op", cpu);
    report.add("durable transaction", callers, "group", "commits", group);
    report.add("limit: bare loop, same groups", callers, "rate", "1/s", bare);
    report.add("limit: bare loop, same groups", callers, "cpu", "us/op", bare_cpu);
    report.add("share of the bare loop", callers, "rate", "%", ratio);
    if (failed != 0) report.note(fmt::format("WRONG: {} transactions did not commit", failed));
  }
  report.note(fmt::format("at 64 callers {:.1f} times one commit per transaction; one caller's p50 is {:.2f} fdatasyncs",
                          report.median("durable transaction", 64, "rate") / report.median("limit: bare loop, one each", 1, "rate"),
                          report.median("durable transaction", 1, "p50") / report.median("limit: fdatasync of 4 KiB", 1, "time")));
}

}  // namespace sluice::bench
