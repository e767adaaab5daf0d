// The durable bench on a PostgreSQL given with --store: the product, plain transactions one per
// connection on the same server, and the three designs of a group commit, all with the same rows.
#include <fmt/core.h>

#include "bench/bare_postgres.hpp"
#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"

namespace sluice::bench {

void bench_durable_postgres(const Options& options, Report& report) {
  const BareRows rows = durable_rows();
  Rig rig(options.store);
  const auto add = [&](const std::string& name, int callers, const PostgresResult& one, auto& into) {
    auto& [rate, p50, p99] = into[name + "#" + std::to_string(callers)];
    rate.push_back(one.per_second);
    p50.push_back(one.p50);
    p99.push_back(one.p99);
  };
  std::map<std::string, std::array<std::vector<double>, 3>> all;
  const auto tell = [&](const std::string& name, int callers) {
    auto& [rate, p50, p99] = all[name + "#" + std::to_string(callers)];
    report.add(name, callers, "rate", "1/s", rate);
    report.add(name, callers, "p50", "us", p50);
    report.add(name, callers, "p99", "us", p99);
  };
  constexpr std::pair<GroupDesign, const char*> kDesigns[] = {{GroupDesign::savepoints, "design: savepoints"},
                                                              {GroupDesign::one_sync, "design: one synchronous commit"},
                                                              {GroupDesign::multi_row, "design: multi-row statements"}};
  for (const int callers : {1, 16, 64}) {
    std::vector<double> rate, cpu, p50, p99, group, statements, trips;
    (void)run_round(rig, callers, options.seconds / 4);  // warm
    for (int n = 0; n < options.rounds; ++n) {
      const auto before = rig.store->stats();
      const Round round = run_round(rig, callers, options.seconds);
      const auto after = rig.store->stats();
      const double commits = static_cast<double>(after.commits - before.commits);
      rate.push_back(round.per_second);
      cpu.push_back(round.cpu_us);
      p50.push_back(round.p50);
      p99.push_back(round.p99);
      group.push_back(round.group);
      statements.push_back(static_cast<double>(after.statements - before.statements) / commits);
      trips.push_back(static_cast<double>(after.round_trips - before.round_trips) / commits);
      if (round.failed != 0) report.note(fmt::format("WRONG: {} transactions did not commit", round.failed));
      add("bare: one transaction per connection", callers, bare_commits(options.store, rows, callers, options.seconds, false), all);
      add("bare: the same, pipelined", callers, bare_commits(options.store, rows, callers, options.seconds, true), all);
      if (callers == 1) continue;
      for (const auto& [design, name] : kDesigns) add(name, callers, bare_groups(options.store, rows, design, callers, options.seconds), all);
    }
    report.add("durable transaction", callers, "rate", "1/s", rate);
    report.add("durable transaction", callers, "p50", "us", p50);
    report.add("durable transaction", callers, "p99", "us", p99);
    report.add("durable transaction", callers, "cpu", "us/op", cpu);
    report.add("durable transaction", callers, "group", "commits", group);
    report.add("durable transaction", callers, "statements", "1/op", statements);
    report.add("durable transaction", callers, "round trips", "1/op", trips);
    tell("bare: one transaction per connection", callers);
    tell("bare: the same, pipelined", callers);
    if (callers == 1) continue;
    for (const auto& [design, name] : kDesigns) tell(name, callers);
  }
  const double plain = report.median("bare: one transaction per connection", 64, "rate");
  report.note(fmt::format("at 64 callers {:.1f} times one transaction per connection ({:.1f} times a pipelined one)",
                          report.median("durable transaction", 64, "rate") / plain,
                          report.median("durable transaction", 64, "rate") / report.median("bare: the same, pipelined", 64, "rate")));
}

}  // namespace sluice::bench
