// The crash server as a child process: started, killed at any instant, started again.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace sluice::crash {

class ServerProcess {
 public:
  /// `environment`: NAME=VALUE that it has besides ours.
  ServerProcess(std::string binary, std::string folder, std::vector<std::string> environment = {})
      : binary_(std::move(binary)), folder_(std::move(folder)), environment_(std::move(environment)) {}
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  /// Forks; does not wait.
  void launch();
  /// Until the doors are open; seconds since launch(), negative when it ended instead.
  double wait_open();
  /// SIGKILL from a thread of its own, this many microseconds from now.
  void kill_in(std::uint64_t microseconds);
  /// Waits for kill_in() and reaps.
  void reap();
  /// SIGSTOP and SIGCONT.
  void freeze(bool on);
  int stop_gracefully();  ///< SIGTERM; the status waitpid gives
  std::uint16_t port() const { return port_; }
  std::string token() const;
  std::string log() const;  ///< what it said on standard error, its last lines
  /// Runs the binary with these arguments to its end; its status.
  int run(const std::string& verb, const std::vector<std::string>& more);

 private:
  pid_t spawn(const std::string& verb, const std::vector<std::string>& more, int out);
  std::string binary_, folder_;
  std::vector<std::string> environment_;
  pid_t pid_ = -1;
  int out_ = -1;
  std::uint16_t port_ = 0;
  double launched_ = 0;
  std::thread killer_;
};

double monotonic_seconds();
/// For a server whose wall clock goes wrong by so much ("+2h"), while its monotonic one goes right. `faketime`: the library.
std::vector<std::string> wrong_clock(const std::string& faketime, const std::string& by);

}  // namespace sluice::crash
