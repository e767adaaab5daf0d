// Durable transactions as the benches run them: claim a key, run a store-only flow, one Commit with
// journal, reply, state and event; many callers on one lane.
#pragma once
#include <fmt/core.h>

#include <memory>

#include "bench/bare_disk.hpp"
#include "bench/report.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/flow.hpp"
#include "sluice/store/postgres.hpp"
#include "sluice/store/sqlite.hpp"

namespace sluice::bench {

inline constexpr std::uint64_t kAccounts = 1000;
inline constexpr std::size_t kReplyBytes = 200;
inline constexpr std::size_t kEventBytes = 100;

inline std::string account(std::uint64_t n) {
  return fmt::format("account-{:05}", n * 0x9E3779B97F4A7C15ull % kAccounts);
}

/// The rows of one of these transactions: a decided record of this flow is about this long; scope and reply are exact.
inline BareRows durable_rows() {
  return {.journal_bytes = 75, .scope_bytes = 70, .reply_bytes = kReplyBytes + 10, .event_bytes = kEventBytes, .account = &account};
}

// What every caller shares.
struct Rig {
  RealClock clock;
  RealRandom random;
  RealExecutor executor{clock};
  IdSource ids;
  LaneThread lane{clock, "bench"};
  std::unique_ptr<store::Store> store;
  std::unique_ptr<idempotency::Keys> keys;
  std::unique_ptr<flow::Flow> flow;
  Namespace ns;
  std::uint64_t next_key = 0;

  Bytes scope_of(std::uint64_t key) const {
    return idempotency::make_scope(ns, "caller-1", "bench.move", 1, fmt::format("key-{:016}", key));
  }

  /// `node` keeps several on one database apart: their ids, keys and accounts.
  explicit Rig(const std::string& path, int node = 0)
      : ids(clock, static_cast<std::uint16_t>(1 + node)), ns(node == 0 ? "bench" : fmt::format("bench{}", node)) {
    const auto keep = [this](auto opened) {
      if (!opened) throw std::runtime_error(opened.error().to_string());
      store = std::move(*opened);
    };
    if (store::is_postgres_url(path)) {
      store::PostgresOptions options;
      options.url = path;
      keep(store::open_postgres_store(options, clock, random, executor));
      // Keys of an earlier run on the same database are not met again.
      next_key = static_cast<std::uint64_t>(clock.wall().time_since_epoch().count()) * 1'000'000;
    } else {
      store::SqliteOptions options;
      options.path = path;
      keep(store::open_sqlite_store(options, clock, random, executor));
    }
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
      accounts.then.push_back(store::KvPut{{ns.text(), "account", fmt::format("account-{:05}", n)}, "", 0});
    if (!store::commit_and_wait(*store, std::move(accounts))) throw std::runtime_error("accounts");
  }
};

// One caller: claims a key, runs the flow, and starts again until time is up.
struct Caller : idempotency::PendingClaim {
  Rig* rig = nullptr;
  const Stopwatch* watch = nullptr;
  double until = 0;
  std::uint64_t* budget = nullptr;  ///< transactions left to run; null: no such limit
  double began = 0;
  std::vector<double>* latencies = nullptr;
  std::uint64_t* failed = nullptr;
  int* left = nullptr;
  Parker* all_done = nullptr;

  void next() {
    if (watch->wall() >= until || (budget != nullptr && *budget == 0)) {
      if (--*left == 0) all_done->wake();
      return;
    }
    if (budget != nullptr) --*budget;
    began = watch->wall();
    scope = rig->scope_of(++rig->next_key);
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

/// So many callers of one kind at once, for so many seconds. `set` gives each what is its kind's own.
template <class One, class Set>
Round play_round(Rig& rig, int callers, double seconds, const Set& set) {
  std::vector<One> all(static_cast<std::size_t>(callers));
  std::vector<double> latencies;
  std::uint64_t failed = 0;
  int left = callers;
  Parker done;
  const auto before = rig.store->stats();
  const Stopwatch watch;
  for (auto& one : all) {
    one.rig = &rig;
    one.watch = &watch;
    one.until = seconds;
    one.latencies = &latencies;
    one.failed = &failed;
    one.left = &left;
    one.all_done = &done;
    set(one);
    rig.lane.lane().post([&one] { one.next(); });
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

/// For so many seconds, or until `budget` transactions are done.
inline Round run_round(Rig& rig, int callers, double seconds, std::uint64_t* budget = nullptr) {
  return play_round<Caller>(rig, callers, seconds, [budget](Caller& caller) { caller.budget = budget; });
}

}  // namespace sluice::bench
