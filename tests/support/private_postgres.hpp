// A PostgreSQL of the test binary's own: started when first asked for, shared by its tests, gone with
// the process. Each test takes a database of its own.
#pragma once
#include <arpa/inet.h>
#include <fcntl.h>
#include <libpq-fe.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/temp_folder.hpp"

namespace sluice::testing_support {

/// One that nobody listened on a moment ago.
inline std::uint16_t free_port() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  ::close(fd);
  return ntohs(address.sin_port);
}

class PrivatePostgres {
 public:
  /// The binary's shared server.
  static PrivatePostgres& shared() {
    static PrivatePostgres server;
    return server;
  }
  /// Another one, which survives no power cut: for suites that are about something else.
  static PrivatePostgres& quick() {
    static PrivatePostgres server({"fsync=off", "full_page_writes=off"});
    return server;
  }
  explicit PrivatePostgres(std::vector<std::string> settings = {}) : settings_(std::move(settings)) {
    // The server's user is not ours when we are root.
    ::chmod(folder_.path().c_str(), 0755);
    for (int attempt = 0;; ++attempt) {
      port_ = free_port();
      start();
      if (ready()) return;
      stop(SIGQUIT);
      if (attempt == 2) throw std::runtime_error("PostgreSQL did not start: " + log());
    }
  }
  PrivatePostgres(const PrivatePostgres&) = delete;
  PrivatePostgres& operator=(const PrivatePostgres&) = delete;
  ~PrivatePostgres() { stop(SIGQUIT); }

  std::uint16_t port() const { return port_; }
  pid_t pid() const { return pid_; }
  const std::string& folder() const { return folder_.path(); }
  std::string socket_url(const std::string& database) const {
    return "postgres://sluice@/" + database + "?host=" + folder_.file("pg") + "&port=" + std::to_string(port_);
  }
  std::string tcp_url(const std::string& database, std::uint16_t port = 0) const {
    return "postgres://sluice@127.0.0.1:" + std::to_string(port != 0 ? port : port_) + "/" + database;
  }
  /// Creates a database with a name nobody else has, and returns the name.
  std::string new_database() {
    const std::string name = "t" + std::to_string(++databases_);
    sql("CREATE DATABASE " + name, "template1");
    return name;
  }
  /// Runs it; the first column of the first row, or nothing. Throws with the server's message.
  std::string sql(const std::string& text, const std::string& database) {
    struct Close {
      void operator()(PGconn* c) const { PQfinish(c); }
      void operator()(PGresult* r) const { PQclear(r); }
    };
    const std::unique_ptr<PGconn, Close> connection(PQconnectdb(socket_url(database).c_str()));
    const std::unique_ptr<PGresult, Close> result(PQexec(connection.get(), text.c_str()));
    const auto status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
      throw std::runtime_error("PostgreSQL: " + std::string(PQerrorMessage(connection.get())));
    return PQntuples(result.get()) > 0 ? PQgetvalue(result.get(), 0, 0) : "";
  }
  /// As after a power cut of the database alone; then up again on the same port.
  void crash_and_restart() {
    stop(SIGQUIT);
    restart();
  }
  void stop(int signal) {
    if (pid_ <= 0) return;
    ::kill(pid_, signal);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }
  bool alive() {
    if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
    return pid_ > 0;
  }
  void restart() {
    start();
    if (!ready()) throw std::runtime_error("PostgreSQL did not come back: " + log());
  }
  std::string log() const {
    std::ifstream in(folder_.file("log"));
    std::stringstream all;
    all << in.rdbuf();
    return all.str();
  }

 private:
  void start() {
    const std::string log = folder_.file("log"), folder = folder_.file("pg"), port = std::to_string(port_);
    std::vector<std::string> words{SLUICE_SOURCE_DIR "/scripts/private_postgres.sh", folder, port};
    words.insert(words.end(), settings_.begin(), settings_.end());
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
      dup2(fd, 1);
      dup2(fd, 2);
      execv(arguments[0], arguments.data());
      _exit(127);
    }
  }
  // Up when it answers a query, not when it listens: it also refuses while it recovers.
  bool ready() {
    for (int i = 0; i < 1200; ++i) {
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
        pid_ = -1;
        return false;
      }
      try {
        if (::access((folder_.file("pg") + "/.s.PGSQL." + std::to_string(port_)).c_str(), F_OK) == 0 &&
            sql("SELECT 1", "template1") == "1")
          return true;
      } catch (const std::exception&) {
      }
      ::poll(nullptr, 0, 25);
    }
    return false;
  }

  TempFolder folder_;
  std::vector<std::string> settings_;
  std::uint16_t port_ = 0;
  pid_t pid_ = -1;
  std::atomic<int> databases_{0};
};

}  // namespace sluice::testing_support
