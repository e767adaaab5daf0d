// Commands over HTTP, server and load each on a process of its own; beside them, in the same run, a
// bare Beast echo under the same load, and durable transactions without HTTP: what a command may cost
// is twice one of those and one echo.
#include <fmt/core.h>
#include <unistd.h>

#include <memory>

#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"
#include "bench/http_load.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/server/server.hpp"

namespace sluice::bench {
namespace {

struct Address {
  std::uint16_t port = 0;
  char token[128] = {};
};

Address read_address(int fd) {
  Address address;
  if (read(fd, &address, sizeof address) != sizeof address) throw std::runtime_error("the server did not start");
  return address;
}

int serve(const std::string& database, int ready) {
  auto config = server::load_config("", {{"SLUICE_HTTP_PORT", "0"}, {"SLUICE_LOG_LEVEL", "error"}});
  if (!config) return 1;
  config->sqlite.path = database;
  Address address;
  server::ServerParts parts;
  parts.first_token = [&](const std::string& token) { token.copy(address.token, sizeof address.token - 1); };
  auto opened = server::Server::open(std::move(*config), std::move(parts));
  if (!opened || !(*opened)->start()) return 1;
  address.port = (*opened)->port();
  if (write(ready, &address, sizeof address) != sizeof address) return 1;
  Parker forever;
  forever.park();
  return 0;
}

std::string command(const Address& address, const std::string& key) {
  const std::string body = R"({"collection":"bench","key":"counter-)" + key.substr(key.size() - 2) + R"(","delta":1})";
  return "POST /v1/commands/kv.add HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer " +
         std::string(address.token) + "\r\nIdempotency-Key: " + key + "\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

struct Measured {
  std::vector<double> rate, cpu, p50, p99;
};

void measure(const Options& options, Report& report, const Child& child, std::uint16_t port, int connections,
             const std::function<std::string(std::uint64_t)>& request, Measured& out) {
  const double before = child.cpu();
  const LoadResult result = http_load(port, connections, options.seconds, request);
  const auto count = static_cast<double>(result.answered);
  out.rate.push_back(count / result.seconds);
  out.cpu.push_back((child.cpu() - before) * 1e6 / count);
  out.p50.push_back(percentile(result.latency_us, 0.5));
  out.p99.push_back(percentile(result.latency_us, 0.99));
  if (result.failed != 0) report.note(fmt::format("WRONG: {} of {} failed", result.failed, result.answered));
}

void add(Report& report, const std::string& name, int connections, const Measured& m) {
  report.add(name, connections, "rate", "1/s", m.rate);
  report.add(name, connections, "server cpu", "us/op", m.cpu);
  report.add(name, connections, "p50", "us", m.p50);
  report.add(name, connections, "p99", "us", m.p99);
}

}  // namespace

void bench_http(const Options& options, Report& report) {
  const WorkFolder folder(options);
  int echo_pipe[2], server_pipe[2];
  if (pipe(echo_pipe) != 0 || pipe(server_pipe) != 0) throw std::runtime_error("pipe");
  const Child echo([&] {
    bare_beast_echo([&](std::uint16_t port) {
      const Address address{port, {}};
      (void)!write(echo_pipe[1], &address, sizeof address);
    });
    return 0;
  });
  const Child server([&] { return serve(folder.path("sluice.db"), server_pipe[1]); });
  const Address bare = read_address(echo_pipe[0]), real = read_address(server_pipe[0]);
  constexpr int kConnections = 64;
  Rig rig(folder.path("durable.db"));  // after the children: a process that forks has one thread
  Measured echoed, replayed, fresh;
  std::vector<double> durable_rate, durable_cpu;
  std::uint64_t next = 0;
  for (int round = 0; round < options.rounds; ++round) {
    // The echo gets the very bytes of the replayed command.
    measure(options, report, echo, bare.port, kConnections, [&](std::uint64_t) { return command(real, "replay-00"); }, echoed);
    measure(options, report, server, real.port, kConnections, [&](std::uint64_t n) { return command(real, fmt::format("replay-{:02}", n % 50)); }, replayed);
    measure(options, report, server, real.port, kConnections, [&](std::uint64_t) { return command(real, fmt::format("fresh-{:012}", ++next)); }, fresh);
    const Round durable = run_round(rig, kConnections, options.seconds);
    durable_rate.push_back(durable.per_second);
    durable_cpu.push_back(durable.cpu_us);
  }
  add(report, "limit: bare Beast echo", kConnections, echoed);
  add(report, "replay of a finished command", kConnections, replayed);
  add(report, "fresh durable command", kConnections, fresh);
  report.add("durable transaction, no HTTP", kConnections, "rate", "1/s", durable_rate);
  report.add("durable transaction, no HTTP", kConnections, "cpu", "us/op", durable_cpu);
  report.note(fmt::format("replay is {:.0f} % of the bare echo",
                          percentile(replayed.rate, 0.5) / percentile(echoed.rate, 0.5) * 100));
  const double cost = percentile(fresh.cpu, 0.5), durable = percentile(durable_cpu, 0.5), echo_cpu = percentile(echoed.cpu, 0.5);
  const double limit = 2 * durable + echo_cpu;
  report.note(fmt::format("a fresh command costs the server {:.1f} us of CPU; its limit is 2 x {:.1f} (durable) + {:.1f} (echo) = {:.1f} us: {} ({:.0f} %)",
                          cost, durable, echo_cpu, limit, cost <= limit ? "kept" : "NOT KEPT", cost / limit * 100));
}

}  // namespace sluice::bench
