// What guarding a call costs: entering and completing on one protector with the usual policies on,
// passing and refused, on one and two threads, on distinct protectors and on one. Times are of the
// threads' own CPU, so that a busy machine does not count.
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "bench/allocations.hpp"
#include "bench/benches.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/resilience.hpp"

namespace sluice::bench {
namespace {

using namespace resilience;

constexpr int kCalls = 500'000;
// The caller reads the clock once in so many calls, as a lane does once a turn.
constexpr int kBatch = 64;

constexpr std::string_view kUsual = R"(
[guard."*".breaker]
window_time = "10s"
[guard."*".rate]
limit = 1000000000
[guard."*".bulkhead]
limit = 256
[guard."*".timeout]
timeout = "1s"
[guard."*".retry]
attempts = 3
)";
constexpr std::string_view kAll = R"(
[guard."*".throttle]
window = "10s"
[guard."*".hot_keys]
limit = 1000000000
[guard."*".pacing]
limit = 1000000000
max_wait = "1h"
)";
constexpr std::string_view kNoPlaces = "[guard.\"*\".bulkhead]\nlimit = 0\n";
constexpr std::string_view kNoTokens = "[guard.\"*\".rate]\nlimit = 0\n";

double thread_cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

struct Sample {
  double ns = 0;
  double allocations = 0;
  std::uint64_t passed = 0;
};

Sample drive(Protector& protector, Clock& clock, std::string_view hot_key, int clock_every,
             int failing) {
  CallInfo call;
  call.hot_key = hot_key;
  Sample sample;
  const std::uint64_t before = allocations();
  const double start = thread_cpu_ns();
  int until_clock = 1;
  for (int i = 0; i < kCalls; ++i) {
    if (--until_clock == 0) {
      call.now = clock.now();
      until_clock = clock_every;
    }
    auto permit = protector.try_enter(call);
    if (permit) {
      ++sample.passed;
      permit->complete(i == failing ? Outcome::failure : Outcome::success, call.now);
    }
  }
  sample.ns = (thread_cpu_ns() - start) / kCalls;
  sample.allocations = static_cast<double>(allocations() - before) / kCalls;
  return sample;
}

struct Case {
  std::string name;
  std::string rules;
  bool passes = true;
  bool breaker_open = false;
  int threads = 1;
  bool one_protector = false;
  std::string_view hot_key;
  int clock_every = kBatch;
  bool one_failed = false;
};

/// The least disturbed round, in nanoseconds.
double run_case(const Case& one, const Options& options, Report& report) {
  RealClock clock;
  RealRandom random;
  std::vector<double> ns, allocated;
  std::uint64_t passed = 0;
  for (int round = 0; round < options.rounds; ++round) {
    Guards guards(clock, random);
    auto rules = parse_rules(one.rules, "bench");
    if (!rules || !guards.reload(std::move(*rules))) {
      report.note("WRONG: the rules are bad");
      return 0;
    }
    std::vector<Sample> samples(static_cast<std::size_t>(one.threads));
    std::atomic<int> ready{0};
    std::vector<Thread> threads;
    for (int t = 0; t < one.threads; ++t) {
      Protector& protector = guards.find(one.one_protector ? "bench" : fmt::format("bench.{}", t));
      if (one.breaker_open)
        (void)protector.breaker()->force(BreakerState::forced_open, clock.now());
      threads.emplace_back("bench", [&, t] {
        ready.fetch_add(1);
        while (ready.load() < one.threads) {
        }
        samples[static_cast<std::size_t>(t)] =
            drive(protector, clock, one.hot_key, one.clock_every, one.one_failed ? 0 : -1);
      });
    }
    for (Thread& thread : threads) thread.join();
    for (const Sample& sample : samples) {
      ns.push_back(sample.ns);
      allocated.push_back(sample.allocations);
      passed += sample.passed;
    }
  }
  report.add(one.name, one.threads, "cpu per call", "ns", ns);
  report.add(one.name, one.threads, "allocations per call", "", allocated);
  const auto calls =
      static_cast<std::uint64_t>(options.rounds) * kCalls * static_cast<std::uint64_t>(one.threads);
  if (passed != (one.passes ? calls : 0))
    report.note(fmt::format("WRONG: {}: {} of {} calls passed", one.name, passed, calls));
  return *std::ranges::min_element(ns);
}

// The least an exact guard could do: read the clock, or take and give one lock.
void limits(const Options& options, Report& report) {
  RealClock clock;
  std::vector<double> reads, adds;
  for (int round = 0; round < options.rounds; ++round) {
    double start = thread_cpu_ns();
    for (int i = 0; i < kCalls; ++i) (void)clock.now();
    reads.push_back((thread_cpu_ns() - start) / kCalls);
    std::atomic<std::uint64_t> word{0};
    start = thread_cpu_ns();
    for (int i = 0; i < kCalls; ++i) word.fetch_add(1);
    adds.push_back((thread_cpu_ns() - start) / kCalls);
  }
  report.add("beside: one clock read", 1, "cpu per call", "ns", reads);
  report.add("beside: one atomic addition", 1, "cpu per call", "ns", adds);
}

}  // namespace

void bench_guard(const Options& options, Report& report) {
  const std::string usual(kUsual);
  const std::string all = usual + std::string(kAll);
  const std::string full =
      "[guard.\"*\".breaker]\n[guard.\"*\".rate]\nlimit = 1000000000\n" + std::string(kNoPlaces);
  const std::string spent =
      "[guard.\"*\".breaker]\n[guard.\"*\".bulkhead]\n" + std::string(kNoTokens);
  limits(options, report);
  const std::vector<Case> cases{
      {.name = "no rule", .rules = ""},
      {.name = "pass", .rules = usual},
      {.name = "pass, clock read by each call", .rules = usual, .clock_every = 1},
      {.name = "pass, a failure in the window", .rules = usual, .one_failed = true},
      {.name = "pass, all eight policies", .rules = all, .hot_key = "voucher-1"},
      {.name = "refused by the breaker", .rules = usual, .passes = false, .breaker_open = true},
      {.name = "refused by the rate limit", .rules = spent, .passes = false},
      {.name = "refused by the bulkhead", .rules = full, .passes = false},
      {.name = "pass, distinct protectors", .rules = usual, .threads = 2},
      {.name = "pass, one protector", .rules = usual, .threads = 2, .one_protector = true},
      {.name = "refused, one protector",
       .rules = usual,
       .passes = false,
       .breaker_open = true,
       .threads = 2,
       .one_protector = true},
  };
  double alone = 0, beside = 0;
  for (const Case& one : cases) {
    const double least = run_case(one, options, report);
    if (one.name == "pass") alone = least;
    if (one.name == "pass, distinct protectors") beside = least;
  }
  report.note(
      fmt::format("usual policies: breaker, rate, bulkhead, timeout, retry; two threads on "
                  "distinct protectors cost {:.2f} times one, least disturbed rounds (aim: 1.3)",
                  alone > 0 ? beside / alone : 0));
}

}  // namespace sluice::bench
