// One database, killed again and again at random instants: under load, while it starts, while it
// recovers. The client remembers what it was told; the partner remembers what it was asked. At the
// end every reply is asked for once more and the books are checked.
//   crash_campaign SERVER kills ROUNDS [SEED]
//   crash_campaign SERVER strand COUNT
//   crash_campaign SERVER nodes ROUNDS [SEED]    two servers on one PostgreSQL; one of them is killed or
//                                                frozen under load, the other finishes what it left
#include <fmt/core.h>

#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "bench/http_load.hpp"
#include "crash/crash_app.hpp"
#include "crash/server_process.hpp"
#include "support/private_postgres.hpp"
#include "support/temp_folder.hpp"

namespace sluice::crash {
namespace {

constexpr int kConnections = 16;
constexpr std::size_t kPerRound = 400;  // at most: a thousand rounds must stay checkable

struct Asked {
  int from = 0, to = 0;
  std::string told;  ///< status and body of the first settled answer
};

class Campaign {
 public:
  Campaign(std::string binary, std::uint64_t seed) : binary_(binary), server_(std::move(binary), folder_.path()), random_(seed) {}

  int kills(int rounds) {
    if (!open()) return 1;
    for (int round = 0; round < rounds; ++round) {
      const bool starting = draw(4) == 0;
      if (starting) {  // once more, while it opens or recovers
        // The running one goes first; then the starting one, before or soon after its doors open.
        server_.kill_in(0);
        server_.reap();
        server_.launch();
        server_.kill_in(draw(static_cast<std::uint64_t>(slowest_open_ * 1.2e6) + 1));
        server_.reap();
        ++starting_kills_;
        server_.launch();
        if (!wait_open()) return 1;
      }
      server_.kill_in(draw(120'000));
      load();
      server_.reap();
      server_.launch();
      if (!wait_open()) return 1;
      if ((round + 1) % 100 == 0)
        fmt::print("{} kills, {} transfers asked for, {} settled, slowest opening {:.0f} ms\n", round + 1,
                   asked_.size(), settled_, slowest_open_ * 1000), std::fflush(stdout);
    }
    settle();
    replay_all();
    check_accounts();
    if (const int status = server_.stop_gracefully(); status != 0)
      problem(fmt::format("on SIGTERM the server ended with wait status {:#x}: {}", status, server_.log()));
    check_partner();
    fmt::print("{} kills ({} of them while it started), {} transfers, {} answers cut off, {} told to try later; "
               "{} committed, {} declined; slowest opening {:.0f} ms\n",
               rounds + 2 * static_cast<int>(starting_kills_), starting_kills_, asked_.size(), cut_off_, later_, committed_, declined_, slowest_open_ * 1000);
    return verdict();
  }

  std::string log() const { return server_.log(); }
  int nodes(int rounds) {
    testing_support::PrivatePostgres database;
    database.sql("CREATE DATABASE crash", "template1");
    ::setenv("CRASH_POSTGRES", database.socket_url("crash").c_str(), 1);
    if (!open()) return 1;
    second_ = std::make_unique<ServerProcess>(binary_, folder_.path());
    second_->launch();
    if (!wait_open(*second_)) return 1;
    int freezes = 0;
    for (int round = 0; round < rounds; ++round) {
      ServerProcess& victim = round % 2 == 0 ? server_ : *second_;
      ServerProcess& other = round % 2 == 0 ? *second_ : server_;
      const bool freeze = draw(3) == 0;
      load(other.port());
      if (freeze) {
        ++freezes;
        std::thread pressed([&] { load(victim.port()); });
        pause(draw(60'000));
        victim.freeze(true);
        // What the frozen one holds is the other's after its lease: everybody gets an answer there.
        const double began = monotonic_seconds();
        settle(other.port());
        slowest_takeover_ = std::max(slowest_takeover_, monotonic_seconds() - began);
        victim.freeze(false);
        pressed.join();
        // What was asked of it meanwhile, and what it had in hand, changes nothing any more.
        settle(victim.port());
      } else {
        victim.kill_in(draw(120'000));
        load(victim.port());
        victim.reap();
        const double began = monotonic_seconds();
        settle(other.port());
        slowest_takeover_ = std::max(slowest_takeover_, monotonic_seconds() - began);
        victim.launch();
        if (!wait_open(victim)) return 1;
      }
    }
    settle(server_.port());
    replay_all();
    check_accounts();
    for (ServerProcess* node : {second_.get(), &server_})
      if (const int status = node->stop_gracefully(); status != 0)
        problem(fmt::format("on SIGTERM a node ended with wait status {:#x}: {}", status, node->log()));
    check_partner();
    fmt::print("{} kills, {} freezes, {} transfers, {} answers cut off, {} told to try later; {} committed, {} declined; "
               "slowest takeover {:.1f} s with a lease of 1.5 s\n",
               rounds - freezes, freezes, asked_.size(), cut_off_, later_, committed_, declined_, slowest_takeover_);
    return verdict();
  }

  // Many transfers cut off between reservation and decision: doors first, all undone within a second.
  int strand(int count) {
    if (server_.run("strand", std::to_string(count)) != 0) {
      fmt::print("stranding failed: {}\n", server_.log());
      return 1;
    }
    const double began = monotonic_seconds();
    server_.launch();
    if (!wait_open()) return 1;
    const double doors = monotonic_seconds() - began;
    first_answer_ = 0;
    load_until_undone(count);
    const double undone = monotonic_seconds() - began;
    settle();
    replay_all();
    if (const int status = server_.stop_gracefully(); status != 0)
      problem(fmt::format("on SIGTERM the server ended with wait status {:#x}: {}", status, server_.log()));
    check_partner();
    fmt::print("{} open transfers: doors open after {:.0f} ms, first new transfer answered after {:.0f} ms, "
               "all undone after {:.0f} ms ({:.0f} ms of it beside {} new requests)\n",
               count, doors * 1000, (first_answer_ - began) * 1000, undone * 1000, (undone - doors) * 1000, asked_.size());
    return verdict();
  }

 private:
  std::uint64_t draw(std::uint64_t bound) {  // SplitMix64
    std::uint64_t z = random_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return (z ^ (z >> 31)) % bound;
  }

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
    if (token_.empty()) token_ = server.token();
    return true;
  }

  bench::Outgoing ask(std::size_t which) {
    const std::string body = fmt::format(R"({{"from":{},"to":{}}})", asked_[which].from, asked_[which].to);
    return {which, fmt::format("POST /v1/commands/crash.transfer HTTP/1.1\r\nHost: l\r\nContent-Type: application/json\r\n"
                               "Authorization: Bearer {}\r\nIdempotency-Key: transfer-{}\r\nContent-Length: {}\r\n\r\n{}",
                               token_, which, body.size(), body)};
  }
  static void pause(std::uint64_t microseconds) {
    const timespec wait{0, static_cast<long>(microseconds) * 1000};
    nanosleep(&wait, nullptr);
  }
  bench::Outgoing next() {
    const std::scoped_lock lock(mutex_);
    if (!open_.empty() && draw(3) == 0) return ask(*open_.begin());  // told nothing yet: again, same key
    if (!asked_.empty() && draw(10) == 0) return ask(asked_.size() - 1 - draw(std::min<std::size_t>(asked_.size(), 64)));
    asked_.push_back({static_cast<int>(draw(kAccounts)), static_cast<int>(draw(kAccounts)), {}});
    open_.insert(asked_.size() - 1);
    return ask(asked_.size() - 1);
  }
  void heard(const bench::Incoming& in) {
    const std::scoped_lock lock(mutex_);
    if (in.whole.empty()) {
      ++cut_off_;
      return;
    }
    const int status = in.status();
    const bool later = status == 503 || status == 504 || status == 202 || status == 429 ||
                       (status == 409 && in.whole.find("\"kind\":\"in_progress\"") != std::string::npos);
    if (later) {
      ++later_;
      return;
    }
    if (status != 200 && status != 409) return problem("an unexpected answer: " + in.whole.substr(0, 400));
    if (first_answer_ == 0) first_answer_ = monotonic_seconds();
    Asked& asked = asked_[in.id];
    std::string told = fmt::format("{} {}", status, in.body());
    if (asked.told.empty()) {
      asked.told = std::move(told);
      open_.erase(in.id);
      ++settled_;
    } else if (asked.told != told) {
      problem(fmt::format("key transfer-{} was answered '{}' and then '{}'", in.id, asked.told, told));
    }
  }
  void load() { load(server_.port()); }
  void load(std::uint16_t port) {
    std::size_t left = kPerRound;
    try {
      bench::http_drive(
          port, kConnections,
          [&]() -> std::optional<bench::Outgoing> {
            if (left == 0) return std::nullopt;
            --left;
            return next();
          },
          [this](bench::Incoming in) { heard(in); });
    } catch (const std::runtime_error&) {
      // Killed before all had connected: what was asked is asked again.
    }
  }
  void load_until_undone(int count) {
    std::ifstream log(folder_.file("partner.log"));
    int undone = 0;
    std::size_t sent = 0;
    bench::http_drive(
        server_.port(), 4,
        [&]() -> std::optional<bench::Outgoing> {
          log.clear();
          for (std::string line; std::getline(log, line);)
            if (line[0] == 'X') ++undone;
          if (undone >= count || sent > 200'000) return std::nullopt;
          ++sent;
          return next();
        },
        [this](bench::Incoming in) { heard(in); });
  }
  void ask_all(const std::vector<std::size_t>& which, std::uint16_t port) {
    std::size_t at = 0;
    bench::http_drive(
        port, kConnections,
        [&]() -> std::optional<bench::Outgoing> {
          if (at == which.size()) return std::nullopt;
          const std::scoped_lock lock(mutex_);
          return ask(which[at++]);
        },
        [this](bench::Incoming in) { heard(in); });
  }
  std::vector<std::size_t> still_open() {
    const std::scoped_lock lock(mutex_);
    return {open_.begin(), open_.end()};
  }
  void settle() { settle(server_.port()); }
  void settle(std::uint16_t port) {
    const double until = monotonic_seconds() + 30;
    for (auto open = still_open(); !open.empty() && monotonic_seconds() < until; open = still_open()) {
      ask_all(open, port);
      pause(10'000);
    }
    for (const std::size_t which : still_open()) problem(fmt::format("transfer-{} has no settled answer after 30 s", which));
  }
  void replay_all() {
    std::vector<std::size_t> all(asked_.size());
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
    const std::uint64_t later = later_;
    ask_all(all, server_.port());  // heard() compares byte for byte
    if (later_ != later) problem("a settled transfer was told to try later");
    for (const auto& asked : asked_) (asked.told.starts_with("200") ? committed_ : declined_)++;
  }
  void check_accounts() {
    std::map<int, std::int64_t> expected;
    for (int i = 0; i < kAccounts; ++i) expected[i] = kOpening;
    for (const auto& asked : asked_)
      if (asked.told.starts_with("200")) --expected[asked.from], ++expected[asked.to];
    // Asked of the server that has come through it all.
    for (const auto& [number, amount] : expected) {
      const std::string body = fmt::format(R"({{"account":{}}})", number);
      bench::http_drive(
          server_.port(), 1,
          [&, sent = false]() mutable -> std::optional<bench::Outgoing> {
            if (std::exchange(sent, true)) return std::nullopt;
            return bench::Outgoing{0, fmt::format("POST /v1/commands/crash.balance HTTP/1.1\r\nHost: l\r\n"
                                                  "Content-Type: application/json\r\nAuthorization: Bearer {}\r\n"
                                                  "Content-Length: {}\r\n\r\n{}", token_, body.size(), body)};
          },
          [&](bench::Incoming in) {
            const auto at = in.whole.find("\"balance\":");
            const std::int64_t balance = at == std::string::npos ? -1 : std::atoll(in.whole.c_str() + at + 10);
            if (balance != amount)
              problem(fmt::format("account {} holds {}, the answers make it {}", number, balance, amount));
          });
    }
  }
  // Every reservation ended in exactly one way; as many commits as replies that say so.
  void check_partner() {
    struct Seen { bool reserved = false, committed = false, cancelled = false; };
    std::map<std::string, Seen> seen;
    std::ifstream log(folder_.file("partner.log"));
    for (std::string line; std::getline(log, line);) {
      Seen& one = seen[line.substr(2)];
      (line[0] == 'R' ? one.reserved : line[0] == 'C' ? one.committed : one.cancelled) = true;
    }
    std::uint64_t commits = 0;
    for (const auto& [token, one] : seen) {
      if (one.committed && one.cancelled) problem("the partner was told to commit and to cancel " + token);
      if (one.reserved && !one.committed && !one.cancelled) problem("the partner still holds " + token);
      if (one.committed && !one.reserved) problem("the partner was told to commit what it never reserved: " + token);
      commits += one.committed;
    }
    if (commits != committed_)
      problem(fmt::format("the partner committed {} transfers, {} were acknowledged", commits, committed_));
  }
  void problem(std::string text) {
    ++problems_;
    if (problems_ <= 20) fmt::print("WRONG: {}\n", text);
  }
  int verdict() {
    fmt::print("{}\n", problems_ == 0 ? "nothing lost, nothing doubled, no reply changed" : "SOMETHING IS WRONG");
    return problems_ == 0 ? 0 : 1;
  }

  std::mutex mutex_;
  const std::string binary_;
  testing_support::TempFolder folder_;
  ServerProcess server_;
  std::unique_ptr<ServerProcess> second_;
  double slowest_takeover_ = 0;
  std::uint64_t random_;
  std::string token_;
  std::vector<Asked> asked_;
  std::set<std::size_t> open_;  // not settled yet
  std::uint64_t settled_ = 0, cut_off_ = 0, later_ = 0, committed_ = 0, declined_ = 0, starting_kills_ = 0;
  double slowest_open_ = 0, first_answer_ = 0;
  std::uint64_t problems_ = 0;
};

}  // namespace
}  // namespace sluice::crash

int main(int argc, char** argv) {
  using sluice::crash::Campaign;
  const auto is = [&](const char* verb) { return argc >= 4 && std::strcmp(argv[2], verb) == 0; };
  if (is("kills")) return Campaign(argv[1], argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1).kills(std::atoi(argv[3]));
  if (is("nodes")) {
    Campaign campaign(argv[1], argc > 4 ? std::strtoull(argv[4], nullptr, 10) : 1);
    try {
      return campaign.nodes(std::atoi(argv[3]));
    } catch (const std::exception& error) {  // a node that should live does not
      fmt::print("WRONG: {}; the nodes said: {}\n", error.what(), campaign.log());
      return 1;
    }
  }
  if (is("strand")) return Campaign(argv[1], 1).strand(std::atoi(argv[3]));
  std::fprintf(stderr, "usage: crash_campaign SERVER kills ROUNDS [SEED] | SERVER strand COUNT | SERVER nodes ROUNDS [SEED]\n");
  return 2;
}
