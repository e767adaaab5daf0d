// The other side of the crash campaigns: it sends transfers, remembers what it was told, asks again
// under the same keys, and at the end holds the server's books against its memory.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "bench/http_load.hpp"
#include "crash/server_process.hpp"

namespace sluice::crash {

/// Thread-safe where it says so; the checks at the end are for one thread.
class Client {
 public:
  Client(std::string partner_log, std::uint64_t seed);

  std::uint64_t draw(std::uint64_t bound);  ///< 0 … bound - 1, from the seed; from any thread
  /// At most `requests` over 16 connections: new transfers, and old ones again. From any thread.
  void load(std::uint16_t port, std::size_t requests = kPerRound);
  /// Asks for all that has no settled answer until each has one; what has none in time is wrong.
  void settle(std::uint16_t port, double seconds = 30);
  /// Asks for everything once more: the answers must be the same to the byte.
  void replay_settled(std::uint16_t port);
  /// The same at the end of a campaign, and counts what committed and what was declined.
  void replay_all(std::uint16_t port);
  void check_accounts(std::uint16_t port);
  std::int64_t balance(std::uint16_t port, int account);
  /// Seconds since 1970 by the server's own clock.
  double wall_clock(std::uint16_t port);
  /// Every reservation ended in exactly one way; as many commits as replies that say so.
  void check_partner();
  void problem(std::string text);
  const std::string& last_later() const { return last_later_; }  ///< for when no request is on its way
  std::uint64_t problems() const noexcept { return problems_; }
  int verdict();

  /// Between these, how long callers waited and for how long nobody got a settled answer.
  void watch_from_now();
  double longest_gap();     ///< seconds without any settled answer, since watch_from_now()
  double slowest_answer();  ///< seconds, of any kind, since watch_from_now()
  std::uint64_t settled() {
    const std::scoped_lock lock(mutex_);
    return settled_;
  }
  std::size_t asked() {
    const std::scoped_lock lock(mutex_);
    return asked_.size();
  }
  /// Sent with every request; an answer later than this and two seconds is wrong. 0: none.
  void set_deadline(double seconds) { deadline_ = seconds; }
  /// An answer that did not come at all is nothing wrong: its server was killed.
  void set_cut_off_is_wrong(bool wrong) { cut_off_is_wrong_ = wrong; }

  /// For servers of an older version: they have no transfers within the store, and may open accounts with more.
  void ask_as_of_old(std::uint16_t port);

  static void pause(std::uint64_t microseconds);
  static constexpr std::size_t kPerRound = 400;  // at most: a thousand rounds must stay checkable
  static constexpr int kConnections = 16;

  std::string token;
  std::uint64_t cut_off = 0, later = 0, committed = 0, declined = 0;
  std::uint64_t outside = 0;  ///< commits that the partner must have heard of
  double first_answer = 0;

  bench::Outgoing next();
  void heard(const bench::Incoming& in);

 private:
  struct Asked {
    int from = 0, to = 0;
    bool outside = true;  ///< with the partner
    std::string told;  ///< status and body of the first settled answer; before it, why there is none yet
    bool settled = false;
  };
  std::uint64_t roll(std::uint64_t bound);  // under the lock
  bench::Outgoing ask(std::size_t which);
  void ask_all(const std::vector<std::size_t>& which, std::uint16_t port);
  std::vector<std::size_t> still_open();

  std::mutex mutex_;
  const std::string partner_log_;
  std::string last_later_;
  std::uint64_t random_;
  double deadline_ = 0;
  bool cut_off_is_wrong_ = false;
  bool moves_ = true;
  std::int64_t opening_;
  std::vector<Asked> asked_;
  std::set<std::size_t> open_;  // not settled yet
  std::uint64_t settled_ = 0;
  double last_settled_ = 0, longest_gap_ = 0, slowest_answer_ = 0;
  std::atomic<std::uint64_t> problems_{0};
};

}  // namespace sluice::crash
