// A port of this machine that somebody may connect to, for peers that misbehave.
#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

namespace sluice::testing_support {

class LoopbackListener {
 public:
  LoopbackListener() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address);
    listen(fd_, 8);
    socklen_t size = sizeof address;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
  }
  LoopbackListener(const LoopbackListener&) = delete;
  LoopbackListener& operator=(const LoopbackListener&) = delete;
  ~LoopbackListener() { close(fd_); }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  /// The next connection, the caller's to close; negative after end().
  int accept() const { return accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC); }
  /// Ends an accept that nobody came to. From any thread.
  void end() const { shutdown(fd_, SHUT_RDWR); }

 private:
  int fd_;
  int port_ = 0;
};

}  // namespace sluice::testing_support
