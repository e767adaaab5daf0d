// One database, killed again and again at random instants: under load, while it starts, while it
// recovers. The client remembers what it was told; the partner remembers what it was asked. At the
// end every reply is asked for once more and the books are checked.
//   crash_campaign SERVER kills ROUNDS [SEED]
//   crash_campaign SERVER strand COUNT [postgres]
//   crash_campaign SERVER nodes ROUNDS [SEED [kill|freeze]]   two servers on one PostgreSQL; one of them is
//                                                killed or frozen under load, the other finishes what it left
//   crash_campaign SERVER upgrade ROUNDS SEED OLDER            one node after the other is replaced by one of the
//                                                OLDER binary, and back
//   crash_campaign SERVER database ROUNDS [SEED [KIND...]]    the same two, and what can befall the database and
//                                                the wires to it
//   crash_campaign SERVER failover ROUNDS [SEED [KIND...]]    two servers on three PostgreSQL under Patroni,
//                                                inside of tests/failover/inside.sh
#include <fmt/core.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <set>

#include "crash/client.hpp"
#include "crash/crash_app.hpp"
#include "crash/database_faults.hpp"
#include "crash/failover.hpp"
#include "crash/server_process.hpp"
#include "support/private_postgres.hpp"
#include "support/temp_folder.hpp"

namespace sluice::crash {
namespace {

/// The lines that have come since they were last asked for, "R token".
class PartnerLog {
 public:
  explicit PartnerLog(const std::string& path) : file_(path) {}
  std::vector<std::string> more() {
    std::vector<std::string> lines;
    file_.clear();
    for (std::string line; std::getline(file_, line);) lines.push_back(std::move(line));
    return lines;
  }

 private:
  std::ifstream file_;
};

class Campaign {
 public:
  Campaign(std::string binary, std::uint64_t seed)
      : binary_(std::move(binary)), client_(folder_.file("partner.log"), seed), server_(binary_, folder_.path()) {}

  int kills(int rounds) {
    if (!open()) return 1;
    for (int round = 0; round < rounds; ++round) {
      const bool starting = client_.draw(4) == 0;
      if (starting) {  // once more, while it opens or recovers
        // The running one goes first; then the starting one, before or soon after its doors open.
        server_.kill_in(0);
        server_.reap();
        server_.launch();
        server_.kill_in(client_.draw(static_cast<std::uint64_t>(slowest_open_ * 1.2e6) + 1));
        server_.reap();
        ++starting_kills_;
        server_.launch();
        if (!wait_open()) return 1;
      }
      server_.kill_in(client_.draw(120'000));
      client_.load(server_.port());
      server_.reap();
      server_.launch();
      if (!wait_open()) return 1;
      if ((round + 1) % 100 == 0)
        fmt::print("{} kills, {} transfers asked for, {} settled, slowest opening {:.0f} ms\n", round + 1,
                   client_.asked(), client_.settled(), slowest_open_ * 1000), std::fflush(stdout);
    }
    client_.settle(server_.port());
    client_.replay_all(server_.port());
    client_.check_accounts(server_.port());
    if (const int status = server_.stop_gracefully(); status != 0)
      client_.problem(fmt::format("on SIGTERM the server ended with wait status {:#x}: {}", status, server_.log()));
    client_.check_partner();
    fmt::print("{} kills ({} of them while it started), {} transfers, {} answers cut off, {} told to try later; "
               "{} committed, {} declined; slowest opening {:.0f} ms\n",
               rounds + 2 * static_cast<int>(starting_kills_), starting_kills_, client_.asked(), client_.cut_off, client_.later, client_.committed, client_.declined, slowest_open_ * 1000);
    return client_.verdict();
  }

  std::string log() const { return server_.log(); }
  // With CRASH_FAKETIME, the library of that name, the clock of one goes as far ahead as the other's is behind: by more
  // than keys are kept, so that a node which held an end against its own clock would take the other's for over.
  int nodes(int rounds, const std::string& kind) {
    use_postgres();
    const char* const faketime = std::getenv("CRASH_FAKETIME");
    const auto clock = [&](const char* by) { return faketime != nullptr ? wrong_clock(faketime, by) : std::vector<std::string>(); };
    for (std::size_t i = 0; i < 2; ++i) {
      nodes_[i] = std::make_unique<ServerProcess>(binary_, folder_.path(), clock(i == 0 ? "+2h" : "-2h"));
      nodes_[i]->launch();
      if (!wait_open(*nodes_[i])) return 1;
    }
    double apart = clocks_apart();
    int freezes = 0;
    for (int round = 0; round < rounds; ++round) {
      ServerProcess& victim = *nodes_[round % 2];
      ServerProcess& other = *nodes_[1 - round % 2];
      const bool freeze = kind.empty() ? client_.draw(3) == 0 : kind == "freeze";
      client_.load(other.port());
      if (freeze) {
        ++freezes;
        std::thread pressed([&] { client_.load(victim.port()); });
        Client::pause(client_.draw(60'000));
        victim.freeze(true);
        // What the frozen one holds is the other's after its lease: everybody gets an answer there.
        const double began = monotonic_seconds();
        client_.settle(other.port());
        slowest_takeover_ = std::max(slowest_takeover_, monotonic_seconds() - began);
        victim.freeze(false);
        pressed.join();
        // What was asked of it meanwhile, and what it had in hand, changes nothing any more.
        client_.settle(victim.port());
      } else {
        victim.kill_in(client_.draw(120'000));
        client_.load(victim.port());
        victim.reap();
        const double began = monotonic_seconds();
        client_.settle(other.port());
        slowest_takeover_ = std::max(slowest_takeover_, monotonic_seconds() - began);
        victim.launch();
        if (!wait_open(victim)) return 1;
      }
    }
    apart = std::min(apart, clocks_apart());  // also of those that were started again
    client_.settle(nodes_[0]->port());
    client_.replay_all(nodes_[0]->port());
    client_.check_accounts(nodes_[0]->port());
    for (auto& node : nodes_)
      if (const int status = node->stop_gracefully(); status != 0)
        client_.problem(fmt::format("on SIGTERM a node ended with wait status {:#x}: {}", status, node->log()));
    if (faketime != nullptr && apart < 3.9 * 3600) client_.problem(fmt::format("the clocks of the nodes were {:.0f} s apart instead of four hours", apart));
    client_.check_partner();
    fmt::print("{} kills, {} freezes, {} transfers, {} answers cut off, {} told to try later; {} committed, {} declined; "
               "slowest takeover {:.1f} s with a lease of 1.5 s; the nodes' clocks {:.1f} hours apart\n",
               rounds - freezes, freezes, client_.asked(), client_.cut_off, client_.later, client_.committed, client_.declined, slowest_takeover_, apart / 3600);
    return client_.verdict();
  }

  // Nodes of two versions side by side: one after the other is replaced by the other version, and back.
  int upgrade(int rounds, const std::string& older) {
    auto& database = use_postgres();
    std::unique_ptr<ServerProcess> nodes[2];
    bool is_new[2] = {false, false};
    const auto launch = [&](std::size_t i) {
      nodes[i] = std::make_unique<ServerProcess>(is_new[i] ? binary_ : older, folder_.path());
      nodes[i]->launch();
      return wait_open(*nodes[i]);
    };
    if (!launch(0) || !launch(1)) return 1;
    client_.ask_as_of_old(nodes[0]->port());
    int mixed = 0;
    for (int round = 0; round < rounds; ++round) {
      const std::size_t at = static_cast<std::size_t>(round % 2);
      ServerProcess& other = *nodes[1 - at];
      // Both are pressed while one of them goes, is away, and is there again as the other version.
      std::thread pressed([&] { client_.load(other.port()); });
      std::thread victims([&] { client_.load(nodes[at]->port()); });
      Client::pause(client_.draw(100'000));
      // What a release after both brings: it widens what is there, in the middle of the load, and suits both.
      if (round == rounds / 3)
        database.sql("BEGIN; SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock(7310868734);"
                     "ALTER TABLE sluice.kv ADD COLUMN of_next text DEFAULT 'x';"
                     "ALTER TABLE sluice.open_exchanges ADD COLUMN of_next bigint;"
                     "ALTER TABLE sluice.keys ADD COLUMN of_next bigint;"
                     "UPDATE sluice.meta SET value = value + 1 WHERE name = 'schema'; COMMIT",
                     "crash");
      if (client_.draw(3) == 0) {
        nodes[at]->kill_in(0);
        nodes[at]->reap();
      } else if (const int status = nodes[at]->stop_gracefully(); status != 0) {
        client_.problem(fmt::format("on SIGTERM the {} version ended with wait status {:#x}: {}", is_new[at] ? "new" : "old", status, nodes[at]->log()));
      }
      victims.join();
      is_new[at] = !is_new[at];
      mixed += is_new[0] != is_new[1] ? 1 : 0;
      if (!launch(at)) return 1;
      std::thread fresh([&] { client_.load(nodes[at]->port()); });
      client_.load(other.port());
      fresh.join();
      pressed.join();
      client_.settle(nodes[client_.draw(2)]->port());
    }
    client_.replay_all(nodes[0]->port());
    client_.check_accounts(nodes[1]->port());
    for (auto& node : nodes)
      if (const int status = node->stop_gracefully(); status != 0)
        client_.problem(fmt::format("on SIGTERM a node ended with wait status {:#x}: {}", status, node->log()));
    client_.check_partner();
    fmt::print("{} replacements, one migration, {} times two versions side by side; {} transfers, {} answers cut off, {} told to try later; {} committed, {} "
               "declined; slowest opening {:.1f} s\n",
               rounds, mixed, client_.asked(), client_.cut_off, client_.later, client_.committed, client_.declined, slowest_open_);
    return client_.verdict();
  }

  // Many transfers cut off between reservation and decision, and a quarter as many right after it: doors first,
  // all undone or committed within a second; on PostgreSQL after the lease of the node that died.
  int strand(int count, bool on_postgres) {
    if (on_postgres) use_postgres();
    const int decided = count / 4;
    if (server_.run("strand", {std::to_string(count), std::to_string(decided)}) != 0) {
      fmt::print("stranding failed: {}\n", server_.log());
      return 1;
    }
    if (database_) {
      // Of the node that is gone: else nobody has to take them over.
      const std::string left = database_->sql("SELECT count(*) FROM sluice.open_exchanges o JOIN sluice.writers w ON w.node = (o.exchange >> 12) & 1023", "crash");
      if (left != std::to_string(count)) client_.problem(fmt::format("{} open transfers are of the node that is gone instead of {}", left, count));
    }
    PartnerLog heard(folder_.file("partner.log"));
    std::set<std::string> stranded;
    for (const auto& line : heard.more()) stranded.insert(line.substr(2));
    if (stranded.size() != static_cast<std::size_t>(count)) client_.problem(fmt::format("{} transfers are open instead of {}", stranded.size(), count));
    const double began = monotonic_seconds();
    server_.launch();
    if (!wait_open()) return 1;
    const double doors = monotonic_seconds() - began;
    client_.first_answer = 0;
    const int committed = load_until_over(std::move(stranded));
    const double undone = monotonic_seconds() - began;
    if (committed != decided) client_.problem(fmt::format("{} stranded transfers were committed with the partner instead of the {} that were decided", committed, decided));
    if (const auto moved = client_.balance(server_.port(), kStrandedTo); moved != decided)
      client_.problem(fmt::format("stranded transfers moved {}, {} were decided", moved, decided));
    client_.settle(server_.port());
    client_.replay_all(server_.port());
    client_.outside += static_cast<std::uint64_t>(decided);
    if (const int status = server_.stop_gracefully(); status != 0)
      client_.problem(fmt::format("on SIGTERM the server ended with wait status {:#x}: {}", status, server_.log()));
    client_.check_partner();
    // About 0.6 s for ten thousand on SQLite, 2.2 s on PostgreSQL with the lease of 1.5 s in it. Only of the long run,
    // which is a release build; it has the machine for itself.
    if (const char* asked = std::getenv("SLUICE_LONG"); asked != nullptr && *asked != '\0' && undone - doors > (on_postgres ? 6 : 2))
      client_.problem(fmt::format("{} open transfers were over only after {:.1f} s", count, undone - doors));
    fmt::print("{} open transfers, {} of them decided: doors open after {:.0f} ms, first new transfer answered after {:.0f} ms, "
               "all over after {:.0f} ms ({:.0f} ms of it beside {} new requests)\n",
               count, decided, doors * 1000, (client_.first_answer - began) * 1000, undone * 1000, (undone - doors) * 1000, client_.asked());
    return client_.verdict();
  }

 private:
  // Instead of a file, for every server that is launched from here on.
  testing_support::PrivatePostgres& use_postgres() {
    database_ = std::make_unique<testing_support::PrivatePostgres>();
    database_->sql("CREATE DATABASE crash", "template1");
    ::setenv("CRASH_POSTGRES", database_->socket_url("crash").c_str(), 1);
    return *database_;
  }
  double clocks_apart() { return std::abs(client_.wall_clock(nodes_[0]->port()) - client_.wall_clock(nodes_[1]->port())); }
  bool open() {
    server_.launch();
    return wait_open();
  }
  bool wait_open() { return wait_open(server_); }
  bool wait_open(ServerProcess& server) {
    const double took = server.wait_open();
    if (took < 0) {
      fmt::print("the server did not start: {}\n", server.log());
      return false;
    }
    slowest_open_ = std::max(slowest_open_, took);
    if (client_.token.empty()) client_.token = server.token();
    return true;
  }

  // Of the open ones; how many were committed.
  int load_until_over(std::set<std::string> open) {
    PartnerLog log(folder_.file("partner.log"));
    int committed = 0;
    std::size_t sent = 0;
    bench::http_drive(
        server_.port(), 4,
        [&]() -> std::optional<bench::Outgoing> {
          for (const auto& line : log.more())
            if (line[0] != 'R' && open.erase(line.substr(2)) == 1 && line[0] == 'C') ++committed;
          if (open.empty() || sent > 200'000) return std::nullopt;
          ++sent;
          return client_.next();
        },
        [this](bench::Incoming in) { client_.heard(in); });
    if (!open.empty()) client_.problem(fmt::format("{} transfers are still open", open.size()));
    return committed;
  }
  const std::string binary_;
  testing_support::TempFolder folder_;
  std::unique_ptr<testing_support::PrivatePostgres> database_;
  Client client_;
  ServerProcess server_;
  std::unique_ptr<ServerProcess> nodes_[2];
  double slowest_takeover_ = 0, slowest_open_ = 0;
  std::uint64_t starting_kills_ = 0;
};

}  // namespace
}  // namespace sluice::crash

int main(int argc, char** argv) {
  using sluice::crash::Campaign;
  const auto is = [&](const char* verb) { return argc >= 4 && std::strcmp(argv[2], verb) == 0; };
  if (is("kills")) return Campaign(argv[1], argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1).kills(std::atoi(argv[3]));
  if (is("nodes") || (is("upgrade") && argc > 5)) {
    Campaign campaign(argv[1], argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1);
    try {
      if (is("upgrade")) return campaign.upgrade(std::atoi(argv[3]), argv[5]);
      return campaign.nodes(std::atoi(argv[3]), argc > 5 ? argv[5] : "");
    } catch (const std::exception& error) {  // a node that should live does not
      fmt::print("WRONG: {}; the nodes said: {}\n", error.what(), campaign.log());
      return 1;
    }
  }
  if (is("failover") || is("database")) {
    const auto campaign = is("failover") ? sluice::crash::failover : sluice::crash::database_faults;
    return campaign(argv[1], std::atoi(argv[3]), argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1,
                    {argv + std::min(argc, 5), argv + argc});
  }
  if (is("strand")) return Campaign(argv[1], 1).strand(std::atoi(argv[3]), argc > 4 && std::strcmp(argv[4], "postgres") == 0);
  std::fprintf(stderr, "usage: crash_campaign SERVER kills ROUNDS [SEED] | SERVER strand COUNT [postgres] | SERVER nodes|upgrade|database|failover ROUNDS [SEED [KIND...]]\n");
  return 2;
}
