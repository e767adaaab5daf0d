// Claim, complete and replay, in memory; beside them the least any such store must do: SHA-256 of
// the payload, and a locked hash map. Then on a database: each key claimed, and completed by a Commit of its
// own; answered again from the database; beside them whole transactions, and on PostgreSQL plain ones.
#include <fmt/core.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "bench/bare_postgres.hpp"
#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/idempotency/keys.hpp"

namespace sluice::bench {
namespace {

constexpr int kBatch = 20'000;

struct Inputs {
  std::vector<Bytes> scopes;
  Bytes payload = Bytes(256, 'p');
  Bytes reply = Bytes(200, 'r');
};

Inputs make_inputs(int count) {
  Inputs in;
  const Namespace ns("bench");
  for (int i = 0; i < count; ++i)
    in.scopes.push_back(
        idempotency::make_scope(ns, "caller-1", "bench.command", 1, fmt::format("key-{:012}", i)));
  return in;
}

// Nanoseconds per operation over `count` calls of `body(i)`.
template <class Body>
double ns_per(int count, const Body& body) {
  const Stopwatch watch;
  for (int i = 0; i < count; ++i) body(i);
  return watch.wall() * 1e9 / count;
}

bool run_one(idempotency::Keys& keys, const Inputs& in, std::size_t index, const Digest& fingerprint) {
  idempotency::PendingClaim pending;
  pending.scope = in.scopes[index];
  pending.fingerprint = fingerprint;
  pending.exchange = ExchangeId{index + 1};
  if (!keys.claim(pending) || !pending.answer) return false;
  auto* run = std::get_if<idempotency::Run>(&*pending.answer);
  if (run == nullptr) return false;
  run->claim.completed(in.reply);
  return true;
}

// Claims a key, completes it by a Commit, and starts again until time is up.
struct DurableKey : idempotency::PendingClaim {
  struct Completing : store::PendingCommit {
    DurableKey* key = nullptr;
  };
  Rig* rig = nullptr;
  const Stopwatch* watch = nullptr;
  double until = 0;
  std::vector<double>* latencies = nullptr;
  std::uint64_t* failed = nullptr;
  int* left = nullptr;
  Parker* all_done = nullptr;
  double began = 0;
  Completing completing;
  idempotency::Claim held;

  void next() {
    if (watch->wall() >= until) {
      if (--*left == 0) all_done->wake();
      return;
    }
    began = watch->wall();
    scope = rig->scope_of(++rig->next_key);
    exchange = rig->ids.exchange();
    lane = &rig->lane.lane();
    run = [](Job* job) noexcept { static_cast<DurableKey*>(static_cast<idempotency::PendingClaim*>(job))->claimed(); };
    if (rig->keys->claim(*this)) claimed();
  }
  void claimed() {
    held = std::move(std::get<idempotency::Run>(*answer).claim);
    completing.key = this;
    completing.commit = {};
    completing.lane = lane;
    completing.run = [](Job* job) noexcept { static_cast<Completing*>(static_cast<store::PendingCommit*>(job))->key->completed(); };
    held.complete_in(completing.commit, Bytes(kReplyBytes, 'r'));
    rig->store->submit(completing);
  }
  void completed() {
    if (completing.outcome && completing.outcome->applied) {
      held.completed(Bytes(kReplyBytes, 'r'));
    } else {
      ++*failed;
      held.release();
    }
    latencies->push_back((watch->wall() - began) * 1e6);
    next();
  }
};

Round keys_round(Rig& rig, int callers, double seconds) {
  return play_round<DurableKey>(rig, callers, seconds, [](DurableKey&) {});
}

void on_a_database(const Options& options, Report& report) {
  const WorkFolder folder(options);
  const bool postgres = !options.store.empty();
  Rig rig(postgres ? options.store : folder.path("keys.db"));
  const std::string where = postgres ? "PostgreSQL" : "SQLite";
  const std::uint64_t none_yet = rig.next_key;
  for (const int callers : {1, 64}) {
    std::vector<double> rate, cpu, p50, p99, whole, bare;
    std::uint64_t failed = 0;
    (void)keys_round(rig, callers, options.seconds / 4);
    for (int n = 0; n < options.rounds; ++n) {
      const Round round = keys_round(rig, callers, options.seconds);
      rate.push_back(round.per_second);
      cpu.push_back(round.cpu_us);
      p50.push_back(round.p50);
      p99.push_back(round.p99);
      failed += round.failed;
      whole.push_back(run_round(rig, callers, options.seconds).per_second);
      if (postgres) bare.push_back(bare_commits(options.store, durable_rows(), callers, options.seconds, false).per_second);
    }
    report.add(where + ": claim and complete", callers, "rate", "1/s", rate);
    report.add(where + ": claim and complete", callers, "cpu", "us/op", cpu);
    report.add(where + ": claim and complete", callers, "p50", "us", p50);
    report.add(where + ": claim and complete", callers, "p99", "us", p99);
    report.add("beside: whole transactions", callers, "rate", "1/s", whole);
    if (postgres) report.add("beside: one plain transaction per connection", callers, "rate", "1/s", bare);
    if (failed != 0) report.note(fmt::format("WRONG: {} keys were not completed", failed));
  }
  std::vector<double> found;
  std::uint64_t misses = 0;
  const int finished = static_cast<int>(std::min<std::uint64_t>(rig.next_key - none_yet, 2'000));  // a short round finishes few
  for (int n = 0; n < options.rounds; ++n)
    found.push_back(ns_per(finished, [&](int i) {
      const auto row = store::ask_now(*rig.store, store::FindKey{rig.scope_of(rig.next_key - static_cast<std::uint64_t>(i))});
      misses += row && row->has_value() ? 0 : 1;
    }) / 1e3);
  report.add(where + ": finished key read", 1, "time", "us", found);
  if (misses != 0) report.note(fmt::format("WRONG: {} finished keys were not found", misses));
}

}  // namespace

void bench_idempotency(const Options& options, Report& report) {
  const Inputs in = make_inputs(kBatch);
  const Digest fingerprint = sha256(in.payload);
  RealClock clock;
  std::vector<double> fresh, hit, full, hash, map;
  std::uint64_t misses = 0;
  for (int round = 0; round < options.rounds; ++round) {
    idempotency::KeysOptions bounds;
    bounds.max_entries = kBatch * 2;
    idempotency::Keys keys(clock, nullptr, bounds);
    fresh.push_back(ns_per(kBatch, [&](int i) {
      misses += run_one(keys, in, static_cast<std::size_t>(i), fingerprint) ? 0 : 1;
    }));
    hit.push_back(ns_per(kBatch, [&](int i) {
      const auto cached = keys.lookup(in.scopes[static_cast<std::size_t>(i)]);
      misses += cached && cached->reply.size() == in.reply.size() ? 0 : 1;
    }));
    full.push_back(ns_per(kBatch, [&](int i) {
      const Digest mine = sha256(in.payload);
      const auto cached = keys.lookup(in.scopes[static_cast<std::size_t>(i)]);
      misses += cached && cached->fingerprint == mine ? 0 : 1;
    }));
    hash.push_back(ns_per(kBatch, [&](int) { misses += sha256(in.payload) == fingerprint ? 0 : 1; }));
    std::mutex mutex;
    std::unordered_map<Bytes, Bytes> bare;
    for (const auto& scope : in.scopes) bare.emplace(scope, in.reply);
    map.push_back(ns_per(kBatch, [&](int i) {
      const std::scoped_lock lock(mutex);
      misses += bare.find(in.scopes[static_cast<std::size_t>(i)]) != bare.end() ? 0 : 1;
    }));
  }
  report.add("memory: claim and complete", 1, "time", "ns", fresh);
  report.add("memory: lookup of a finished key", 1, "time", "ns", hit);
  report.add("memory: lookup and fingerprint", 1, "time", "ns", full);
  report.add("limit: SHA-256 of 256 bytes", 1, "time", "ns", hash);
  report.add("limit: mutex and unordered_map", 1, "time", "ns", map);
  if (misses != 0) report.note(fmt::format("WRONG: {} operations did not answer as they must", misses));
  on_a_database(options, report);
}

}  // namespace sluice::bench
