// Claim, complete and replay, in memory; beside them the least any such store must do: SHA-256 of
// the payload, and a locked hash map.
#include <fmt/core.h>

#include <mutex>
#include <unordered_map>

#include "bench/benches.hpp"
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
}

}  // namespace sluice::bench
