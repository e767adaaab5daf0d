// The server of the demonstration: a process of its own, that can be killed and started again.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>

namespace sluice::cli {

class DemoServer {
 public:
  /// Nothing is started yet. `folder` holds database and log.
  explicit DemoServer(std::string folder) : folder_(std::move(folder)) {}
  ~DemoServer();
  DemoServer(const DemoServer&) = delete;
  DemoServer& operator=(const DemoServer&) = delete;

  /// Starts `sluice serve` and waits until its doors are open; the seconds that took, or negative
  /// with `error()` set.
  double start(int port = 0);
  void kill_hard();       ///< SIGKILL, and reaps it
  bool stop_gracefully(); ///< SIGTERM; true when it ended with status 0
  void wait();            ///< until it ends by itself
  double cpu_seconds() const;

  std::uint16_t port() const { return port_; }
  /// The administrator's, told at the first start.
  const std::string& token() const { return token_; }
  std::string log_path() const { return folder_ + "/server.log"; }
  const std::string& error() const { return error_; }

 private:
  bool doors_are_open();
  std::string folder_;
  std::string error_;
  std::string token_;
  pid_t pid_ = -1;
  std::uint16_t port_ = 0;
};

}  // namespace sluice::cli
