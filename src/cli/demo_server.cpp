#include "cli/demo_server.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "bench/report.hpp"

namespace sluice::cli {

DemoServer::~DemoServer() { kill_hard(); }

double DemoServer::start(int port) {
  const std::string self = binary_.empty() ? std::filesystem::read_symlink("/proc/self/exe").string() : binary_;
  const std::string data = database(), port_text = std::to_string(port);
  std::filesystem::remove(log_path());
  const bench::Stopwatch watch;
  pid_ = fork();
  if (pid_ == 0) {
    const int log = open(log_path().c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    setenv("SLUICE_STORE_PATH", data.c_str(), 1);
    setenv("SLUICE_HTTP_PORT", port_text.c_str(), 1);
    setenv("SLUICE_LOG_LEVEL", "warn", 1);
    std::vector<char*> argv{const_cast<char*>("sluice"), const_cast<char*>("serve")};
    for (auto& argument : arguments_) argv.push_back(argument.data());
    argv.push_back(nullptr);
    execv(self.c_str(), argv.data());
    _exit(127);
  }
  while (watch.wall() < 30) {
    if (doors_are_open()) return watch.wall();
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      break;
    }
    ::poll(nullptr, 0, 2);
  }
  std::ifstream log(log_path());
  error_ = "the server did not start; its log says:\n" + std::string(std::istreambuf_iterator<char>(log), {});
  return -1;
}

// `sluice serve` prints the token on the first start, and its address once it listens.
bool DemoServer::doors_are_open() {
  std::ifstream log(log_path());
  bool token_next = false;
  const bool wants_grpc = std::ranges::find(arguments_, "--grpc-listen") != arguments_.end();
  port_ = grpc_port_ = 0;
  for (std::string line; std::getline(log, line);) {
    if (token_next && token_.empty()) token_ = line.substr(std::min(line.find_first_not_of(' '), line.size()));
    token_next = line.find("administrator's token") != std::string::npos;
    if (const auto grpc = line.rfind("(port "); line.starts_with("gRPC on ") && grpc != std::string::npos)
      grpc_port_ = static_cast<std::uint16_t>(std::atoi(line.c_str() + grpc + 6));
    const auto at = line.rfind(':');
    if (!line.starts_with("Listening on http://") || at == std::string::npos || log.eof()) continue;
    port_ = static_cast<std::uint16_t>(std::atoi(line.c_str() + at + 1));
  }
  return port_ != 0 && (!wants_grpc || grpc_port_ != 0);
}

void DemoServer::kill_hard() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

bool DemoServer::stop_gracefully() {
  if (pid_ < 0) return false;
  ::kill(pid_, SIGTERM);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void DemoServer::wait() {
  if (pid_ >= 0) waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

double DemoServer::cpu_seconds() const {
  std::FILE* file = std::fopen(("/proc/" + std::to_string(pid_) + "/stat").c_str(), "r");
  if (file == nullptr) return 0;
  unsigned long user = 0, system = 0;
  const int got = std::fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
  std::fclose(file);
  return got == 2 ? static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK)) : 0;
}

}  // namespace sluice::cli
