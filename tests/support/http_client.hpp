// A blocking HTTP client over a plain socket, for tests: it can send what no proper client would.
#pragma once
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::test {

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower-case names
  std::string body;
  bool has(std::string_view text) const { return body.find(text) != std::string::npos; }
};

class HttpClient {
 public:
  explicit HttpClient(std::uint16_t port, int receive_buffer = 0) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (receive_buffer > 0)
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;
  ~HttpClient() { ::close(fd_); }

  bool connected() const { return connected_; }
  /// False once the peer has gone.
  bool send(std::string_view text) {
    while (!text.empty()) {
      const auto n = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(n));
    }
    return true;
  }
  /// The next whole response; nothing if the peer closes first or `wait_ms` pass.
  std::optional<HttpResponse> receive(int wait_ms = 10'000) {
    for (;;) {
      if (auto response = parse()) return response;
      if (!fill(wait_ms)) return std::nullopt;
    }
  }
  /// True when the peer has closed and everything was read.
  bool closed(int wait_ms = 10'000) {
    while (!eof_ && fill(wait_ms)) {
    }
    return eof_;
  }
  std::optional<HttpResponse> ask(std::string_view text) {
    send(text);
    return receive();
  }

 private:
  bool fill(int wait_ms) {
    pollfd waiting{fd_, POLLIN, 0};
    if (::poll(&waiting, 1, wait_ms) <= 0) return false;
    char buffer[65536];
    const auto n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n <= 0) {
      eof_ = true;
      return false;
    }
    in_.append(buffer, static_cast<std::size_t>(n));
    return true;
  }
  std::optional<HttpResponse> parse() {
    const auto end = in_.find("\r\n\r\n");
    if (end == std::string::npos) return std::nullopt;
    HttpResponse response;
    std::string_view head(in_.data(), end + 2);
    response.status = std::atoi(std::string(head.substr(9, 3)).c_str());
    head.remove_prefix(head.find("\r\n") + 2);
    while (!head.empty()) {
      const auto line = head.substr(0, head.find("\r\n"));
      head.remove_prefix(line.size() + 2);
      std::string name(line.substr(0, line.find(':')));
      std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
      response.headers[name] = line.substr(std::min(line.size(), name.size() + 2));
    }
    const auto length = response.headers.find("content-length");
    const std::size_t size =
        length == response.headers.end() ? 0 : std::strtoul(length->second.c_str(), nullptr, 10);
    if (in_.size() < end + 4 + size) return std::nullopt;
    response.body = in_.substr(end + 4, size);
    in_.erase(0, end + 4 + size);
    return response;
  }

  int fd_ = -1;
  bool connected_ = false;
  bool eof_ = false;
  std::string in_;
};

/// POST of a command with JSON. `headers` are whole lines.
inline std::string post(std::string_view command, std::string_view body,
                        std::string_view headers = {}) {
  std::string text = "POST /v1/commands/" + std::string(command) + " HTTP/1.1\r\nHost: t\r\n";
  text += headers;
  text += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
  text += body;
  return text;
}
inline std::string get(std::string_view path, std::string_view headers = {}) {
  return "GET " + std::string(path) + " HTTP/1.1\r\nHost: t\r\n" + std::string(headers) + "\r\n";
}

}  // namespace sluice::test
