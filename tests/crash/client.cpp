#include "crash/client.hpp"

#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <stdexcept>

#include "crash/crash_app.hpp"

namespace sluice::crash {

Client::Client(std::string partner_log, std::uint64_t seed) : partner_log_(std::move(partner_log)), random_(seed), opening_(kOpening) {}

std::uint64_t Client::roll(std::uint64_t bound) {  // SplitMix64
  std::uint64_t z = random_ += 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return (z ^ (z >> 31)) % bound;
}

std::uint64_t Client::draw(std::uint64_t bound) {
  const std::scoped_lock lock(mutex_);
  return roll(bound);
}

void Client::pause(std::uint64_t microseconds) {
  const timespec wait{static_cast<time_t>(microseconds / 1'000'000), static_cast<long>(microseconds % 1'000'000) * 1000};
  nanosleep(&wait, nullptr);
}

bench::Outgoing Client::ask(std::size_t which) {
  const std::string body = fmt::format(R"({{"from":{},"to":{}}})", asked_[which].from, asked_[which].to);
  const std::string deadline = deadline_ > 0 ? fmt::format("X-Sluice-Deadline-Ms: {:.0f}\r\n", deadline_ * 1000) : "";
  return {which, fmt::format("POST /v1/commands/crash.{} HTTP/1.1\r\nHost: l\r\nContent-Type: application/json\r\n"
                             "Authorization: Bearer {}\r\nIdempotency-Key: transfer-{}\r\n{}Content-Length: {}\r\n\r\n{}",
                             asked_[which].outside ? "transfer" : "move", token, which, deadline, body.size(), body)};
}

bench::Outgoing Client::next() {
  const std::scoped_lock lock(mutex_);
  if (!open_.empty() && roll(3) == 0) return ask(*open_.begin());  // told nothing yet: again, same key
  if (!asked_.empty() && roll(10) == 0) return ask(asked_.size() - 1 - roll(std::min<std::size_t>(asked_.size(), 64)));
  const int from = static_cast<int>(roll(kAccounts)), to = static_cast<int>(roll(kAccounts));
  asked_.push_back({from, to, !moves_ || roll(3) != 0, {}});
  open_.insert(asked_.size() - 1);
  return ask(asked_.size() - 1);
}

void Client::heard(const bench::Incoming& in) {
  const std::scoped_lock lock(mutex_);
  slowest_answer_ = std::max(slowest_answer_, in.latency_us / 1e6);
  if (deadline_ > 0 && in.latency_us / 1e6 > deadline_ + 2)
    problem(fmt::format("transfer-{} had no answer within {:.1f} s, its deadline was {:.1f} s: {}", in.id, in.latency_us / 1e6,
                        deadline_, in.whole.substr(0, 400)));
  if (in.whole.empty()) {
    ++cut_off;
    if (cut_off_is_wrong_) problem(fmt::format("the connection broke before transfer-{} was answered, {:.3f} s after it was sent", in.id, in.latency_us / 1e6));
    return;
  }
  const int status = in.status();
  const bool try_later = status == 503 || status == 504 || status == 202 || status == 429 ||
                         (status == 409 && in.whole.find("\"kind\":\"in_progress\"") != std::string::npos);
  if (try_later) {
    ++later;
    last_later_ = fmt::format("{} {}", status, in.body().substr(0, 500));
    if (Asked& asked = asked_[in.id]; !asked.settled) asked.told = fmt::format("{} {}", status, in.body().substr(0, 500));
    if (status == 503 && !in.has_header("Retry-After: ")) problem("503 without Retry-After: " + in.whole.substr(0, 600));
    return;
  }
  if (status != 200 && status != 409) return problem("an unexpected answer: " + in.whole.substr(0, 600));
  const double now = monotonic_seconds();
  if (first_answer == 0) first_answer = now;
  longest_gap_ = std::max(longest_gap_, now - last_settled_);
  last_settled_ = now;
  Asked& asked = asked_[in.id];
  std::string told = fmt::format("{} {}", status, in.body());
  if (!asked.settled) {
    asked.settled = true;
    asked.told = std::move(told);
    open_.erase(in.id);
    ++settled_;
  } else if (asked.told != told) {
    problem(fmt::format("key transfer-{} was answered '{}' and then '{}'", in.id, asked.told, told));
  }
}

void Client::load(std::uint16_t port, std::size_t requests) {
  std::size_t left = requests;
  try {
    bench::http_drive(
        port, static_cast<int>(std::min<std::size_t>(kConnections, requests)),
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

void Client::ask_all(const std::vector<std::size_t>& which, std::uint16_t port) {
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

std::vector<std::size_t> Client::still_open() {
  const std::scoped_lock lock(mutex_);
  return {open_.begin(), open_.end()};
}

void Client::settle(std::uint16_t port, double seconds) {
  const double until = monotonic_seconds() + seconds;
  for (auto open = still_open(); !open.empty() && monotonic_seconds() < until; open = still_open()) {
    ask_all(open, port);
    pause(10'000);
  }
  for (const std::size_t which : still_open())
    problem(fmt::format("transfer-{} has no settled answer after {:.0f} s: {}", which, seconds, asked_[which].told));
}

void Client::replay_all(std::uint16_t port) {
  replay_settled(port);
  for (const auto& asked : asked_) {
    const bool done = asked.told.starts_with("200");
    ++(done ? committed : declined);
    outside += done && asked.outside ? 1 : 0;
  }
  // Else it does not show that a decline is remembered.
  constexpr std::size_t kEnough = 300;
  if (opening_ == kOpening && asked_.size() >= kEnough && declined * 50 < asked_.size())
    problem(fmt::format("of {} transfers only {} were declined: the campaign shows nothing about those", asked_.size(), declined));
}

void Client::replay_settled(std::uint16_t port) {
  std::vector<std::size_t> all(asked_.size());
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = i;
  // A node that had no processor for longer than its lease says so; whoever comes again is answered.
  bool answered = false;
  for (int round = 0; round < 6 && !answered; ++round) {
    if (round != 0) pause(500'000);
    const std::uint64_t before = later;
    ask_all(all, port);  // heard() compares byte for byte
    answered = later == before;
  }
  if (!answered) problem("settled transfers were told to try later, six times in a row; the last: " + last_later_);
}

void Client::check_accounts(std::uint16_t port) {
  std::map<int, std::int64_t> expected;
  for (int i = 0; i < kAccounts; ++i) expected[i] = opening_;
  for (const auto& asked : asked_)
    if (asked.told.starts_with("200")) --expected[asked.from], ++expected[asked.to];
  // Asked of the server that has come through it all.
  for (const auto& [number, amount] : expected)
    if (const std::int64_t found = balance(port, number); found != amount)
      problem(fmt::format("account {} holds {}, the answers make it {}", number, found, amount));
}

void Client::ask_as_of_old(std::uint16_t port) {
  moves_ = false;
  opening_ = balance(port, 0);
}

std::int64_t Client::balance(std::uint16_t port, int number) {
  std::int64_t balance = -1;
  const std::string body = fmt::format(R"({{"account":{}}})", number);
  bench::http_drive(
      port, 1,
      [&, sent = false]() mutable -> std::optional<bench::Outgoing> {
        if (std::exchange(sent, true)) return std::nullopt;
        return bench::Outgoing{0, fmt::format("POST /v1/commands/crash.balance HTTP/1.1\r\nHost: l\r\n"
                                              "Content-Type: application/json\r\nAuthorization: Bearer {}\r\n"
                                              "Content-Length: {}\r\n\r\n{}", token, body.size(), body)};
      },
      [&](bench::Incoming in) {
        const auto at = in.whole.find("\"balance\":");
        if (at != std::string::npos) balance = std::atoll(in.whole.c_str() + at + 10);
      });
  return balance;
}

double Client::wall_clock(std::uint16_t port) {
  tm at{};
  bench::http_drive(
      port, 1,
      [sent = false]() mutable -> std::optional<bench::Outgoing> {
        if (std::exchange(sent, true)) return std::nullopt;
        return bench::Outgoing{0, "GET /healthz HTTP/1.1\r\nHost: l\r\n\r\n"};
      },
      [&](bench::Incoming in) {
        const auto date = in.whole.find("\r\nDate: ");
        if (date == std::string::npos || strptime(in.whole.c_str() + date + 8, "%a, %d %b %Y %H:%M:%S GMT", &at) == nullptr)
          problem("an answer without a date: " + in.whole.substr(0, 400));
      });
  return static_cast<double>(timegm(&at));
}

void Client::check_partner() {
  struct Seen { bool reserved = false, committed = false, cancelled = false; };
  std::map<std::string, Seen> seen;
  std::ifstream log(partner_log_);
  for (std::string line; std::getline(log, line);) {
    Seen& one = seen[line.substr(2, line.find_last_not_of(' ') - 1)];
    (line[0] == 'R' ? one.reserved : line[0] == 'C' ? one.committed : one.cancelled) = true;
  }
  std::uint64_t commits = 0;
  for (const auto& [name, one] : seen) {
    if (one.committed && one.cancelled) problem("the partner was told to commit and to cancel " + name);
    if (one.reserved && !one.committed && !one.cancelled) problem("the partner still holds " + name);
    if (one.committed && !one.reserved) problem("the partner was told to commit what it never reserved: " + name);
    commits += one.committed;
  }
  if (commits != outside)
    problem(fmt::format("the partner committed {} transfers, {} were acknowledged", commits, outside));
}

void Client::problem(std::string text) {
  if (++problems_ <= 20) fmt::print("WRONG: {}\n", text), std::fflush(stdout);
}

int Client::verdict() {
  fmt::print("{}\n", problems_ == 0 ? "nothing lost, nothing doubled, no reply changed" : "SOMETHING IS WRONG");
  return problems_ == 0 ? 0 : 1;
}

void Client::watch_from_now() {
  const std::scoped_lock lock(mutex_);
  last_settled_ = monotonic_seconds();
  longest_gap_ = slowest_answer_ = 0;
}
double Client::longest_gap() {
  const std::scoped_lock lock(mutex_);
  return longest_gap_;
}
double Client::slowest_answer() {
  const std::scoped_lock lock(mutex_);
  return slowest_answer_;
}

}  // namespace sluice::crash
