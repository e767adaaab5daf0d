// A server that says what it is told to, whatever it is asked.
#pragma once
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "support/loopback_listener.hpp"

namespace sluice::cli_test {

/// Gives these bodies to as many requests, one a connection, and keeps what was asked.
class CannedAnswers {
 public:
  explicit CannedAnswers(std::vector<std::string> bodies) : thread_([this, bodies] {
    for (const auto& body : bodies) answer(body);
  }) {}
  ~CannedAnswers() { end(); }
  void end() {
    listener_.end();
    if (thread_.joinable()) thread_.join();
  }
  std::string server() const { return listener_.url(); }
  std::vector<nlohmann::json> asked;

 private:
  void answer(const std::string& body) {
    const int one = listener_.accept();
    if (one < 0) return;
    std::string request;
    char some[4096];
    for (ssize_t got; (got = ::read(one, some, sizeof some)) > 0;) {
      request.append(some, static_cast<std::size_t>(got));
      const auto end = request.find("\r\n\r\n");
      if (end == std::string::npos) continue;
      const auto payload = nlohmann::json::parse(request.substr(end + 4), nullptr, false);
      if (payload.is_discarded()) continue;
      asked.push_back(payload);
      break;
    }
    const std::string reply = "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    (void)!::write(one, reply.data(), reply.size());
    close(one);
  }
  testing_support::LoopbackListener listener_;
  std::thread thread_;
};

}  // namespace sluice::cli_test
