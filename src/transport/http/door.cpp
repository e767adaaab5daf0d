#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/post.hpp>

#include "transport/http/connection.hpp"

namespace sluice::transport {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {
// Out of file descriptors, say: try again when some may have been closed.
constexpr Duration kAcceptPause = milliseconds(100);
constexpr Duration kStopGrace = seconds(2);
}  // namespace

struct HttpDoor::Impl {
  Impl(rpc::Registry& registry, Clock& clock, HttpOptions options, HttpHooks hooks, Logger& logger)
      : shared{registry, clock, std::move(options), std::move(hooks), logger} {
    const unsigned count = std::max(1u, shared.options.loops);
    for (unsigned i = 0; i < count; ++i) loops.push_back(std::make_unique<Loop>(shared, i));
  }

  Status listen();
  void accept();
  void accepted(Tcp::socket socket, Loop& loop);
  void close_acceptor() {
    error_code ignored;
    if (acceptor) acceptor->close(ignored);
    pause.cancel();
  }

  DoorShared shared;
  std::vector<std::unique_ptr<Loop>> loops;
  std::optional<Tcp::acceptor> acceptor;  // on the first loop's thread after start()
  Timer pause;
  std::size_t next_loop = 0;
  std::uint16_t port = 0;
  bool running = false;
};

Status HttpDoor::Impl::listen() {
  const auto& options = shared.options;
  const std::string where = options.address + ":" + std::to_string(options.port);
  error_code error;
  const auto address = asio::ip::make_address(options.address, error);
  if (error)
    return fail(FailureKind::invalid_argument, "bad_address",
                "http.address: expected an IPv4 or IPv6 address, got '" + options.address + "'");
  const Tcp::endpoint endpoint(address, options.port);
  acceptor.emplace(loops[0]->io());
  const auto step = [&](const char* what) -> Status {
    if (!error) return {};
    std::string advice;
    if (error == asio::error::address_in_use)
      advice = "; another process has this port: stop it, or set http.port to a free one";
    else if (error == asio::error::access_denied)
      advice = "; ports below 1024 need a privilege: set http.port to a higher one";
    acceptor.reset();
    return fail(FailureKind::unavailable, "cannot_listen",
                std::string(what) + " " + where + ": " + error.message() + advice);
  };
  acceptor->open(endpoint.protocol(), error);
  SLUICE_TRY(step("opening a socket for"));
  acceptor->set_option(asio::socket_base::reuse_address(true), error);
  SLUICE_TRY(step("preparing"));
  acceptor->bind(endpoint, error);
  SLUICE_TRY(step("listening on"));
  acceptor->listen(asio::socket_base::max_listen_connections, error);
  SLUICE_TRY(step("listening on"));
  port = acceptor->local_endpoint(error).port();
  return step("listening on");
}

void HttpDoor::Impl::accept() {
  Loop& loop = *loops[next_loop++ % loops.size()];
  acceptor->async_accept(loop.io(), [this, &loop](error_code error, Tcp::socket socket) {
    if (error == asio::error::operation_aborted || !acceptor->is_open()) return;
    if (error) {
      shared.logger.warn("a connection could not be accepted", {{"error", error.message()}});
      pause.arm(
          loops[0]->lane(), shared.clock.now() + kAcceptPause,
          [](void* self) noexcept { static_cast<Impl*>(self)->accept(); }, this);
      return;
    }
    accepted(std::move(socket), loop);
    accept();
  });
}

void HttpDoor::Impl::accepted(Tcp::socket socket, Loop& loop) {
  shared.accepted.fetch_add(1, std::memory_order_relaxed);
  const auto& options = shared.options;
  Refusal refusal = Refusal::none;
  ClientCounts::Key client{};
  if (shared.connections.load(std::memory_order_relaxed) >= options.max_connections)
    refusal = Refusal::full;
  if (refusal == Refusal::none && options.max_connections_per_client > 0) {
    error_code gone;  // a peer that has left already counts as 0.0.0.0 and is found out by reading
    const auto peer = socket.remote_endpoint(gone);
    client = ClientCounts::key_of(peer.address());
    if (!shared.clients.add(client, options.max_connections_per_client))
      refusal = Refusal::client_full;
  }
  (refusal != Refusal::none ? shared.refused : shared.connections).fetch_add(1, std::memory_order_relaxed);
  if (refusal != Refusal::none)
    if (Counter* counter = shared.connections_refused[refusal == Refusal::client_full]) counter->add();
  if (&loop == loops[0].get()) return loop.adopt(std::move(socket), refusal, client);
  asio::post(loop.io(), [&loop, refusal, client, moved = std::move(socket)]() mutable {
    loop.adopt(std::move(moved), refusal, client);
  });
}

HttpDoor::HttpDoor(rpc::Registry& registry, Clock& clock, HttpOptions options, HttpHooks hooks,
                   Logger& logger, Metrics* metrics)
    : impl_(new Impl(registry, clock, std::move(options), std::move(hooks), logger)) {
  if (metrics == nullptr) return;
  for (const bool of_client : {false, true})
    impl_->shared.connections_refused[of_client] =
        &metrics->counter("sluice_http_connections_refused_total", "Connections past a bound, told 503 and closed",
                          {{"bound", of_client ? "client" : "server"}});
  auto& measures = impl_->shared.measures.emplace();
  for (const bool shadow : {false, true}) {
    const std::string traffic = shadow ? "shadow" : "live";
    for (std::size_t i = 0; i < 5; ++i)
      measures[shadow].by_class[i] = &metrics->counter("sluice_http_responses_total", "Responses by status class",
                                                       {{"class", std::to_string(i + 1) + "xx"}, {"traffic", traffic}});
    measures[shadow].latency = &metrics->histogram(
        "sluice_http_request_seconds", "From the whole request to its answer, without the network", {{"traffic", traffic}});
  }
}

HttpDoor::~HttpDoor() { stop(); }

Status HttpDoor::start() {
  SLUICE_TRY(impl_->listen());
  impl_->running = true;
  for (auto& loop : impl_->loops) loop->start();
  asio::post(impl_->loops[0]->io(), [impl = impl_.get()] { impl->accept(); });
  return {};
}

void HttpDoor::drain() noexcept {
  if (!impl_->running || impl_->shared.draining.exchange(true)) return;
  asio::post(impl_->loops[0]->io(), [impl = impl_.get()] { impl->close_acceptor(); });
  for (auto& loop : impl_->loops) loop->each([](Connection& c) { c.drain(); });
}

bool HttpDoor::drained() noexcept {
  return impl_->shared.connections.load(std::memory_order_acquire) == 0;
}

void HttpDoor::cancel() noexcept {
  if (!impl_->running) return;
  drain();
  for (auto& loop : impl_->loops) loop->each([](Connection& c) { c.cancel(); });
}

void HttpDoor::stop() noexcept {
  if (!impl_->running) return;
  cancel();
  for (auto& loop : impl_->loops) loop->stop(kStopGrace);
  impl_->acceptor.reset();
  impl_->running = false;
}

std::uint16_t HttpDoor::port() const noexcept { return impl_->port; }
std::size_t HttpDoor::lanes() const noexcept { return impl_->loops.size(); }
Lane& HttpDoor::lane(std::size_t i) noexcept { return impl_->loops[i]->lane(); }

HttpStats HttpDoor::stats() const noexcept {
  const auto& s = impl_->shared;
  const auto get = [](const std::atomic<std::uint64_t>& n) {
    return n.load(std::memory_order_relaxed);
  };
  return {get(s.connections), get(s.accepted), get(s.refused),
          get(s.requests),    get(s.timeouts), get(s.bad_requests)};
}

}  // namespace sluice::transport
