// Peers that a client hopes never to meet: one that listens and says nothing, one that says the
// wrong thing, and a relay to a good one that can be cut in the middle.
#pragma once
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "sluice/base/runtime.hpp"

namespace sluice::test {

inline sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

/// A port that nobody listens on: bound, never listened, until this goes.
class DeadPort {
 public:
  DeadPort() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    auto address = loopback(0);
    ::bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    socklen_t size = sizeof address;
    ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  DeadPort(const DeadPort&) = delete;
  DeadPort& operator=(const DeadPort&) = delete;
  ~DeadPort() { ::close(fd_); }
  std::uint16_t port() const { return port_; }

 private:
  int fd_;
  std::uint16_t port_ = 0;
};

/// Greets each connection (with nothing: hangs), and relays to `to` when that is set.
class TcpPeer {
 public:
  explicit TcpPeer(std::string greeting = {}, std::uint16_t to = 0)
      : greeting_(std::move(greeting)), to_(to) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto address = loopback(0);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    ::listen(listener_, 16);
    socklen_t size = sizeof address;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = Thread("peer", [this] { run(); });
  }
  TcpPeer(const TcpPeer&) = delete;
  TcpPeer& operator=(const TcpPeer&) = delete;
  ~TcpPeer() {
    stop_ = true;
    thread_.join();
    ::close(listener_);
  }
  std::uint16_t port() const { return port_; }
  std::size_t accepted() const { return accepted_; }
  /// Resets all connections that are there, once; with `heal` nothing is held any more after it.
  void cut(bool heal = false) {
    heal_ = heal;
    cut_ = true;
  }
  bool has_cut() const { return !cut_; }
  /// Takes what either side sends and passes none of it on.
  void hold(bool on) { hold_ = on; }

 private:
  void run() {
    std::vector<std::pair<int, int>> pairs;  // client, server (-1: none)
    while (!stop_) {
      if (cut_) {
        drop(pairs);
        if (heal_) hold_ = false;
        cut_ = false;
      }
      std::vector<pollfd> polled{{listener_, POLLIN, 0}};
      for (const auto& [client, server] : pairs) {
        polled.push_back({client, POLLIN, 0});
        polled.push_back({server, POLLIN, 0});
      }
      ::poll(polled.data(), polled.size(), 2);
      if ((polled[0].revents & POLLIN) != 0) pairs.push_back(take());
      for (std::size_t i = 0; 2 * i + 2 < polled.size(); ++i) {
        pass(polled[2 * i + 1], pairs[i].first, pairs[i].second);
        pass(polled[2 * i + 2], pairs[i].second, pairs[i].first);
      }
    }
    drop(pairs);
  }
  std::pair<int, int> take() {
    const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    ++accepted_;
    if (!greeting_.empty()) (void)::send(client, greeting_.data(), greeting_.size(), MSG_NOSIGNAL);
    int server = -1;
    if (to_ != 0) {
      server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      auto address = loopback(to_);
      (void)::connect(server, reinterpret_cast<sockaddr*>(&address), sizeof address);
    }
    return {client, server};
  }
  void pass(const pollfd& polled, int& from, int to) {
    if (from < 0 || polled.fd != from || polled.revents == 0) return;
    char bytes[4096];
    const auto n = ::recv(from, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n == 0) {
      ::close(std::exchange(from, -1));
      if (to >= 0) ::shutdown(to, SHUT_WR);
    }
    if (n > 0 && to >= 0 && !hold_) (void)::send(to, bytes, static_cast<std::size_t>(n), MSG_NOSIGNAL);
  }
  static void drop(std::vector<std::pair<int, int>>& pairs) {
    const linger now{1, 0};
    for (const auto& [client, server] : pairs)
      for (const int fd : {client, server}) {
        if (fd < 0) continue;
        ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
        ::close(fd);
      }
    pairs.clear();
  }
  const std::string greeting_;
  const std::uint16_t to_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_{false}, cut_{false}, heal_{false}, hold_{false};
  std::atomic<std::size_t> accepted_{0};
  Thread thread_;
};

}  // namespace sluice::test
