// The benches behind `sluice bench`. Each measures its limit beside itself in the same run, and
// CPU time beside every rate.
#pragma once
#include <functional>
#include <span>
#include <string_view>

#include "bench/report.hpp"

namespace sluice::bench {

struct Bench {
  std::string_view name;
  std::string_view what;
  void (*run)(const Options& options, Report& report);
};

/// All benches, in the order they are listed.
std::span<const Bench> benches();

void bench_flow(const Options& options, Report& report);
void bench_durable(const Options& options, Report& report);
void bench_durable_postgres(const Options& options, Report& report);
void bench_growth(const Options& options, Report& report);
void bench_idempotency(const Options& options, Report& report);
void bench_http(const Options& options, Report& report);
void bench_voucher(const Options& options, Report& report);
void bench_nodes(const Options& options, Report& report);
void bench_stream(const Options& options, Report& report);
void bench_guard(const Options& options, Report& report);

}  // namespace sluice::bench
