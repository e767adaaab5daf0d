// Throughput with the number of nodes on one PostgreSQL of this machine, and what a transaction costs a node and what it
// costs the database: from these follows what more processors would give (docs/benchmarks.md).
#include <dirent.h>
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"
#include "bench/http_load.hpp"

namespace sluice::bench {
namespace {

constexpr int kCallers = 64;  // of each node

/// CPU seconds of all processes called postgres. Those that end meanwhile are missed.
double postgres_cpu() {
  double ticks = 0;
  DIR* all = opendir("/proc");
  while (const dirent* entry = all != nullptr ? readdir(all) : nullptr) {
    std::ifstream file(fmt::format("/proc/{}/stat", entry->d_name));
    std::string line;
    if (!std::getline(file, line) || line.find("(postgres)") == std::string::npos) continue;
    std::array<unsigned long long, 2> used{};
    if (std::sscanf(line.c_str() + line.rfind(')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &used[0], &used[1]) == 2)
      ticks += static_cast<double>(used[0] + used[1]);
  }
  if (all != nullptr) closedir(all);
  return ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// One node in a process of its own: opens, says so, waits for the others, plays.
class Node {
 public:
  Node(const Options& options, int number)
      : child_([&, number] {
          Rig rig(options.store, number);
          (void)run_round(rig, kCallers, options.seconds / 4);  // warm
          char go = 1;
          if (write(ready_[1], &go, 1) != 1 || read(start_[0], &go, 1) != 1) return 1;
          const Round round = run_round(rig, kCallers, options.seconds);
          return write(ready_[1], &round, sizeof round) == sizeof round ? 0 : 1;
        }) {}
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node() {
    for (const int fd : {ready_[0], ready_[1], start_[0], start_[1]}) close(fd);
  }
  void wait_ready() { get(1); }
  void start() { (void)!write(start_[1], "g", 1); }
  Round result() {
    Round round;
    const std::string bytes = get(sizeof round);
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(&round));
    return round;
  }

 private:
  struct Pipe {
    int ends[2];
    Pipe() {
      if (pipe(ends) != 0) throw std::runtime_error("pipe");
    }
    int operator[](int i) const { return ends[i]; }
  };
  std::string get(std::size_t bytes) {
    std::string all(bytes, '\0');
    if (read(ready_[0], all.data(), bytes) != static_cast<ssize_t>(bytes)) throw std::runtime_error("a node of the bench ended");
    return all;
  }
  Pipe ready_, start_;
  Child child_;
};

}  // namespace

void bench_nodes(const Options& options, Report& report) {
  if (options.store.empty()) throw std::runtime_error("several nodes need a shared database: --store postgres://…");
  for (const int count : {1, 2, 4}) {
    std::vector<double> rate, p99, node_cpu, database_cpu;
    for (int round = 0; round < options.rounds; ++round) {
      std::vector<std::unique_ptr<Node>> nodes;
      for (int i = 0; i < count; ++i) nodes.push_back(std::make_unique<Node>(options, i));
      for (auto& node : nodes) node->wait_ready();
      const double before = postgres_cpu();
      for (auto& node : nodes) node->start();
      double sum = 0, cpu = 0, slowest = 0, failed = 0;
      for (auto& node : nodes) {
        const Round one = node->result();
        sum += one.per_second;
        cpu += one.cpu_us * one.per_second;
        slowest = std::max(slowest, one.p99);
        failed += static_cast<double>(one.failed);
      }
      database_cpu.push_back((postgres_cpu() - before) * 1e6 / (sum * options.seconds));
      rate.push_back(sum);
      node_cpu.push_back(cpu / sum);
      p99.push_back(slowest);
      if (failed != 0) report.note(fmt::format("WRONG: {:.0f} transactions did not commit", failed));
    }
    const std::string name = fmt::format("{} node{}, {} callers each", count, count == 1 ? "" : "s", kCallers);
    report.add(name, kCallers * count, "rate", "1/s", rate);
    report.add(name, kCallers * count, "p99", "us", p99);
    report.add(name, kCallers * count, "cpu of the nodes", "us/op", node_cpu);
    report.add(name, kCallers * count, "cpu of the database", "us/op", database_cpu);
  }
}

}  // namespace sluice::bench
