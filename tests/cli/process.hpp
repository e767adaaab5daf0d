// The sluice binary as its users run it: arguments and environment in, status and output back.
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "support/temp_folder.hpp"

namespace sluice::cli_test {

using Arguments = std::vector<std::string>;
using Settings = std::vector<std::pair<std::string, std::string>>;

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Starts the binary in `folder` with only these settings of its own; output goes to out and err.
inline pid_t spawn(const std::string& folder, const Arguments& arguments, const Settings& settings, int out, int err) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  if (chdir(folder.c_str()) != 0) _exit(126);
  for (const char* name : {"SLUICE_TOKEN", "SLUICE_SERVER", "SLUICE_CONFIG", "SLUICE_STORE_PATH", "SLUICE_GRPC"}) unsetenv(name);
  for (const auto& [name, value] : settings) setenv(name.c_str(), value.c_str(), 1);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  std::vector<char*> argv{const_cast<char*>("sluice")};
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(SLUICE_BINARY, argv.data());
  _exit(127);
}

struct Ran {
  int status = -1;
  std::string out, err;
};

inline Ran run(const std::string& folder, const Arguments& arguments, const Settings& settings = {}) {
  const std::string out_path = folder + "/.out", err_path = folder + "/.err";
  const int out = open(out_path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  const int err = open(err_path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  const pid_t pid = spawn(folder, arguments, settings, out, err);
  close(out);
  close(err);
  int status = 0;
  waitpid(pid, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status), read_file(out_path), read_file(err_path)};
}

/// `sluice serve` on a free port unless `more` has --listen, until the end of the scope.
class Serving {
 public:
  explicit Serving(std::string folder, Arguments more = {}, const Settings& settings = {}) : folder_(std::move(folder)) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
    const int err = open((folder_ + "/server.err").c_str(), O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
    Arguments arguments{"serve"};
    if (std::ranges::find(more, "--listen") == more.end()) arguments.insert(arguments.end(), {"--listen", "127.0.0.1:0"});
    arguments.insert(arguments.end(), more.begin(), more.end());
    pid_ = spawn(folder_, arguments, settings, ends[1], err);
    close(ends[1]);
    close(err);
    std::string said;
    char piece[512];
    for (ssize_t got; (got = read(ends[0], piece, sizeof piece)) > 0;) {
      said.append(piece, static_cast<std::size_t>(got));
      const auto at = said.find("Listening on http://127.0.0.1:");
      if (at == std::string::npos || said.find('\n', at) == std::string::npos) continue;
      address_ = said.substr(at + 13, said.find('\n', at) - at - 13);
      if (std::ranges::find(arguments, "--grpc-listen") == arguments.end()) break;
      const auto grpc = said.find("(port ", at);  // its line comes after
      if (grpc == std::string::npos || said.find('\n', grpc) == std::string::npos) continue;
      grpc_port_ = std::atoi(said.c_str() + grpc + 6);
      break;
    }
    out_ = ends[0];
    if (const auto at = said.find("  slc_"); at != std::string::npos)
      token_ = said.substr(at + 2, said.find('\n', at) - at - 2);
  }
  ~Serving() { stop(); }
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;
  /// SIGTERM; the exit status.
  int stop() {
    if (pid_ < 0) return -1;
    kill(pid_, SIGTERM);
    int status = 0;
    waitpid(pid_, &status, 0);
    close(out_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }
  pid_t pid() const { return pid_; }
  /// As a crash would: SIGKILL.
  void crash() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(out_);
    pid_ = -1;
  }
  const std::string& address() const { return address_; }
  const std::string& token() const { return token_; }
  /// A server that was started again does not tell its token again.
  void use_token(std::string token) { token_ = std::move(token); }
  /// With --grpc-listen.
  std::string grpc() const { return "127.0.0.1:" + std::to_string(grpc_port_); }
  Settings settings() const { return {{"SLUICE_SERVER", address_}, {"SLUICE_TOKEN", token_}}; }
  Ran ask(const Arguments& arguments) const { return run(folder_, arguments, settings()); }

 private:
  std::string folder_, address_, token_;
  pid_t pid_ = -1;
  int out_ = -1;
  int grpc_port_ = 0;
};

}  // namespace sluice::cli_test
