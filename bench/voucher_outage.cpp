// An outage: the code service hangs for one region, again and again, with clients of their own for each region. What the
// other region keeps is told of its own rate just before. Its clients send as fast as they are answered; those of the region
// that hangs send at a pace, the same in both, or their leaving the processor to the others would hide what is lost.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <fstream>

#include "apps/voucher/code_service.hpp"
#include "bench/voucher_rig.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::bench {
namespace {

constexpr std::int64_t kPlenty = 400'000;  // codes
constexpr double kLimit = 90;  // percent that the other region keeps

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
      const auto before = normal(options.seconds), hung = hang(options.seconds);
      usual.push_back(static_cast<double>(before[1].issued) / options.seconds);
      during.push_back(static_cast<double>(hung[1].issued) / options.seconds);
      share.push_back(100 * during.back() / std::max(1.0, usual.back()));
      p99.push_back(percentile(hung[0].latency, 0.99) / 1000);
      late.push_back(static_cast<double>(hung[0].late + hung[1].late));
      threads.push_back(status("Threads:"));
      resident.push_back(status("VmRSS:") / 1024);
    }
    const std::string name = "code service hangs for SG";
    report.add(name, kClients, "TH before", "items/s", usual);
    report.add(name, kClients, "TH meanwhile", "items/s", during);
    report.add(name, kClients, "TH kept", "%", share);
    report.add(name, kClients, "SG answered, p99", "ms", p99);
    report.add(name, kClients, "answers past deadline", "", late);
    report.add(name, kClients, "threads of the shop", "", threads);
    report.add(name, kClients, "resident in the shop", "MiB", resident);
    report_saved(name, kClients, shop_, report);
    report.note(verdict(report.median(name, kClients, "TH kept"), std::ranges::max(share), options));
  }

 private:
  static constexpr int kClients = 8, kDeadlineMs = 1000;
  static constexpr double kPace = 0.1;  // seconds between two requests of a client whose region hangs

  // What a machine that is busy otherwise does in one round is no verdict, nor a short run: what hinders TH does in each.
  static std::string verdict(double kept, double best, const Options& options) {
    const bool wrong = best < kLimit && options.seconds * options.rounds >= 2.5;
    return fmt::format("verdict: TH kept {:.0f} % of its own rate before the outage, {:.0f} % in its best round: {} {:.0f} %{}", kept, best,
                       kept >= kLimit ? "no less than" : "LESS than", kLimit, wrong ? ", WRONG" : "");
  }

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
    Thread sg("sg", [&] { seen[0] = drive("SG", kClients, seconds, ~0ull, kPace); });
    seen[1] = drive("TH", kClients, seconds, ~0ull);
    sg.join();
    return seen;
  }

  /// For so long, or so many requests.
  Seen drive(const std::string& region, int clients, double seconds, std::uint64_t requests, double every = 0) {
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
        },
        every);
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
  const std::int64_t codes_each = as_many(options, kPlenty);
  const std::vector<Offer> regions{{"sg", 1'000'000'000, codes_each, 1'000'000'000}, {"th", 1'000'000'000, codes_each, 1'000'000'000}};
  const std::string code_store = stores.make("codes3"), shop_store = stores.make("shop3");
  const Child codes([&] {
    return serve_vouchers({.store = code_store, .offers = regions, .catalogue = false, .grpc = true}, voucher::make_code_service(), code_pipe[1]);
  });
  const Address code_service = wait_for(code_pipe[0]);
  voucher::VoucherOptions chosen;
  chosen.code_service = fmt::format("127.0.0.1:{}", code_service.grpc_port);
  chosen.code_token = code_service.token;
  const Child shop([&] {
    return serve_vouchers({.store = shop_store, .offers = regions, .codes = false, .rules = stores.path("rules.toml")},
                          voucher::make_app(chosen), shop_pipe[1]);
  });
  Outage(wait_for(shop_pipe[0]), code_service, shop).run(options, report);
}

}  // namespace sluice::bench
