// The flash sale: one hot voucher, many buyers, a stock far below what they want. One server process
// with embedded SQLite; then the same with its codes in a code service of another process. Then an outage:
// the code service hangs for one region, again and again, and the other region's rate is compared with what
// it is when nothing hangs.
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <map>
#include <tuple>

#include "apps/voucher/app.hpp"
#include "apps/voucher/code_service.hpp"
#include "apps/voucher/rows.hpp"
#include "bench/benches.hpp"
#include "bench/http_load.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/server/server.hpp"

namespace sluice::bench {
namespace {

constexpr std::int64_t kStock = 1000;
constexpr int kBuyers = 100'000, kConnections = 64;

/// A voucher of the bench and how many codes it has.
struct Offer {
  std::string id;
  std::int64_t stock = 0, codes = 0, user_quota = 1;
};
const std::vector<Offer> kSale{{"hot", kStock, 2 * kStock, 1}};
constexpr std::int64_t kPlenty = 400'000;
const std::vector<Offer> kRegions{{"sg", 1'000'000'000, kPlenty, 1'000'000'000}, {"th", 1'000'000'000, kPlenty, 1'000'000'000}};

struct Address {
  std::uint16_t port = 0, grpc_port = 0;
  char token[128] = {};
};

void commit(server::Server& server, store::Commit commit) {
  const auto filled = store::commit_and_wait(server.context().store, std::move(commit));
  if (!filled) throw std::runtime_error(filled.error().to_string());
}

void fill(server::Server& server, const std::vector<Offer>& offers, bool catalogue, bool codes) {
  constexpr const char* kNs = "voucher";
  store::Commit users;
  for (int i = 0; catalogue && i < kBuyers; ++i) {
    const std::string user = fmt::format("u{}", i);
    users.then.push_back(store::KvPut{voucher::user_key(kNs, user), encode(voucher::User{user, "SG"}), {}});
  }
  if (catalogue) commit(server, std::move(users));
  for (const Offer& offer : offers) {
    store::Commit rows;
    if (catalogue) {
      voucher::Voucher v;
      v.id = v.name = offer.id;
      v.region = "ALL";
      v.to = WallTime(std::chrono::hours(24 * 365 * 200));
      v.value_minor = 100;
      v.currency = "EUR";
      v.stock = offer.stock;
      v.user_quota = offer.user_quota;
      v.day_quota = 1'000'000'000;
      v.budget_minor = 1'000'000'000'000;
      rows.then = {store::KvPut{voucher::voucher_key(kNs, v.id), encode(v), {}},
                   store::KvPut{voucher::stock_key(kNs, v.id), "", v.stock},
                   store::KvPut{voucher::budget_key(kNs, v.id), "", v.budget_minor}};
    }
    if (codes) {
      rows.then.push_back(store::KvPut{voucher::pool_key(kNs, offer.id), "", offer.codes});
      for (std::int64_t i = 0; i < offer.codes; ++i)
        rows.then.push_back(store::KvPut{voucher::code_key(kNs, offer.id, i),
                                         fmt::format("{}-{:06}", offer.id == "sg" ? "SG" : offer.id == "th" ? "TH" : "HOT", i), {}});
    }
    commit(server, std::move(rows));
  }
}

int serve(const std::string& database, std::unique_ptr<server::App> app, const std::vector<Offer>& offers, bool catalogue,
          bool codes, bool grpc, int ready, const std::string& rules = {}) {
  auto config = server::load_config("", {{"SLUICE_HTTP_PORT", "0"}, {"SLUICE_LOG_LEVEL", "error"}});
  if (!config) return 1;
  config->sqlite.path = database;
  if (grpc) config->grpc.listen = "127.0.0.1:0";
  config->guard_rules = rules;
  Address address;
  server::ServerParts parts;
  parts.apps.push_back(std::move(app));
  parts.first_token = [&](const std::string& token) { token.copy(address.token, sizeof address.token - 1); };
  auto opened = server::Server::open(std::move(*config), std::move(parts));
  if (!opened || !(*opened)->start()) return 1;
  fill(**opened, offers, catalogue, codes);
  address.port = (*opened)->port();
  address.grpc_port = (*opened)->grpc_port();
  if (write(ready, &address, sizeof address) != sizeof address) return 1;
  Parker forever;
  forever.park();
  return 0;
}

Address wait_for(int fd) {
  Address address;
  if (read(fd, &address, sizeof address) != sizeof address) throw std::runtime_error("a server did not start");
  return address;
}

void sale(const std::string& name, const Address& shop, const Child& child, Report& report) {
  std::uint64_t next = 0, issued = 0, wrong = 0;
  std::map<std::string, std::uint64_t> reasons;
  std::vector<double> latency;
  const double cpu = child.cpu();
  const double seconds = http_drive(
      shop.port, kConnections,
      [&]() -> std::optional<Outgoing> {
        if (next == kBuyers) return std::nullopt;
        const std::uint64_t n = next++;
        const std::string body = fmt::format(
            R"({{"request_id":"sale-{}","region":"SG","items":[{{"user":"u{}","voucher":"hot"}}]}})", n, n);
        return Outgoing{n, fmt::format("POST /v1/commands/voucher.ss.distribution.batch_distribute_voucher HTTP/1.1\r\n"
                                       "Host: localhost\r\nAuthorization: Bearer {}\r\nIdempotency-Key: sale-{}\r\n"
                                       "Content-Length: {}\r\n\r\n{}",
                                       shop.token, n, body.size(), body)};
      },
      [&](Incoming in) {
        latency.push_back(in.latency_us);
        const std::string_view body = in.body();
        if (body.find(R"("status":"issued")") != std::string_view::npos) {
          ++issued;
        } else if (const auto at = body.find(R"("reason":")"); at != std::string_view::npos) {
          ++reasons[std::string(body.substr(at + 10, body.find('"', at + 10) - at - 10))];
        } else {
          ++wrong;
        }
      });
  report.add(name, kConnections, "rate", "1/s", {kBuyers / seconds});
  report.add(name, kConnections, "p50", "us", {percentile(latency, 0.5)});
  report.add(name, kConnections, "p99", "us", {percentile(latency, 0.99)});
  report.add(name, kConnections, "server cpu", "us/op", {(child.cpu() - cpu) * 1e6 / kBuyers});
  report.add(name, kConnections, "issued", "vouchers", {static_cast<double>(issued)});
  std::string sum;
  for (const auto& [reason, count] : reasons) sum += fmt::format(", {} {}", count, reason);
  report.note(fmt::format("{}: {} buyers: {} issued{}{}", name, kBuyers, issued, sum,
                          wrong == 0 ? "" : fmt::format(", {} WITHOUT AN ANSWER", wrong)));
  std::string saved;
  http_drive(
      shop.port, 1,
      [&, sent = false]() mutable -> std::optional<Outgoing> {
        if (std::exchange(sent, true)) return std::nullopt;
        return Outgoing{0, fmt::format("POST /v1/commands/voucher.downstream.show HTTP/1.1\r\nHost: localhost\r\n"
                                       "Authorization: Bearer {}\r\nContent-Length: 2\r\n\r\n{{}}", shop.token)};
      },
      [&](Incoming in) { saved = in.body(); });
  report.note(fmt::format("{}: asked and saved: {}", name, saved));
  if (issued != static_cast<std::uint64_t>(kStock)) report.note(fmt::format("WRONG: expected {} issued", kStock));
}

constexpr const char* kRules = R"([guard."voucher.code.*".breaker]
minimum_calls = 5
failure_ratio = 0.5
window_time = "2s"
isolation = "300ms"
trials = 2
[guard."voucher.code.*".timeout]
timeout = "100ms"
)";

/// What one region's clients saw.
struct Seen {
  std::uint64_t items = 0, issued = 0, late = 0;
  std::vector<double> latency;
};

class Outage {
 public:
  Outage(Address shop, Address codes, const Child& child) : shop_(shop), codes_(codes), child_(child) {}

  void run(const Options& options, Report& report) {
    (void)window(options.seconds);  // connections, segments, memory: warm
    std::vector<double> share, usual, during, p99, late, threads, resident;
    for (int round = 0; round < options.rounds; ++round) {
      // The order changes, so that neither side is always first.
      const bool hung_first = round % 2 == 1;
      const auto first = hung_first ? hang(options.seconds) : normal(options.seconds);
      const auto second = hung_first ? normal(options.seconds) : hang(options.seconds);
      const auto& [hung, well] = hung_first ? std::tie(first, second) : std::tie(second, first);
      usual.push_back(static_cast<double>(well[1].issued) / options.seconds);
      during.push_back(static_cast<double>(hung[1].issued) / options.seconds);
      share.push_back(100 * during.back() / usual.back());
      p99.push_back(percentile(hung[0].latency, 0.99) / 1000);
      late.push_back(static_cast<double>(hung[0].late + hung[1].late));
      threads.push_back(status("Threads:"));
      resident.push_back(status("VmRSS:") / 1024);
    }
    const std::string name = "code service hangs for SG";
    report.add(name, kClients, "TH as usual", "items/s", usual);
    report.add(name, kClients, "TH meanwhile", "items/s", during);
    report.add(name, kClients, "TH kept", "%", share);
    report.add(name, kClients, "SG answered, p99", "ms", p99);
    report.add(name, kClients, "answers past deadline", "", late);
    report.add(name, kClients, "threads of the shop", "", threads);
    report.add(name, kClients, "resident in the shop", "MiB", resident);
    report.note(fmt::format("{}: TH kept {:.0f} % of its rate (limit: 90)", name, report.median(name, kClients, "TH kept")));
  }

 private:
  static constexpr int kClients = 8, kDeadlineMs = 1000;

  std::array<Seen, 2> normal(double seconds) {
    plan("{}");
    for (int i = 0; i < 2000; ++i) {  // until its breaker has closed again
      const Seen one = drive("SG", 1, 0, 1);
      if (one.issued == one.items) break;
      Parker().park(milliseconds(5));
    }
    return window(seconds);
  }
  std::array<Seen, 2> hang(double seconds) {
    plan(R"({"rules":[{"region":"SG","hang_rate":1}]})");
    return window(seconds);
  }

  // Each region has clients of its own: one that waits takes nothing from the other.
  std::array<Seen, 2> window(double seconds) {
    std::array<Seen, 2> seen;
    Thread sg("sg", [&] { seen[0] = drive("SG", kClients, seconds, ~0ull); });
    seen[1] = drive("TH", kClients, seconds, ~0ull);
    sg.join();
    return seen;
  }

  /// For so long, or so many requests.
  Seen drive(const std::string& region, int clients, double seconds, std::uint64_t requests) {
    Seen seen;
    std::uint64_t sent = 0;
    const Stopwatch watch;
    http_drive(
        shop_.port, clients,
        [&]() -> std::optional<Outgoing> {
          if (sent == requests || (requests == ~0ull && watch.wall() > seconds)) return std::nullopt;
          ++sent;
          const std::uint64_t n = next_.fetch_add(1);
          std::string items;
          const char* voucher = region == "SG" ? "sg" : "th";
          for (std::uint64_t i = 0; i < 4; ++i)
            items += fmt::format(R"({}{{"user":"u{}","voucher":"{}"}})", i == 0 ? "" : ",", (4 * n + i) % kBuyers, voucher);
          return request(shop_, "voucher.ss.distribution.batch_distribute_voucher", n,
                         fmt::format(R"({{"request_id":"o-{}","region":"{}","items":[{}]}})", n, region, items),
                         fmt::format("o-{}", n));
        },
        [&](Incoming in) {
          seen.latency.push_back(in.latency_us);
          seen.late += in.whole.empty() || in.latency_us > kDeadlineMs * 1000;
          seen.items += 4;
          for (auto at = in.whole.find(R"("status":"issued")"); at != in.whole.npos; at = in.whole.find(R"("status":"issued")", at + 1))
            ++seen.issued;
        });
    return seen;
  }

  void plan(const std::string& json) {
    bool sent = false;
    http_drive(
        codes_.port, 1,
        [&]() -> std::optional<Outgoing> {
          if (std::exchange(sent, true)) return std::nullopt;
          return request(codes_, "voucher.faults.codes.set", 0, json, "");
        },
        [](Incoming in) {
          if (in.status() != 200) throw std::runtime_error("the fault plan was refused: " + in.whole);
        });
  }

  static Outgoing request(const Address& to, std::string_view command, std::uint64_t n, const std::string& body,
                          const std::string& key) {
    return {n, fmt::format("POST /v1/commands/{} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n"
                           "{}X-Sluice-Deadline-Ms: {}\r\nContent-Length: {}\r\n\r\n{}",
                           command, to.token, key.empty() ? key : fmt::format("Idempotency-Key: {}\r\n", key),
                           kDeadlineMs, body.size(), body)};
  }

  /// A line of the shop's /proc/PID/status, as a number.
  double status(const std::string& field) const {
    std::ifstream file(fmt::format("/proc/{}/status", child_.pid()));
    for (std::string line; std::getline(file, line);)
      if (line.starts_with(field)) return std::atof(line.c_str() + field.size());
    return 0;
  }

  const Address shop_, codes_;
  const Child& child_;
  std::atomic<std::uint64_t> next_{0};
};

}  // namespace

void bench_voucher(const Options& options, Report& report) {
  const WorkFolder folder(options);
  for (const bool service : {false, true}) {
    int code_pipe[2], shop_pipe[2];
    if (pipe(code_pipe) != 0 || pipe(shop_pipe) != 0) throw std::runtime_error("pipe");
    const std::string label = service ? "flash sale, code service" : "flash sale, own codes";
    std::unique_ptr<Child> codes;
    voucher::VoucherOptions chosen;
    if (service) {
      codes = std::make_unique<Child>(
          [&] { return serve(folder.path("codes.db"), voucher::make_code_service(), kSale, false, true, true, code_pipe[1]); });
      const Address address = wait_for(code_pipe[0]);
      chosen.code_service = fmt::format("127.0.0.1:{}", address.grpc_port);
      chosen.code_token = address.token;
    }
    const Child shop([&] {
      return serve(folder.path(service ? "shop2.db" : "shop.db"), voucher::make_app(chosen), kSale, true, !service, false, shop_pipe[1]);
    });
    sale(label, wait_for(shop_pipe[0]), shop, report);
  }
  int code_pipe[2], shop_pipe[2];
  if (pipe(code_pipe) != 0 || pipe(shop_pipe) != 0) throw std::runtime_error("pipe");
  std::ofstream(folder.path("rules.toml")) << kRules;
  const Child codes([&] {
    return serve(folder.path("codes3.db"), voucher::make_code_service(), kRegions, false, true, true, code_pipe[1]);
  });
  const Address code_service = wait_for(code_pipe[0]);
  voucher::VoucherOptions chosen;
  chosen.code_service = fmt::format("127.0.0.1:{}", code_service.grpc_port);
  chosen.code_token = code_service.token;
  const Child shop([&] {
    return serve(folder.path("shop3.db"), voucher::make_app(chosen), kRegions, true, false, false, shop_pipe[1],
                 folder.path("rules.toml"));
  });
  Outage(wait_for(shop_pipe[0]), code_service, shop).run(options, report);
}

}  // namespace sluice::bench
