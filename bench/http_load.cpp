#include "bench/http_load.hpp"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "bench/report.hpp"

namespace sluice::bench {
namespace {

int connect_to(std::uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("cannot connect to 127.0.0.1:" + std::to_string(port));
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

struct Connection {
  int fd = -1;
  std::string in;
  std::uint64_t id = 0;
  double sent_at = 0;
  bool waiting = false;
  bool resting = false;  // until due
  double due = 0;
};

// Bytes of the first whole response in `in`, or 0.
std::size_t whole_response(const std::string& in) {
  const auto head = in.find("\r\n\r\n");
  if (head == std::string::npos) return 0;
  std::size_t length = 0;
  for (const char* name : {"Content-Length: ", "content-length: "})
    if (const auto at = in.find(name); at != std::string::npos && at < head)
      length = std::strtoul(in.c_str() + at + 16, nullptr, 10);
  const std::size_t total = head + 4 + length;
  return in.size() >= total ? total : 0;
}

}  // namespace

std::string_view Incoming::body() const {
  const auto head = whole.find("\r\n\r\n");
  return head == std::string::npos ? std::string_view() : std::string_view(whole).substr(head + 4);
}

bool Incoming::has_header(std::string_view line_start) const {
  const auto at = whole.find("\r\n" + std::string(line_start));
  return at != std::string::npos && at < whole.find("\r\n\r\n");
}

double http_drive(std::uint16_t port, int connections, const std::function<std::optional<Outgoing>()>& next,
                  const std::function<void(Incoming)>& answered, double every) {
  std::vector<Connection> all(static_cast<std::size_t>(connections));
  const int poll = epoll_create1(0);
  int in_flight = 0;
  const Stopwatch watch;
  const auto broken = [&](Connection& c) {
    if (c.fd >= 0) close(c.fd);
    c.fd = -1;
    c.in.clear();
    if (!c.waiting) return;
    c.waiting = false;
    --in_flight;
    answered({c.id, {}, (watch.wall() - c.sent_at) * 1e6});
  };
  const auto send_one = [&](Connection& c) {
    auto outgoing = next();
    if (!outgoing) return;
    c.id = outgoing->id;
    c.sent_at = watch.wall();
    c.waiting = true;
    ++in_flight;
    const auto& bytes = outgoing->bytes;
    if (::send(c.fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size()))
      broken(c);
  };
  const auto open = [&](std::size_t i) {
    all[i].fd = connect_to(port);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
  };
  const auto rest_until = [&](Connection& c, double due) {
    c.due = due;
    c.resting = every > 0;
    if (!c.resting) send_one(c);
  };
  // Those that are due send; milliseconds until the next is, or 10 s.
  const auto wake = [&] {
    double soonest = 10;
    for (auto& c : all) {
      if (!c.resting) continue;
      if (c.due <= watch.wall()) {
        c.resting = false;
        if (c.fd >= 0) send_one(c);
      } else {
        soonest = std::min(soonest, c.due - watch.wall());
      }
    }
    return static_cast<int>(std::max(0.0, soonest) * 1000) + (every > 0 ? 1 : 0);
  };
  const auto resting = [&] { return every > 0 && std::ranges::any_of(all, &Connection::resting); };
  for (std::size_t i = 0; i < all.size(); ++i) {
    open(i);
    rest_until(all[i], every * static_cast<double>(i) / connections);
  }
  std::vector<epoll_event> events(256);
  char buffer[65536];
  while (in_flight > 0 || resting()) {
    const int patience = every > 0 ? wake() : 10'000;
    if (in_flight == 0 && !resting()) break;  // nothing more is to be sent
    const int n = epoll_wait(poll, events.data(), static_cast<int>(events.size()), patience);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0 && resting()) continue;
    if (n <= 0) {
      for (auto& c : all) broken(c);
      break;
    }
    for (int e = 0; e < n; ++e) {
      const auto index = events[static_cast<std::size_t>(e)].data.u64;
      Connection& c = all[index];
      if (c.fd < 0) continue;
      const ssize_t got = read(c.fd, buffer, sizeof buffer);
      if (got > 0) c.in.append(buffer, static_cast<std::size_t>(got));
      const std::size_t size = whole_response(c.in);
      if (size == 0) {
        if (got <= 0) broken(c);
        continue;
      }
      Incoming incoming{c.id, c.in.substr(0, size), (watch.wall() - c.sent_at) * 1e6};
      c.in.erase(0, size);
      c.waiting = false;
      --in_flight;
      // After a refusal the server may close; a new connection is opened for what follows.
      const bool closing = incoming.has_header("Connection: close") || incoming.has_header("connection: close");
      answered(std::move(incoming));
      if (closing) {
        close(c.fd);
        c.fd = -1;
        try {
          open(index);
        } catch (const std::exception&) {
          continue;
        }
      }
      rest_until(c, c.sent_at + every);
    }
  }
  for (auto& c : all)
    if (c.fd >= 0) close(c.fd);
  close(poll);
  return watch.wall();
}

LoadResult http_load(std::uint16_t port, int connections, double seconds,
                     const std::function<std::string(std::uint64_t)>& request) {
  LoadResult result;
  std::uint64_t n = 0;
  const Stopwatch watch;
  result.seconds = http_drive(
      port, connections,
      [&]() -> std::optional<Outgoing> {
        if (watch.wall() >= seconds) return std::nullopt;
        std::string bytes = request(n);
        return Outgoing{n++, std::move(bytes)};
      },
      [&](Incoming incoming) {
        ++result.answered;
        result.latency_us.push_back(incoming.latency_us);
        if (incoming.status() / 100 == 2) return;
        if (result.failed++ == 0) result.first_failure = incoming.whole.substr(0, 400);
      });
  return result;
}

Child::Child(const std::function<int()>& body) : pid_(fork()) {
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ == 0) _exit(body());
}

Child::~Child() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

double Child::cpu() const {
  const std::string path = "/proc/" + std::to_string(pid_) + "/stat";
  std::FILE* file = std::fopen(path.c_str(), "r");
  if (file == nullptr) return 0;
  unsigned long user = 0, system = 0;
  const int got = std::fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                              &user, &system);
  std::fclose(file);
  return got == 2 ? static_cast<double>(user + system) / static_cast<double>(sysconf(_SC_CLK_TCK)) : 0;
}

}  // namespace sluice::bench
