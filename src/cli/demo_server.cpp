#include "cli/demo_server.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

#include "bench/report.hpp"

namespace sluice::cli {

DemoServer::~DemoServer() { kill_hard(); }

double DemoServer::start(int port) {
  const std::string port_file = folder_ + "/port";
  std::filesystem::remove(port_file);
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string data = folder_ + "/sluice.db", token_file = folder_ + "/token",
                    port_text = std::to_string(port);
  const bench::Stopwatch watch;
  pid_ = fork();
  if (pid_ == 0) {
    const int log = open(log_path().c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
    dup2(log, STDOUT_FILENO);
    dup2(log, STDERR_FILENO);
    execl(self.c_str(), "sluice", "serve", "--data", data.c_str(), "--port", port_text.c_str(), "--port-file",
          port_file.c_str(), "--admin-token-file", token_file.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  // The file is renamed into place when the doors are open.
  while (watch.wall() < 30) {
    if (std::ifstream in(port_file); in) {
      int found = 0;
      if (in >> found) {
        port_ = static_cast<std::uint16_t>(found);
        return watch.wall();
      }
    }
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

std::string DemoServer::token() const {
  std::ifstream in(folder_ + "/token");
  std::string token;
  in >> token;
  return token;
}

}  // namespace sluice::cli
