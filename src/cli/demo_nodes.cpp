// sluice demo --store postgres://…: two nodes on one database under load; one is killed in the middle,
// its callers go to the other with the same keys, what it had open is finished there, and every addition is there once.
#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/http_load.hpp"
#include "bench/report.hpp"
#include "cli/demo_nodes.hpp"
#include "cli/demo_server.hpp"
#include "sluice/base/ids.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {
namespace {

constexpr int kConnections = 16;
constexpr int kAccounts = 50;
// Every so manieth is an order, which asks a partner outside for 200 ms: a node that is killed has some open.
constexpr std::size_t kOrderEvery = 40;

class NodesDemo {
 public:
  NodesDemo(const std::string& folder, const std::string& url, std::uint64_t requests)
      : one_(folder, "one", {"--store", url, "--apps", "demo"}), two_(folder, "two", {"--store", url, "--apps", "demo"}), told_(requests) {
    RealRandom random;
    run_ = random.next() % 1'000'000'000;  // keys of another run on the same database are not these
  }

  int run(bool stay) {
    ::setenv("SLUICE_STORE_LEASE_MS", "2000", 1);  // the default of ten seconds is long for who watches
    for (DemoServer* node : {&one_, &two_})
      if (node->start() < 0) {
        fmt::print(stderr, "error: {}\n", node->error());
        return 1;
      }
    if (one_.token().empty()) {
      fmt::print(stderr, "error: the database has tokens already; give an empty one\n");
      return 1;
    }
    fmt::print("Two nodes on one PostgreSQL: http://127.0.0.1:{} and http://127.0.0.1:{}\nAdministrator's token: {}\n", one_.port(), two_.port(), one_.token());
    if (!token_known()) return problem("the second node did not learn the token that the first made");
    if (!learn_numbers()) return problem("the nodes do not say which numbers they have");
    watch_ = {};
    Thread killer("killer", [&] {
      Parker().park(milliseconds(400));
      changes_before_ = membership_changes();
      two_.kill_hard();
      killed_at_ = watch_.wall();
      left_open_ = open_of_the_killed().size();
      taken_over_ = wait_for_takeover();
      finished_ = wait_for_the_end();
    });
    // Both at once; the second one's connections break when it is killed.
    Thread second("second", [&] { drive(two_.port(), 0, told_.size() / 2, false); });
    drive(one_.port(), told_.size() / 2, told_.size(), false);
    second.join();
    killer.join();
    std::vector<std::size_t> open;
    for (std::size_t i = 0; i < told_.size(); ++i)
      if (told_[i].empty()) open.push_back(i);
    fmt::print("{} additions sent, {} of them orders with a partner outside; the second node was killed after {:.1f} s: {} without an answer, {} orders open\n",
               told_.size(), (told_.size() + kOrderEvery - 1) / kOrderEvery, killed_at_, open.size(), left_open_);
    if (taken_over_ < 0) return problem("the first node did not take over what the killed one had open");
    if (left_open_ == 0) return problem("the killed node had nothing open: send more with --requests");
    if (finished_ < 0) return problem("what the killed node had open was not finished by the first within 20 s");
    fmt::print("the first node took over from it {:.1f} s after its death (lease: 2 s), and had finished what it left open after {:.1f} s\n",
               taken_over_, finished_);
    const bench::Stopwatch again;
    for (int turn = 0; turn < 400 && missing() != 0; ++turn) {
      drive(one_.port(), 0, told_.size(), true);
      if (missing() != 0) Parker().park(milliseconds(50));
    }
    if (missing() != 0) return problem(fmt::format("{} never got an answer", missing()));
    fmt::print("all of them answered by the first node after {:.1f} s, with the same keys\n", again.wall());
    if (two_.start() < 0) return problem(two_.error());
    const auto before = told_;
    changed_ = 0;
    drive(two_.port(), 0, told_.size(), false, true);
    fmt::print("asked the restarted node for all {} again: {} replies differ\n", told_.size(), changed_);
    std::int64_t sum = 0;
    for (int account = 0; account < kAccounts; ++account) sum += balance(account);
    fmt::print("the accounts hold {}: each addition {}\n", sum, sum == std::ssize(told_) ? "exactly once" : "IS WRONG");
    if (changed_ != 0 || sum != std::ssize(told_)) return 1;
    if (!stay) return one_.stop_gracefully() && two_.stop_gracefully() ? 0 : problem("a node did not stop as it should");
    fmt::print("Both stay up until Ctrl-C.\n");
    std::fflush(stdout);
    one_.wait();
    two_.wait();
    return 0;
  }

 private:
  static int problem(const std::string& what) {
    fmt::print("WRONG: {}\n", what);
    return 1;
  }
  std::size_t missing() const { return static_cast<std::size_t>(std::ranges::count(told_, std::string())); }
  std::string request(const std::string& command, const std::string& key, const std::string& body) {
    return fmt::format("POST /v1/commands/{} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n{}"
                       "Content-Length: {}\r\n\r\n{}",
                       command, one_.token(), key.empty() ? "" : "Idempotency-Key: " + key + "\r\n", body.size(), body);
  }
  std::string account(std::size_t which) const { return fmt::format("nodes-{}-{:03}", run_, which % kAccounts); }
  std::string addition(std::size_t which) {
    const std::string key = fmt::format("nodes-{}-{}", run_, which);
    if (which % kOrderEvery == 0) return request("demo.order", key, fmt::format(R"({{"key":"{}"}})", account(which)));
    return request("kv.add", key, fmt::format(R"({{"collection":"demo","key":"{}","delta":1}})", account(which)));
  }
  // From `at` to `end`; with `open` only what has no answer yet, with `compare` answers must be the same.
  void drive(std::uint16_t port, std::size_t at, std::size_t end, bool open, bool compare = false) {
    try {
      bench::http_drive(
          port, kConnections,
          [&, at]() mutable -> std::optional<bench::Outgoing> {
            while (open && at < end && !told_[at].empty()) ++at;
            if (at >= end) return std::nullopt;
            const std::size_t which = at++;
            return bench::Outgoing{which, addition(which)};
          },
          [&](bench::Incoming in) {
            if (in.status() != 200) {
              changed_ += compare ? 1 : 0;
              return;
            }
            if (compare && told_[in.id] != in.body()) ++changed_;
            told_[in.id] = in.body();
          });
    } catch (const std::runtime_error&) {
      // Killed before all had connected.
    }
  }
  std::string get(std::uint16_t port, const std::string& key, int& status) {
    std::string body;
    bench::http_drive(
        port, 1,
        [&, sent = false]() mutable -> std::optional<bench::Outgoing> {
          if (std::exchange(sent, true)) return std::nullopt;
          return bench::Outgoing{0, request("kv.get", "", fmt::format(R"({{"collection":"demo","key":"{}"}})", key))};
        },
        [&](bench::Incoming in) {
          body = in.body();
          status = in.status();
        });
    return body;
  }
  bool token_known() {
    for (int i = 0; i < 200; ++i) {
      int status = 0;
      (void)get(two_.port(), "none", status);
      if (status != 401 && status != 0) return true;
      Parker().park(milliseconds(50));
    }
    return false;
  }
  std::string ask(std::uint16_t port, const std::string& text) {
    std::string body;
    bench::http_drive(
        port, 1,
        [&, sent = false]() mutable -> std::optional<bench::Outgoing> {
          if (std::exchange(sent, true)) return std::nullopt;
          return bench::Outgoing{0, text};
        },
        [&](bench::Incoming in) { body = in.body(); });
    return body;
  }
  std::string look(const std::string& target) {
    return ask(one_.port(), "GET " + target + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + one_.token() + "\r\n\r\n");
  }
  // Ids have the number of the node that made them.
  bool learn_numbers() {
    const auto order = nlohmann::json::parse(
        ask(two_.port(), request("demo.order", fmt::format("nodes-{}-first", run_), R"({"key":"first"})")), nullptr, false);
    if (!order.is_object() || !order.contains("order")) return false;
    const auto id = id_from_text(order["order"].get<std::string>());
    if (id) killed_number_ = IdSource::node_of(*id);
    return id.has_value();
  }
  std::set<std::string> open_of_the_killed() {
    std::set<std::string> ids;
    const auto list = nlohmann::json::parse(look("/v1/transactions?state=open&limit=1000"), nullptr, false);
    if (!list.is_object()) return ids;
    for (const auto& row : list.value("transactions", nlohmann::json::array())) {
      const std::string text = row.value("id", "");
      if (const auto id = id_from_text(text); id && IdSource::node_of(*id) == killed_number_) ids.insert(text);
    }
    return ids;
  }
  // Seconds since the kill; negative when it does not happen.
  double wait_for_the_end() {
    for (int i = 0; i < 400; ++i, Parker().park(milliseconds(50)))
      if (open_of_the_killed().empty()) return watch_.wall() - killed_at_;
    return -1;
  }
  // What the first node has seen of the others' coming and going.
  int membership_changes() {
    const std::string text = look("/metrics");
    const std::string name = "\nsluice_store_membership_changes ";
    const auto at = text.find(name);
    return at == std::string::npos ? -1 : std::atoi(text.c_str() + at + name.size());
  }
  // Seconds since the kill; negative when it does not happen.
  double wait_for_takeover() {
    for (int i = 0; i < 200; ++i, Parker().park(milliseconds(50)))
      if (membership_changes() > changes_before_) return watch_.wall() - killed_at_;
    return -1;
  }
  std::int64_t balance(int which) {
    int status = 0;
    const std::string body = get(two_.port(), account(static_cast<std::size_t>(which)), status);
    const auto at = body.find("\"number\":");
    return at == std::string::npos ? 0 : std::atoll(body.c_str() + at + 9);
  }

  DemoServer one_, two_;
  std::vector<std::string> told_;  // each element is written by one thread at a time
  std::uint64_t run_ = 0, changed_ = 0;
  double killed_at_ = 0, taken_over_ = -1, finished_ = -1;
  std::size_t left_open_ = 0;
  std::uint16_t killed_number_ = 0;
  int changes_before_ = 0;
  bench::Stopwatch watch_;
};

}  // namespace

int demo_nodes(const std::string& folder, const std::string& url, std::uint64_t requests, bool stay) {
  return NodesDemo(folder, url, requests).run(stay);
}

}  // namespace sluice::cli
