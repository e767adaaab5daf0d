// Durable transactions on SQLite: claim a key, run a store-only flow, one Commit with journal,
// reply, state and event. Beside it, in the same run: fdatasync alone, a bare SQLite loop that
// writes the same rows in groups of the same size, and the same loop with one commit each.
#include <fmt/core.h>

#include <memory>

#include "bench/bare_disk.hpp"
#include "bench/benches.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/flow.hpp"
#include "sluice/store/sqlite.hpp"

namespace sluice::bench {
namespace {

constexpr std::uint64_t kAccounts = 1000;
constexpr std::size_t kReplyBytes = 200;
constexpr std::size_t kEventBytes = 100;

std::string account(std::uint64_t n) {
  return fmt::format("account-{:05}", n * 0x9E3779B97F4A7C15ull % kAccounts);
}

// What every caller shares.
struct Rig {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  IdSource ids{clock, 1};
  LaneThread lane{clock, "bench"};
  std::unique_ptr<store::SqliteStore> store;
  std::unique_ptr<idempotency::Keys> keys;
  std::unique_ptr<flow::Flow> flow;
  Namespace ns{"bench"};
  std::uint64_t next_key = 0;

  explicit Rig(const std::string& path) {
    store::SqliteOptions options;
    options.path = path;
    auto opened = store::open_sqlite_store(options, clock, random, executor);
    if (!opened) throw std::runtime_error(opened.error().to_string());
    store = std::move(*opened);
    ids.advance_past(store->largest_id());
    keys = std::make_unique<idempotency::Keys>(clock, store.get());
    flow::FlowOptions flow_options;
    flow_options.store = store.get();
    flow_options.ids = &ids;
    flow = std::make_unique<flow::Flow>("bench", std::move(flow_options));
    flow->group("main", {flow::func("move", [](flow::Exchange& x) -> Result<flow::Vote> {
                  x.draft().add({x.ns().text(), "account", account(x.id().value)}, 1);
                  x.draft().publish("moved", Bytes(kEventBytes, 'e'));
                  x.respond(Reply::ok(Bytes(kReplyBytes, 'r')));
                  return flow::Vote();
                })});
    store::Commit accounts;
    for (std::uint64_t n = 0; n < kAccounts; ++n)
      accounts.then.push_back(store::KvPut{{"bench", "account", fmt::format("account-{:05}", n)}, "", 0});
    if (!store::commit_and_wait(*store, std::move(accounts))) throw std::runtime_error("accounts");
  }
};

// One caller: claims a key, runs the flow, and starts again until time is up.
struct Caller : idempotency::PendingClaim {
  Rig* rig = nullptr;
  const Stopwatch* watch = nullptr;
  double until = 0;
  double began = 0;
  std::vector<double>* latencies = nullptr;
  std::uint64_t* failed = nullptr;
  int* left = nullptr;
  Parker* all_done = nullptr;

  void next() {
    if (watch->wall() >= until) {
      if (--*left == 0) all_done->wake();
      return;
    }
    began = watch->wall();
    scope = idempotency::make_scope(rig->ns, "caller-1", "bench.move", 1,
                                          fmt::format("key-{:016}", ++rig->next_key));
    exchange = rig->ids.exchange();
    lane = &rig->lane.lane();
    run = [](Job* job) noexcept { static_cast<Caller*>(static_cast<idempotency::PendingClaim*>(job))->go(); };
    if (rig->keys->claim(*this)) go();
  }
  void go() {
    auto moving = std::make_shared<flow::Exchange>(exchange, rig->ns, Bytes());
    flow::RunOptions options;
    options.lane = &rig->lane.lane();
    options.claim = std::move(std::get<idempotency::Run>(*answer).claim);
    rig->flow->run(std::move(moving), std::move(options),
                   [](void* owner, flow::Outcome outcome) noexcept {
                     auto* self = static_cast<Caller*>(owner);
                     if (outcome.kind != flow::OutcomeKind::committed) ++*self->failed;
                     self->latencies->push_back((self->watch->wall() - self->began) * 1e6);
                     self->next();
                   },
                   this);
  }
};

struct Round {
  double per_second = 0, cpu_us = 0, p50 = 0, p99 = 0, group = 0;
  std::uint64_t failed = 0;
};

Round run_round(Rig& rig, int callers, double seconds) {
  std::vector<Caller> all(static_cast<std::size_t>(callers));
  std::vector<double> latencies;
  std::uint64_t failed = 0;
  int left = callers;
  Parker done;
  const auto before = rig.store->stats();
  const Stopwatch watch;
  for (auto& caller : all) {
    caller.rig = &rig;
    caller.watch = &watch;
    caller.until = seconds;
    caller.latencies = &latencies;
    caller.failed = &failed;
    caller.left = &left;
    caller.all_done = &done;
    rig.lane.lane().post([&caller] { caller.next(); });
  }
  rig.lane.start();
  done.park();
  Round round;
  const double wall = watch.wall(), cpu = watch.cpu();
  const auto after = rig.store->stats();
  const auto count = static_cast<double>(latencies.size());
  round.per_second = count / wall;
  round.cpu_us = cpu * 1e6 / count;
  round.p50 = percentile(latencies, 0.5);
  round.p99 = percentile(latencies, 0.99);
  round.group = static_cast<double>(after.commits - before.commits) / static_cast<double>(after.groups - before.groups);
  round.failed = failed;
  return round;
}

BareRows bare_rows() {
  // A decided record of this flow is about this long; scope and reply are exact.
  return {.journal_bytes = 75, .scope_bytes = 70, .reply_bytes = kReplyBytes + 10, .event_bytes = kEventBytes, .account = &account};
}

}  // namespace

void bench_durable(const Options& options, Report& report) {
  const WorkFolder folder(options);
  std::vector<double> sync_us;
  for (int round = 0; round < options.rounds; ++round)
    sync_us.push_back(bare_fdatasync(folder.path("sync"), 300) * 1e6);
  report.add("limit: fdatasync of 4 KiB", 1, "time", "us", sync_us);

  const std::string bare_path = folder.path("bare.db");
  { const Rig maker(bare_path); }
  Rig rig(folder.path("sluice.db"));
  std::vector<double> single;
  for (int round = 0; round < options.rounds; ++round)
    single.push_back(bare_sqlite(bare_path, bare_rows(), 1, 1000).per_second);
  report.add("limit: bare loop, one each", 1, "rate", "1/s", single);

  for (const int callers : {1, 16, 64, 512}) {
    std::vector<double> rate, cpu, p50, p99, group, bare, bare_cpu, ratio;
    std::uint64_t failed = 0;
    (void)run_round(rig, callers, options.seconds / 4);  // warm
    for (int n = 0; n < options.rounds; ++n) {
      const Round round = run_round(rig, callers, options.seconds);
      const int size = std::max(1, static_cast<int>(round.group + 0.5));
      const BareResult limit = bare_sqlite(bare_path, bare_rows(), size, std::max(200, 20'000 / size));
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
