// One event loop: an io_context and a lane driven by the same thread, and the connections that
// live there. Everything here but post-like calls belongs to that thread.
#pragma once
#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <optional>
#include <vector>

#include "sluice/base/runtime.hpp"
#include "sluice/transport/http.hpp"
#include "transport/http/clients.hpp"

namespace sluice::transport {

using Tcp = boost::asio::ip::tcp;

struct HttpMeasures {
  std::array<Counter*, 5> by_class{};  ///< responses by status class, 1xx to 5xx
  Histogram* latency = nullptr;
};

/// What a connection past a bound is told; `refusal` is not none.
Failure connection_refused(Refusal refusal, const HttpOptions& options);

/// What the loops and connections of one door share. Counters are relaxed atomics.
struct DoorShared {
  rpc::Registry& registry;
  Clock& clock;
  const HttpOptions options;
  HttpHooks hooks;
  Logger& logger;
  std::atomic<bool> draining{false};
  std::atomic<std::uint64_t> connections{0}, accepted{0}, refused{0}, requests{0}, timeouts{0},
      bad_requests{0}, running{0};
  std::array<Counter*, 2> connections_refused{};  ///< past the bound of all, of one client; may be null
  ClientCounts clients;
  std::optional<std::array<HttpMeasures, 2>> measures;  ///< of live and of shadow traffic
};

class Connection;

class Loop final : public Waker {
 public:
  Loop(DoorShared& shared, unsigned index);
  ~Loop() override;
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  void start();
  /// Ends the thread once its connections are gone, or after `grace`.
  void stop(Duration grace) noexcept;
  void wake() noexcept override;
  /// Takes an accepted socket over. On the loop's thread.
  void adopt(Tcp::socket socket, Refusal refusal, ClientCounts::Key client);
  /// Runs `work` for every connection, on the loop's thread. Thread-safe.
  void each(void (*work)(Connection&));

  Lane& lane() noexcept { return lane_; }
  boost::asio::io_context& io() noexcept { return io_; }
  DoorShared& shared() noexcept { return shared_; }
  /// The time of the current second as an HTTP date. A clock that is set takes effect within a second.
  std::string_view date(Instant now);

 private:
  friend class Connection;
  void drive();
  DoorShared& shared_;
  const unsigned index_;
  boost::asio::io_context io_{1};
  Lane lane_;
  Connection* connections_ = nullptr;
  std::size_t open_ = 0, refusing_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<Instant::rep> stop_by_{0};
  std::string date_;
  Instant date_until_{};
  Thread thread_;
};

}  // namespace sluice::transport
