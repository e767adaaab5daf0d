#include "crash/database_faults.hpp"

#include <fmt/core.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <thread>

#include "crash/client.hpp"
#include "crash/maintenance.hpp"
#include "support/chaos_proxy.hpp"
#include "support/private_postgres.hpp"
#include "support/temp_folder.hpp"

namespace sluice::crash {
namespace {

constexpr double kDeadline = 6;     // of each request, seconds
constexpr std::uint64_t kBreath = 80'000;  // of each who presses, between two loads, microseconds
constexpr double kBackWithin = 30;  // after the fault is over

// On a disk that can be filled, if there is one.
std::unique_ptr<testing_support::PrivatePostgres> make_database(const char* disk) {
  const char* const before = std::getenv("TMPDIR");
  const std::string kept = before != nullptr ? before : "";
  if (disk != nullptr) ::setenv("TMPDIR", disk, 1);
  auto made = std::make_unique<testing_support::PrivatePostgres>(
      std::vector<std::string>{"max_connections=24", "max_wal_size=48MB", "min_wal_size=32MB", "checkpoint_timeout=30s"});
  if (disk != nullptr) before != nullptr ? ::setenv("TMPDIR", kept.c_str(), 1) : ::unsetenv("TMPDIR");
  return made;
}

std::string end_of(std::string log) { return log.size() > 4000 ? log.substr(log.size() - 4000) : log; }

class DatabaseFaults {
 public:
  DatabaseFaults(const std::string& server, std::uint64_t seed)
      : disk_(std::getenv("CRASH_SMALL_DISK")), database_(make_database(disk_)), wires_{test::ChaosProxy(database_->port()), test::ChaosProxy(database_->port())},
        client_(folder_.file("partner.log"), seed), nodes_{ServerProcess(server, folder_.path()), ServerProcess(server, folder_.path())} {}

  int run(int rounds, const std::vector<std::string>& kinds) {
    database_->sql("CREATE DATABASE crash", "template1");
    for (std::size_t i = 0; i < 2; ++i) {
      ::setenv("CRASH_POSTGRES", database_->tcp_url("crash", wires_[i].port()).c_str(), 1);
      nodes_[i].launch();
      if (nodes_[i].wait_open() < 0) {
        client_.problem("a server did not start: " + nodes_[i].log());
        return client_.verdict();
      }
    }
    client_.token = nodes_[0].token();
    client_.set_deadline(kDeadline);
    client_.set_cut_off_is_wrong(true);
    for (int round = 0; round < rounds && client_.problems() == 0; ++round) {
      const std::string& kind = kinds[static_cast<std::size_t>(round) % kinds.size()];
      fault(kind);
      if (client_.problems() != 0)
        fmt::print("round {}, {}; the ends of the logs of the nodes and of the database:\n{}\n{}\n", round, kind, nodes_[0].log(), end_of(database_->log()));
    }
    client_.settle(nodes_[1].port());
    client_.settle(nodes_[0].port());
    client_.replay_all(nodes_[0].port());
    client_.check_accounts(nodes_[1].port());
    for (auto& node : nodes_)
      if (const int status = node.stop_gracefully(); status != 0)
        client_.problem(fmt::format("on SIGTERM a node ended with wait status {:#x}: {}", status, node.log()));
    client_.check_partner();
    for (const auto& [kind, seen] : seen_)
      fmt::print("{:11} {:3} times: service back at most {:4.1f} s after it was over, {:3.1f} s for an answer\n", kind, seen.rounds, seen.back, seen.answer);
    if (const auto& m = maintained_; seen_.contains("maintenance")) {
      fmt::print("{} tables rewritten, {} statements cancelled, {} of the administrator's own refused\n", m.rewritten, m.cancelled, m.refused);
      if (m.rewritten == 0 || m.cancelled == 0) client_.problem("the maintenance did nothing");
    }
    fmt::print("{} transfers, {} told to try later; {} committed, {} declined\n", client_.asked(), client_.later, client_.committed, client_.declined);
    return client_.verdict();
  }

 private:
  struct Seen {
    int rounds = 0;
    double back = 0, answer = 0;
  };

  // Requests at both, until the fault is over.
  template <class Body>
  void under_load(Body body) {
    std::atomic<bool> over{false};
    const auto press = [&](std::size_t i) {
      do {
        client_.load(nodes_[i].port(), 12);
        Client::pause(breath_);
      } while (!over);
    };
    std::thread first([&] { press(0); }), second([&] { press(1); });
    Client::pause(50'000 + client_.draw(100'000));
    body();
    over = true;
    first.join();
    second.join();
  }

  // PostgreSQL ends when there is no room for its log, at once or while it recovers; what watches over it starts it again.
  void watch_over() {
    if (!database_->alive()) database_->restart();
  }

  void fault(const std::string& kind) {
    const std::size_t victim = client_.draw(2);
    client_.watch_from_now();
    under_load([&] {
      const auto lasts = [&] { Client::pause(300'000 + client_.draw(3'000'000)); };
      if (kind == "partition" || kind == "half_open") {
        if (kind == "partition") {
          wires_[victim].set({.refuse = true});
          wires_[victim].cut();
        } else {
          wires_[victim].set({.drop = true});
        }
        lasts();
        wires_[victim].set({});
        if (kind == "half_open") wires_[victim].cut();  // bytes are missing: it cannot go on
      } else if (kind == "storm") {
        std::vector<PGconn*> taken;
        for (int i = 0; i < 40; ++i) taken.push_back(PQconnectStart(database_->tcp_url("template1").c_str()));
        for (auto& wire : wires_) wire.cut();
        for (int turn = 0; turn < 20; ++turn) {
          for (auto* connection : taken) (void)PQconnectPoll(connection);
          Client::pause(20'000);
        }
        lasts();
        for (auto* connection : taken) PQfinish(connection);
      } else if (kind == "restart") {
        database_->crash_and_restart();
      } else if (kind == "maintenance") {
        breath_ = 1'000;  // rows are to be on their way when they get new places
        maintained_ += rewrite_tables(*database_, "crash");
        breath_ = kBreath;
        maintained_ += hold_up_sessions(*database_, "crash");
      } else if (kind == "full") {
        const std::string path = std::string(disk_) + "/filler";
        {
          std::ofstream filler(path, std::ios::binary);
          const std::string block(64 * 1024, 'x');
          while (filler.write(block.data(), std::ssize(block)).flush()) {
          }
        }
        lasts();
        std::remove(path.c_str());
        watch_over();
      }
    });
    const double over = monotonic_seconds();
    for (auto& node : nodes_) {
      const std::uint64_t before = client_.settled();
      while (client_.settled() == before && monotonic_seconds() - over < kBackWithin) {
        watch_over();
        client_.load(node.port(), 4);
        Client::pause(10'000);
      }
      if (client_.settled() == before) return client_.problem(fmt::format("{}: no service {:.0f} s after it was over, at node {}; told last: {}", kind, kBackWithin, &node == &nodes_[0] ? 0 : 1, client_.last_later()));
    }
    Seen& seen = seen_[kind];
    ++seen.rounds;
    seen.back = std::max(seen.back, monotonic_seconds() - over);
    // Whatever was told to try later has its answer soon, at either of them.
    client_.settle(nodes_[client_.draw(2)].port());
    seen.answer = std::max(seen.answer, client_.slowest_answer());
    // So has all that was ever settled, at both.
    for (auto& node : nodes_) client_.replay_settled(node.port());
  }

  testing_support::TempFolder folder_;
  const char* const disk_;
  std::unique_ptr<testing_support::PrivatePostgres> database_;
  test::ChaosProxy wires_[2];
  Client client_;
  ServerProcess nodes_[2];
  std::map<std::string, Seen> seen_;
  Maintained maintained_;
  std::atomic<std::uint64_t> breath_{kBreath};
};

}  // namespace

int database_faults(const std::string& server, int rounds, std::uint64_t seed, std::vector<std::string> kinds) {
  if (kinds.empty()) kinds = {"partition", "half_open", "storm", "restart", "maintenance"};
  return DatabaseFaults(server, seed).run(rounds, kinds);
}

}  // namespace sluice::crash
