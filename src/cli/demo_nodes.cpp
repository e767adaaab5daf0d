// sluice demo --store postgres://…: two nodes on one database under load; one is killed in the middle,
// its callers go to the other with the same keys, and every addition is there once.
#include <fmt/core.h>

#include <map>
#include <set>
#include <algorithm>

#include "bench/http_load.hpp"
#include "bench/report.hpp"
#include "cli/demo_nodes.hpp"
#include "cli/demo_server.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::cli {
namespace {

constexpr int kConnections = 16;
constexpr int kAccounts = 50;

class NodesDemo {
 public:
  NodesDemo(const std::string& folder, const std::string& url, std::uint64_t requests)
      : one_(folder, "one", {"--store", url}), two_(folder, "two", {"--store", url}), told_(requests) {
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
    watch_ = {};
    Thread killer("killer", [&] {
      Parker().park(milliseconds(400));
      changes_before_ = membership_changes();
      two_.kill_hard();
      killed_at_ = watch_.wall();
      taken_over_ = wait_for_takeover();
    });
    // Both at once; the second one's connections break when it is killed.
    Thread second("second", [&] { drive(two_.port(), 0, told_.size() / 2, false); });
    drive(one_.port(), told_.size() / 2, told_.size(), false);
    second.join();
    killer.join();
    std::vector<std::size_t> open;
    for (std::size_t i = 0; i < told_.size(); ++i)
      if (told_[i].empty()) open.push_back(i);
    fmt::print("{} additions sent; the second node was killed after {:.1f} s: {} without an answer\n", told_.size(), killed_at_, open.size());
    if (taken_over_ < 0) return problem("the first node did not take over what the killed one had open");
    fmt::print("the first node took over from it {:.1f} s after its death (lease: 2 s)\n", taken_over_);
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
  // From `at` to `end`; with `open` only what has no answer yet, with `compare` answers must be the same.
  void drive(std::uint16_t port, std::size_t at, std::size_t end, bool open, bool compare = false) {
    try {
      bench::http_drive(
          port, kConnections,
          [&, at]() mutable -> std::optional<bench::Outgoing> {
            while (open && at < end && !told_[at].empty()) ++at;
            if (at >= end) return std::nullopt;
            const std::size_t which = at++;
            return bench::Outgoing{which, request("kv.add", fmt::format("nodes-{}-{}", run_, which),
                                                  fmt::format(R"({{"collection":"demo","key":"{}","delta":1}})", account(which)))};
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
  // What the first node has seen of the others' coming and going.
  int membership_changes() {
    std::string text;
    bench::http_drive(
        one_.port(), 1,
        [&, sent = false]() mutable -> std::optional<bench::Outgoing> {
          if (std::exchange(sent, true)) return std::nullopt;
          return bench::Outgoing{0, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + one_.token() + "\r\n\r\n"};
        },
        [&](bench::Incoming in) { text = in.body(); });
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
  double killed_at_ = 0, taken_over_ = -1;
  int changes_before_ = 0;
  bench::Stopwatch watch_;
};

}  // namespace

int demo_nodes(const std::string& folder, const std::string& url, std::uint64_t requests, bool stay) {
  return NodesDemo(folder, url, requests).run(stay);
}

}  // namespace sluice::cli
