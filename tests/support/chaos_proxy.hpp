// A TCP proxy that misbehaves on demand: stands between a client and a service of a test. One thread
// of its own; the fault can be changed at any time and holds for what arrives from then on.
#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace sluice::test {

struct Chaos {
  std::chrono::milliseconds delay{0};  ///< of every byte, in both directions
  std::size_t bytes_per_second = 0;    ///< of each direction of each connection; 0: no limit
  bool drop = false;                   ///< what arrives is thrown away, silently: a half-open connection
  bool refuse = false;                 ///< new connections are reset
  /// Resets each connection once exactly so many bytes have passed it, both directions together; 0: never.
  std::size_t reset_after = 0;
};

class ChaosProxy {
 public:
  /// Listens on a free port of the loopback and passes everything to `target` there.
  explicit ChaosProxy(std::uint16_t target) : target_(target) {
    listener_ = make_socket();
    sockaddr_in address = loopback(0);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener_, 128) != 0)
      throw std::runtime_error("chaos proxy: cannot listen");
    socklen_t size = sizeof address;
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    if (pipe2(wake_, O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error("chaos proxy: pipe");
    thread_ = std::thread([this] { run(); });
  }
  ~ChaosProxy() {
    stop_ = true;
    poke();
    thread_.join();
    close(listener_);
    close(wake_[0]);
    close(wake_[1]);
  }
  ChaosProxy(const ChaosProxy&) = delete;
  ChaosProxy& operator=(const ChaosProxy&) = delete;

  std::uint16_t port() const noexcept { return port_; }
  void set(Chaos chaos) {
    const std::lock_guard lock(mutex_);
    chaos_ = chaos;
    poke();
  }
  /// Resets every open connection.
  void cut() {
    cut_ = true;
    poke();
  }
  /// What is open now is dead for good: nothing passes, nothing ends. New connections are well.
  void strand() {
    strand_ = true;
    poke();
  }
  std::uint64_t connections() const noexcept { return accepted_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Piece {
    Clock::time_point due;
    std::string bytes;
  };
  struct Pipe {  // one direction
    int from = -1, to = -1;
    std::deque<Piece> pieces;
    Clock::time_point next_send{};
    bool ended = false;
  };
  struct Connection {
    Pipe up, down;
    std::size_t passed = 0;
    bool dead = false;
    bool stranded = false;
  };

  static int make_socket() { return socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }
  static sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
  }
  void poke() { (void)!write(wake_[1], "x", 1); }
  Chaos chaos() {
    const std::lock_guard lock(mutex_);
    return chaos_;
  }
  static void reset(Connection& c) {
    const linger now{1, 0};
    for (const int fd : {c.up.from, c.up.to}) {
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      close(fd);
    }
    c.dead = true;
  }

  void accept_all(const Chaos& chaos) {
    for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
      ++accepted_;
      auto c = std::make_unique<Connection>();
      c->up.from = c->down.to = fd;
      c->up.to = c->down.from = make_socket();
      const sockaddr_in address = loopback(target_);
      const int one = 1;
      for (const int end : {c->up.from, c->up.to}) setsockopt(end, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      const int connected = connect(c->up.to, reinterpret_cast<const sockaddr*>(&address), sizeof address);
      if (chaos.refuse || (connected != 0 && errno != EINPROGRESS)) {
        reset(*c);
        continue;
      }
      all_.push_back(std::move(c));
    }
  }

  void move(Connection& c, Pipe& pipe, const Chaos& chaos, Clock::time_point now) {
    char buffer[16 * 1024];
    // Bounded, so that a stalled receiver stalls the sender too.
    while (!pipe.ended && pipe.pieces.size() < 64) {
      const ssize_t n = recv(pipe.from, buffer, sizeof buffer, 0);
      if (n > 0) {
        if (!chaos.drop && !c.stranded) pipe.pieces.push_back({now + chaos.delay, std::string(buffer, static_cast<std::size_t>(n))});
        continue;
      }
      if (n == 0) pipe.ended = true;
      if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOTCONN) return reset(c);
      break;
    }
    while (!pipe.pieces.empty() && pipe.pieces.front().due <= now && pipe.next_send <= now) {
      auto& piece = pipe.pieces.front();
      std::size_t most = piece.bytes.size();
      if (chaos.bytes_per_second != 0) most = std::min(most, std::max<std::size_t>(1, chaos.bytes_per_second / 100));
      if (chaos.reset_after != 0) {
        if (c.passed >= chaos.reset_after) return reset(c);  // it became less meanwhile
        most = std::min(most, chaos.reset_after - c.passed);
      }
      const ssize_t n = send(pipe.to, piece.bytes.data(), most, MSG_NOSIGNAL);
      if (n < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOTCONN) break;
        return reset(c);
      }
      c.passed += static_cast<std::size_t>(n);
      if (chaos.bytes_per_second != 0) pipe.next_send = now + std::chrono::milliseconds(10);
      piece.bytes.erase(0, static_cast<std::size_t>(n));
      if (piece.bytes.empty()) pipe.pieces.pop_front();
      if (chaos.reset_after != 0 && c.passed >= chaos.reset_after) return reset(c);
    }
    if (pipe.ended && pipe.pieces.empty() && !c.stranded) shutdown(pipe.to, SHUT_WR);
  }

  void run() {
    while (!stop_) {
      std::vector<pollfd> fds{{listener_, POLLIN, 0}, {wake_[0], POLLIN, 0}};
      bool timed = false;
      for (auto& c : all_)
        for (auto* pipe : {&c->up, &c->down}) {
          if (!pipe->ended && pipe->pieces.size() < 64) fds.push_back({pipe->from, POLLIN, 0});
          timed = timed || !pipe->pieces.empty();
        }
      poll(fds.data(), fds.size(), timed ? 1 : 100);
      char drained[64];
      while (read(wake_[0], drained, sizeof drained) > 0) {
      }
      const Chaos now_chaos = chaos();
      accept_all(now_chaos);
      const auto now = Clock::now();
      const bool cut = cut_.exchange(false), strand = strand_.exchange(false);
      for (auto& c : all_) {
        c->stranded = c->stranded || strand;
        if (cut) reset(*c);
        for (auto* pipe : {&c->up, &c->down})
          if (!c->dead) move(*c, *pipe, now_chaos, now);
        if (!c->dead && c->up.ended && c->down.ended && c->up.pieces.empty() && c->down.pieces.empty()) {
          close(c->up.from);
          close(c->up.to);
          c->dead = true;
        }
      }
      std::erase_if(all_, [](const auto& c) { return c->dead; });
    }
    for (auto& c : all_) reset(*c);
  }

  const std::uint16_t target_;
  std::uint16_t port_ = 0;
  int listener_ = -1;
  int wake_[2] = {-1, -1};
  std::mutex mutex_;
  Chaos chaos_;
  std::atomic<bool> stop_{false}, cut_{false}, strand_{false};
  std::atomic<std::uint64_t> accepted_{0};
  std::vector<std::unique_ptr<Connection>> all_;  // the thread's
  std::thread thread_;
};

}  // namespace sluice::test
