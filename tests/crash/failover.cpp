#include "crash/failover.hpp"

#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include "crash/client.hpp"
#include "support/temp_folder.hpp"

namespace sluice::crash {
namespace {

constexpr double kDeadline = 6;       // of each request, seconds
constexpr double kBackWithin = 45;    // Patroni's ttl is 9 s; a laden machine takes longer to elect
constexpr double kWholeWithin = 120;  // the old primary follows the new one, perhaps after a rewind

/// tests/failover/cluster.sh and the folder it works in.
class Cluster {
 public:
  explicit Cluster(std::string folder) : folder_(std::move(folder)) { ::chmod(folder_.c_str(), 0755); }
  bool tell(const std::string& verb, int node = 0) const {
    const std::string command = words(verb, node);
    const int status = std::system(command.c_str());  // NOLINT: a test's own words
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  int primary() const {
    std::FILE* const out = popen(words("primary", 0).c_str(), "r");  // NOLINT
    int node = 0;
    if (std::fscanf(out, "%d", &node) != 1) node = 0;
    pclose(out);
    return node;
  }
  bool wait(const char* verb, double within) const {
    const double until = monotonic_seconds() + within;
    while (!tell(verb))
      if (monotonic_seconds() > until) return false;
      else Client::pause(200'000);
    return true;
  }

 private:
  std::string words(const std::string& verb, int node) const {
    return SLUICE_SOURCE_DIR "/tests/failover/cluster.sh " + folder_ + " " + verb + (node != 0 ? " " + std::to_string(node) : "");
  }
  std::string folder_;
};

struct Worst {
  int rounds = 0;
  double gap = 0, answer = 0, whole = 0;
};

class Failover {
 public:
  Failover(const std::string& server, std::uint64_t seed)
      : client_(folder_.file("partner.log"), seed), one_(server, folder_.path()), two_(server, folder_.path()), cluster_(machines_.path()) {}

  int run(int rounds, const std::vector<std::string>& kinds) {
    double began = monotonic_seconds();
    if (!cluster_.tell("start")) return given_up("the cluster did not start");
    fmt::print("three PostgreSQL under Patroni: ready after {:.1f} s\n", monotonic_seconds() - began);
    ::setenv("CRASH_POSTGRES", "postgres://sluice@10.77.0.1,10.77.0.2,10.77.0.3/crash", 1);
    for (ServerProcess* node : {&one_, &two_}) {
      node->launch();
      if (node->wait_open() < 0) return given_up("a server did not start: " + node->log());
    }
    client_.token = one_.token();
    client_.set_deadline(kDeadline);
    client_.set_cut_off_is_wrong(true);
    std::thread first([&] { load(one_.port()); }), second([&] { load(two_.port()); });
    std::string gone;
    for (int round = 0; round < rounds && gone.empty(); ++round)
      gone = accident(kinds[static_cast<std::size_t>(round) % kinds.size()]);
    stop_ = true;
    first.join();
    second.join();
    if (!gone.empty()) return given_up(gone);
    began = monotonic_seconds();
    client_.settle(two_.port());
    client_.settle(one_.port());
    client_.set_deadline(0);
    client_.replay_all(one_.port());
    client_.check_accounts(two_.port());
    for (ServerProcess* node : {&two_, &one_})
      if (const int status = node->stop_gracefully(); status != 0)
        client_.problem(fmt::format("on SIGTERM a node ended with wait status {:#x}: {}", status, node->log()));
    client_.check_partner();
    fmt::print("{} transfers, {} told to try later; {} committed, {} declined; all replayed and checked in {:.1f} s\n",
               client_.asked(), client_.later, client_.committed, client_.declined, monotonic_seconds() - began);
    for (const auto& [kind, worst] : worst_)
      fmt::print("{:8} {:3} times: at most {:4.1f} s without service, {:4.1f} s for an answer, {:5.1f} s until whole again\n",
                 kind, worst.rounds, worst.gap, worst.answer, worst.whole);
    return client_.verdict();
  }

 private:
  int given_up(const std::string& why) {
    client_.problem(why);
    return client_.verdict();
  }
  // Some hundred requests a second, so that many rounds stay checkable.
  void load(std::uint16_t port) {
    while (!stop_) {
      client_.load(port, 24);
      Client::pause(150'000);
    }
  }
  // Until many have settled that were asked for after it; a few may have been on their way.
  bool served_again(double within) {
    const std::uint64_t before = client_.settled() + 50;
    for (const double until = monotonic_seconds() + within; client_.settled() < before; Client::pause(100'000))
      if (monotonic_seconds() > until) return false;
    return true;
  }

  std::string accident(const std::string& kind) {
    if (!cluster_.wait("whole", kWholeWithin)) return "the cluster did not become whole before the next fault";
    if (!served_again(kBackWithin)) return "no service on a healthy cluster before the next fault";
    const int victim = cluster_.primary();
    client_.watch_from_now();
    const double began = monotonic_seconds();
    if (!cluster_.tell(kind, victim)) return kind + " of node " + std::to_string(victim) + " failed";
    bool back = true;
    if (kind == "fill") {  // refused, or failed over: as PostgreSQL fares without room; then there is some
      (void)served_again(8);
      (void)cluster_.tell("empty", victim);
    }
    back = served_again(kBackWithin);
    const int now = cluster_.primary();
    if (!back) (void)cluster_.tell("logs");
    if (kind == "kill") (void)cluster_.tell("up", victim);
    if (kind == "freeze") (void)cluster_.tell("thaw", victim);
    if (kind == "cut" || kind == "isolate") (void)cluster_.tell("mend", victim);
    if (!back && !served_again(kBackWithin)) return fmt::format("no service after {} of node {}: {}", kind, victim, one_.log());
    if (!back) client_.problem(fmt::format("{} of node {}: no service within {} s", kind, victim, kBackWithin));
    if (!cluster_.wait("whole", kWholeWithin)) {
      (void)cluster_.tell("logs");
      return kind + ": there is service, and the cluster did not become whole again";
    }
    const double whole = monotonic_seconds() - began;
    // What the old primary and its clients may still do has time to go wrong.
    if (!served_again(kBackWithin)) return "no service after " + kind + " was mended";
    Worst& worst = worst_[kind];
    ++worst.rounds;
    worst.gap = std::max(worst.gap, client_.longest_gap());
    worst.answer = std::max(worst.answer, client_.slowest_answer());
    worst.whole = std::max(worst.whole, whole);
    fmt::print("{:8} of node {}, node {} leads: {:4.1f} s without service, slowest answer {:3.1f} s, whole after {:5.1f} s\n", kind,
               victim, now, client_.longest_gap(), client_.slowest_answer(), whole);
    std::fflush(stdout);
    return {};
  }

  testing_support::TempFolder folder_, machines_;
  Client client_;
  ServerProcess one_, two_;
  Cluster cluster_;
  std::map<std::string, Worst> worst_;
  std::atomic<bool> stop_{false};
};

}  // namespace

int failover(const std::string& server, int rounds, std::uint64_t seed, std::vector<std::string> kinds) {
  if (kinds.empty()) kinds = {"kill", "freeze", "isolate", "cut", "fill", "crash"};
  return Failover(server, seed).run(rounds, kinds);
}

}  // namespace sluice::crash
