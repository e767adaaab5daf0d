#include "crash/server_process.hpp"

#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace sluice::crash {

double monotonic_seconds() {
  timespec at{};
  clock_gettime(CLOCK_MONOTONIC, &at);
  return static_cast<double>(at.tv_sec) + static_cast<double>(at.tv_nsec) * 1e-9;
}

std::vector<std::string> wrong_clock(const std::string& faketime, const std::string& by) {
  return {"LD_PRELOAD=" + faketime, "FAKETIME=" + by, "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"};
}

ServerProcess::~ServerProcess() {
  if (pid_ >= 0) kill_in(0);
  reap();
}

pid_t ServerProcess::spawn(const std::string& verb, const std::vector<std::string>& more, int out) {
  const pid_t pid = fork();
  if (pid != 0) return pid;
  const int log = open((folder_ + "/server.log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600);
  dup2(log, STDERR_FILENO);
  dup2(out >= 0 ? out : log, STDOUT_FILENO);
  std::vector<char*> arguments{binary_.data(), const_cast<char*>(verb.c_str()), folder_.data()};
  for (const auto& one : more) arguments.push_back(const_cast<char*>(one.c_str()));
  arguments.push_back(nullptr);
  for (auto& one : environment_) putenv(one.data());
  execv(binary_.c_str(), arguments.data());
  _exit(127);
}

void ServerProcess::launch() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) std::abort();
  launched_ = monotonic_seconds();
  pid_ = spawn("serve", {}, ends[1]);
  close(ends[1]);
  out_ = ends[0];
}

double ServerProcess::wait_open() {
  std::string said;
  char piece[256];
  for (;;) {
    const ssize_t got = read(out_, piece, sizeof piece);
    if (got <= 0) return -1;  // it ended, or was killed
    said.append(piece, static_cast<std::size_t>(got));
    if (said.find('\n') == std::string::npos) continue;
    port_ = static_cast<std::uint16_t>(std::atoi(said.c_str() + 5));
    return monotonic_seconds() - launched_;
  }
}

void ServerProcess::kill_in(std::uint64_t microseconds) {
  killer_ = std::thread([pid = pid_, microseconds] {
    const timespec wait{static_cast<time_t>(microseconds / 1'000'000),
                        static_cast<long>(microseconds % 1'000'000) * 1000};
    nanosleep(&wait, nullptr);
    kill(pid, SIGKILL);
  });
}

void ServerProcess::reap() {
  if (killer_.joinable()) killer_.join();
  if (pid_ >= 0) waitpid(pid_, nullptr, 0);
  if (pid_ >= 0 && !environment_.empty()) {
    // What libfaketime leaves of a killed one: the next with that number would not start.
    const std::string number = std::to_string(pid_);
    shm_unlink(("/faketime_shm_" + number).c_str());
    sem_unlink(("/faketime_sem_" + number).c_str());
  }
  if (out_ >= 0) close(out_);
  pid_ = out_ = -1;
}

void ServerProcess::freeze(bool on) { ::kill(pid_, on ? SIGSTOP : SIGCONT); }

int ServerProcess::stop_gracefully() {
  kill(pid_, SIGTERM);
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  reap();
  return status;
}

int ServerProcess::run(const std::string& verb, const std::vector<std::string>& more) {
  int status = 0;
  waitpid(spawn(verb, more, -1), &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

std::string ServerProcess::token() const {
  std::ifstream file(folder_ + "/token");
  std::string token;
  std::getline(file, token);
  return token;
}

std::string ServerProcess::log() const {
  std::ifstream file(folder_ + "/server.log");
  std::string all(std::istreambuf_iterator<char>(file), {});
  return all.size() > 6000 ? all.substr(all.size() - 6000) : all;
}

}  // namespace sluice::crash
