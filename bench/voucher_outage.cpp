// An outage: the code service hangs for one region, again and again, with clients of their own for each region.
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <fstream>
#include <tuple>

#include "apps/voucher/code_service.hpp"
#include "bench/voucher_rig.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::bench {
namespace {

constexpr std::int64_t kPlenty = 400'000;
const std::vector<Offer> kRegions{{"sg", 1'000'000'000, kPlenty, 1'000'000'000}, {"th", 1'000'000'000, kPlenty, 1'000'000'000}};

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

void bench_voucher_outage(const Options& options, Report& report, Stores& stores) {
  int code_pipe[2], shop_pipe[2];
  if (pipe(code_pipe) != 0 || pipe(shop_pipe) != 0) throw std::runtime_error("pipe");
  std::ofstream(stores.path("rules.toml")) << kRules;
  const std::string code_store = stores.make("codes3"), shop_store = stores.make("shop3");
  const Child codes([&] {
    return serve_vouchers({.store = code_store, .offers = kRegions, .catalogue = false, .grpc = true}, voucher::make_code_service(), code_pipe[1]);
  });
  const Address code_service = wait_for(code_pipe[0]);
  voucher::VoucherOptions chosen;
  chosen.code_service = fmt::format("127.0.0.1:{}", code_service.grpc_port);
  chosen.code_token = code_service.token;
  const Child shop([&] {
    return serve_vouchers({.store = shop_store, .offers = kRegions, .codes = false, .rules = stores.path("rules.toml")},
                          voucher::make_app(chosen), shop_pipe[1]);
  });
  Outage(wait_for(shop_pipe[0]), code_service, shop).run(options, report);
}

}  // namespace sluice::bench
