// The server of the demonstration: a process of its own, that can be killed and started again.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace sluice::cli {

class DemoServer {
 public:
  /// Nothing is started yet. `folder` holds database and log, both named after `name`; `arguments`
  /// are further ones of `sluice serve`. `binary`: the sluice command; empty: this very program.
  explicit DemoServer(std::string folder, std::string name = "sluice", std::vector<std::string> arguments = {},
                      std::string binary = {})
      : folder_(std::move(folder)), name_(std::move(name)), arguments_(std::move(arguments)), binary_(std::move(binary)) {}
  std::string database() const { return folder_ + "/" + name_ + ".db"; }
  void arguments(std::vector<std::string> more) { arguments_ = std::move(more); }
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
  std::uint16_t grpc_port() const { return grpc_port_; }
  /// The administrator's, told at the first start.
  const std::string& token() const { return token_; }
  std::string log_path() const { return folder_ + "/" + name_ + ".log"; }
  const std::string& error() const { return error_; }

 private:
  bool doors_are_open();
  std::string folder_, name_;
  std::vector<std::string> arguments_;
  const std::string binary_;
  std::string error_;
  std::string token_;
  pid_t pid_ = -1;
  std::uint16_t port_ = 0, grpc_port_ = 0;
};

}  // namespace sluice::cli
