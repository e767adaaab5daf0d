// The in-memory two-phase transaction: four synchronous stages, each with prepare and commit.
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
  for (const Case one : {Case{"four stages, commit", false}, Case{"the same, profiler on", true}}) {
    std::uint64_t calls = 0;
    std::size_t profiled = 0;
    flow::FlowOptions flow_options;
    if (one.profiled)
      flow_options.profiler = [&](const flow::Exchange&, const flow::Profile& p) { profiled += p.stages.size(); };
    flow::Flow flow("bench", std::move(flow_options));
    std::vector<flow::StagePtr> stages;
    for (const char* name : {"check", "debit", "credit", "record"})
      stages.push_back(std::make_shared<CountingStage>(name, calls));
    flow.group("main", stages);
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
}

}  // namespace sluice::bench
