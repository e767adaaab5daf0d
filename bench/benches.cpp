#include "bench/benches.hpp"

#include <array>

namespace sluice::bench {

std::span<const Bench> benches() {
  static constexpr std::array kBenches{
      Bench{"flow", "in-memory two-phase transaction of four stages", bench_flow},
      Bench{"durable", "durable transactions on SQLite (or --store), beside fdatasync and a bare loop", bench_durable},
      Bench{"growth", "the same as a database grows to a million transactions and keys", bench_growth},
      Bench{"idempotency", "claim, complete and replay of idempotency keys", bench_idempotency},
      Bench{"guard", "guarding a call: passing and refused, one and two threads", bench_guard},
      Bench{"http", "commands over HTTP, beside a bare Beast echo", bench_http},
      Bench{"nodes", "durable transactions of one, two and four nodes on one PostgreSQL", bench_nodes},
      Bench{"voucher", "flash sale: one hot voucher, 100,000 buyers, a stock of 1,000", bench_voucher},
      Bench{"stream", "messages of client streams, beside a bare gRPC stream", bench_stream},
  };
  return kBenches;
}

}  // namespace sluice::bench
