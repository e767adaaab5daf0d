// A small HTTP/1.1 load generator: keep-alive connections on one thread, one request in flight on
// each, over epoll. Measures what the server at the other end can do, so it does the least.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::bench {

/// One request to send: whole bytes on the wire, and what the sender knows it by.
struct Outgoing {
  std::uint64_t id = 0;
  std::string bytes;
};
/// What came back. `whole` is empty when the connection broke before the answer was complete.
struct Incoming {
  std::uint64_t id = 0;
  std::string whole;
  double latency_us = 0;
  int status() const { return whole.size() > 12 ? std::atoi(whole.c_str() + 9) : 0; }
  std::string_view body() const;
  bool has_header(std::string_view line_start) const;  ///< "\r\nName: value" as it stands
};

/// Sends what `next` gives over `connections` connections to 127.0.0.1:`port`, one in flight on
/// each, until it gives nothing and nothing is in flight, or every connection is broken.
/// `answered` is called once for each request that was sent. With `every`, so many seconds lie between two requests of
/// a connection, or more where the answer takes longer. Returns the seconds it took.
double http_drive(std::uint16_t port, int connections, const std::function<std::optional<Outgoing>()>& next,
                  const std::function<void(Incoming)>& answered, double every = 0);

struct LoadResult {
  std::uint64_t answered = 0;
  std::uint64_t failed = 0;  ///< status other than 2xx, or a broken connection
  double seconds = 0;
  std::vector<double> latency_us;
  std::string first_failure;  ///< head of the first answer that was not 2xx
};

/// Sends requests made by `request(n)` until `seconds` have passed, then waits for what is in flight.
LoadResult http_load(std::uint16_t port, int connections, double seconds,
                     const std::function<std::string(std::uint64_t)>& request);

/// A child process; killed and reaped when it goes.
class Child {
 public:
  /// Forks and runs `body`; its result is the exit status.
  explicit Child(const std::function<int()>& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  int pid() const { return pid_; }
  /// CPU seconds used so far, user and system.
  double cpu() const;

 private:
  int pid_;
};

/// Serves bare Beast echoes (each request's body comes back) on a free port of the loopback; says
/// the port through `on_ready`, and never returns.
void bare_beast_echo(const std::function<void(std::uint16_t)>& on_ready);

}  // namespace sluice::bench
