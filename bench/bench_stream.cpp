// Client streams: messages per second beside a bare gRPC stream, turn about; what the messages of other
// keys pay for a hot one; the memory of a stalled handler. The figures are for both ends together.
#include <fmt/core.h>

#include <cstdio>

#include "bench/stream_rig.hpp"

namespace sluice::bench {
namespace {

double resident_mb() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  long size = 0, resident = 0;
  const int got = std::fscanf(file, "%ld %ld", &size, &resident);
  std::fclose(file);
  return got == 2 ? static_cast<double>(resident) * 4096 / 1e6 : 0;
}

double percentile(std::vector<double>& values, double at) {
  if (values.empty()) return 0;
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(static_cast<double>(values.size() - 1) * at);
  std::ranges::nth_element(values, nth);
  return *nth;
}

// How long messages that take a millisecond each are in the pipeline, alone and while another client pours
// as many of one key as flow control lets it.
void hot_key(StreamRig& rig, const Options& options, Report& report) {
  rig.how.keys = 1000;
  rig.how.timed = true;
  rig.how.work = rig.hot.work = milliseconds(1);
  const auto count = static_cast<std::uint64_t>(std::max(5'000.0, options.seconds * 20'000));
  std::vector<double> idle, beside;
  for (int round = 0; round < options.rounds; ++round)
    for (const bool hot : {false, true}) {
      std::atomic<bool> enough{false};
      const auto poured = rig.hot.handled.load();
      Thread pouring;
      if (hot) pouring = Thread("hot", [&] { rig.push("/bench.Streams/Hot", UINT64_MAX, &enough); });
      Parker pause;
      while (hot && rig.hot.handled < poured + 10) pause.park(milliseconds(1));
      rig.how.waits_us.clear();
      rig.push("/bench.Streams/Piped", count);
      enough = true;
      if (pouring.joinable()) pouring.join();
      (hot ? beside : idle).push_back(percentile(rig.how.waits_us, 0.99));
    }
  rig.how.work = Duration::zero();
  rig.how.timed = false;
  report.add("1 ms of work, keys that are not hot, none is", 1, "p99", "us", idle);
  report.add("1 ms of work, keys that are not hot, beside a hot one", 1, "p99", "us", beside);
}

// The same two reactors without gRPC behind them: what the pipeline itself adds to a message.
void own_cost(StreamRig& rig, const std::string& name, std::uint64_t count, const Options& options, Report& report) {
  std::vector<double> beyond;
  for (int round = 0; round < options.rounds; ++round) {
    const double bare = rig.alone(false, count), piped = rig.alone(true, count);
    if (bare < 0 || piped < 0) report.note("WRONG: a reactor without gRPC did not take all messages");
    beyond.push_back(piped - bare);
  }
  report.add("pipeline without gRPC, " + name, 1, "time", "ns/message", beyond);
}

// A client that pushes against a handler that does nothing for a while.
void stalled(StreamRig& rig, const Options& options, Report& report) {
  constexpr std::uint64_t kCount = 200'000;
  rig.how.keys = 1000;
  rig.how.stalled = true;
  std::atomic<bool> ended{false}, well{false};
  Parker parker;
  double before = 0, after = 0;
  {
    Thread client("client", [&] {
      well = rig.push("/bench.Streams/Piped", kCount);
      ended = true;
      parker.wake();
    });
    parker.park(seconds(1));
    before = resident_mb();
    parker.park(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options.seconds * 5)));
    after = resident_mb();
    if (ended) report.note("WRONG: the client was not stopped by a handler that stands still");
    rig.how.stalled = false;
    rig.lane.lane().post([&] {
      for (auto& done : std::exchange(rig.how.held, {})) done();
    });
  }
  if (!well) report.note("WRONG: the stream did not end well after its handler went on");
  report.add("stalled handler, memory of both ends", 1, "growth", "MB", {after - before});
}

// Four clients that push while the pipeline is shut down: how long past its grace that takes.
void drain_under_load(const Options& options, Report& report) {
  constexpr Duration kGrace = milliseconds(300);
  std::vector<double> beyond;
  for (int round = 0; round < options.rounds; ++round) {
    StreamRig rig;
    rig.how.keys = 100;
    rig.how.work = milliseconds(5);
    std::vector<Thread> clients;
    for (int i = 0; i < 4; ++i) clients.emplace_back("client", [&rig] { rig.push("/bench.Streams/Piped", UINT64_MAX); });
    Parker pause;
    while (rig.how.handled < 1000) pause.park(milliseconds(1));
    Lifecycle lifecycle({.grace = kGrace});
    lifecycle.add(rig.pipeline);
    if (!lifecycle.start()) report.note("WRONG: the pipeline did not start");
    const Stopwatch watch;
    (void)block_on(rig.lane, lifecycle.shutdown());  // times out: the clients never close
    beyond.push_back((watch.wall() - std::chrono::duration<double>(kGrace).count()) * 1e3);
    clients.clear();
    const auto stats = rig.pipeline.stats();
    if (stats.accepted != stats.succeeded + stats.failed || stats.streams != 0)
      report.note(fmt::format("WRONG: {} messages accepted, {} told", stats.accepted, stats.succeeded + stats.failed));
  }
  report.add("drain under load, clients push on", 4, "beyond the grace", "ms", beyond);
}

// A round is that many streams of each kind, turn about: which of gRPC's threads reads a stream, and so
// its rate, is drawn anew for each.
constexpr std::uint64_t kSlices = 8;

}  // namespace

void bench_stream(const Options& options, Report& report) {
  StreamRig rig;
  const auto count = static_cast<std::uint64_t>(std::max(20'000.0, options.seconds * 300'000));
  if (!rig.push("/bench.Streams/Bare", 1000)) return report.note("WRONG: the bare stream does not work");
  for (const std::uint32_t keys : {1U, 100U, 10'000U}) {
    rig.how.keys = keys;
    std::vector<double> bare, piped, bare_cpu, piped_cpu, bare_new, piped_new, share;
    const double messages = static_cast<double>(count / kSlices * kSlices);
    for (int round = 0; round < options.rounds; ++round) {
      double bare_wall = 0, piped_wall = 0, bare_ns = 0, piped_ns = 0;
      std::uint64_t bare_allocated = 0, piped_allocated = 0;
      const auto before = rig.how.handled.load();
      for (std::uint64_t slice = 0; slice < kSlices; ++slice) {
        rig.how.allocated = 0;
        const Stopwatch one;
        rig.push("/bench.Streams/Bare", count / kSlices);
        bare_wall += one.wall();
        bare_ns += one.cpu() * 1e9;
        bare_allocated += rig.how.allocated.exchange(0);
        const Stopwatch other;
        rig.push("/bench.Streams/Piped", count / kSlices);
        piped_wall += other.wall();
        piped_ns += other.cpu() * 1e9;
        piped_allocated += rig.how.allocated;
      }
      bare.push_back(messages / bare_wall);
      piped.push_back(messages / piped_wall);
      share.push_back(100 * bare_wall / piped_wall);
      bare_cpu.push_back(bare_ns / messages);
      piped_cpu.push_back(piped_ns / messages);
      bare_new.push_back(static_cast<double>(bare_allocated) / messages);
      piped_new.push_back(static_cast<double>(piped_allocated) / messages);
      if (const auto got = static_cast<double>(rig.how.handled.load() - before); got != messages)
        report.note(fmt::format("WRONG: {} of {} messages were handled", got, messages));
    }
    const std::string name = fmt::format("{} key{}", keys, keys == 1 ? "" : "s");
    report.add("bare gRPC stream, " + name, 1, "rate", "messages/s", bare);
    report.add("bare gRPC stream, " + name, 1, "cpu", "ns/message", bare_cpu);
    report.add("pipeline, " + name, 1, "rate", "messages/s", piped);
    report.add("pipeline, " + name, 1, "cpu", "ns/message", piped_cpu);
    report.add("bare gRPC stream, " + name, 1, "allocations", "a message", bare_new);
    report.add("pipeline, " + name, 1, "allocations", "a message", piped_new);
    report.add("pipeline, " + name, 1, "of the bare rate", "%", share);
    own_cost(rig, name, count, options, report);
  }
  hot_key(rig, options, report);
  stalled(rig, options, report);
  drain_under_load(options, report);
}
}  // namespace sluice::bench
