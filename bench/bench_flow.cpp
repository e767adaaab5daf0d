// The in-memory two-phase transaction: four synchronous stages, each with prepare and commit. Beside it the
// least that it can cost: the exchange made, and the same stages called in a loop.
#include <fmt/core.h>

#include "bench/benches.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/flow.hpp"

namespace sluice::bench {
namespace {

class CountingStage final : public flow::Stage {
 public:
  CountingStage(std::string name, std::uint64_t& count) : name_(std::move(name)), count_(count) {}
  std::string_view name() const noexcept override { return name_; }
  bool has_commit() const noexcept override { return true; }
  Result<flow::Vote> prepare(flow::Exchange&) override {
    ++count_;
    return flow::Vote();
  }
  Status commit(flow::Exchange&) override {
    ++count_;
    return {};
  }

 private:
  std::string name_;
  std::uint64_t& count_;
};

std::vector<flow::StagePtr> four_stages(std::uint64_t& calls) {
  std::vector<flow::StagePtr> stages;
  for (const char* name : {"check", "debit", "credit", "record"}) stages.push_back(std::make_shared<CountingStage>(name, calls));
  return stages;
}

// Prepares in order, then commits in order, of an exchange that is made and gone as in a flow.
double bare_calls(int times, IdSource& ids, std::uint64_t& calls) {
  const auto stages = four_stages(calls);
  const Namespace ns("bench");
  const Stopwatch watch;
  for (int i = 0; i < times; ++i) {
    const auto exchange = std::make_shared<flow::Exchange>(ids.exchange(), ns, Bytes());
    for (const auto& stage : stages)
      if (!stage->prepare(*exchange)) return 0;
    for (const auto& stage : stages)
      if (!stage->commit(*exchange)) return 0;
  }
  return watch.wall() * 1e9 / times;
}

struct Case {
  const char* name;
  bool profiled;
};

}  // namespace

void bench_flow(const Options& options, Report& report) {
  RealClock clock;
  Lane lane(clock);
  IdSource ids(clock, 1);
  constexpr int kBatch = 200'000;
  std::vector<double> bare;
  std::uint64_t bare_count = 0;
  for (int round = 0; round < options.rounds; ++round) bare.push_back(bare_calls(kBatch, ids, bare_count));
  report.add("limit: exchange, bare stage calls", 1, "time", "ns", bare);
  if (bare_count != static_cast<std::uint64_t>(options.rounds) * kBatch * 8) report.note("WRONG: the bare loop left stages out");
  for (const Case one : {Case{"four stages, commit", false}, Case{"the same, profiler on", true}}) {
    std::uint64_t calls = 0;
    std::size_t profiled = 0;
    flow::FlowOptions flow_options;
    if (one.profiled)
      flow_options.profiler = [&](const flow::Exchange&, const flow::Profile& p) { profiled += p.stages.size(); };
    flow::Flow flow("bench", std::move(flow_options));
    flow.group("main", four_stages(calls));
    std::vector<double> ns;
    std::uint64_t committed = 0;
    const Namespace ns_name("bench");
    for (int round = 0; round < options.rounds; ++round) {
      const Stopwatch watch;
      for (int i = 0; i < kBatch; ++i) {
        auto exchange = std::make_shared<flow::Exchange>(ids.exchange(), ns_name, Bytes());
        flow::RunOptions run;
        run.lane = &lane;
        flow.run(std::move(exchange), std::move(run),
                 [](void* count, flow::Outcome outcome) noexcept {
                   *static_cast<std::uint64_t*>(count) += outcome.kind == flow::OutcomeKind::committed ? 1 : 0;
                 },
                 &committed);
      }
      ns.push_back(watch.wall() * 1e9 / kBatch);
    }
    report.add(one.name, 1, "time", "ns", ns);
    const auto expected = static_cast<std::uint64_t>(options.rounds) * kBatch;
    if (committed != expected || calls != expected * 8)
      report.note(fmt::format("WRONG: {} of {} committed, {} stage calls", committed, expected, calls));
  }
  const double flow_ns = report.median("four stages, commit", 1, "time"), bare_ns = report.median("limit: exchange, bare stage calls", 1, "time");
  report.note(fmt::format("journal, votes and order cost {:.0f} ns above the bare calls ({:.1f} times)", flow_ns - bare_ns, flow_ns / bare_ns));
}

}  // namespace sluice::bench
