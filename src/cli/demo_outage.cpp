#include "cli/demo_outage.hpp"

#include <fmt/format.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "apps/voucher/generator.hpp"
#include "bench/http_load.hpp"
#include "bench/report.hpp"
#include "cli/client.hpp"
#include "cli/demo_campaign.hpp"
#include "cli/demo_server.hpp"

namespace sluice::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kBatch = "voucher.ss.distribution.batch_distribute_voucher";
constexpr const char* kCodes = "voucher.code.batch_get_code_using_cache";
constexpr int kConnections = 16;
constexpr int kDeadlineMs = 1000;
constexpr std::uint64_t kVouchers = 40, kUsers = 2000;

constexpr const char* kRules = R"([guard."voucher.*".breaker]
minimum_calls = 5
failure_ratio = 0.5
window_time = "2s"
isolation = "300ms"
trials = 2
[guard."voucher.*".timeout]
timeout = "100ms"
[guard."voucher.*".retry]
attempts = 2
)";

/// What came back in one phase, per region.
struct Tally {
  std::uint64_t batches = 0, issued = 0, unavailable = 0, other = 0, late = 0, broken = 0;
  std::vector<double> latency_us;
};

class Outage {
 public:
  Outage(const std::string& folder, bool quiet)
      : folder_(folder),
        quiet_(quiet),
        codes_(folder, "codes", {"--apps", "codes", "--grpc-listen", "127.0.0.1:0"}),
        users_(folder, "users", {"--apps", "users", "--grpc-listen", "127.0.0.1:0"}),
        shop_(folder, "shop") {}

  std::vector<std::string> run() {
    say("\nThree processes now: distribution, code service, user service, over gRPC.\n");
    if (const auto error = prepare_services(shop_.database(), codes_.database(), users_.database()); !error.empty())
      return {error};
    if (!start()) return problems_;
    usual_ = phase("as usual", 1.5);
    must(usual_["SG"].issued > 0 && usual_["TH"].issued > 0, "nothing was issued before the outage");
    hung();
    killed();
    shadow();
    stop();
    return problems_;
  }

 private:
  bool start() {
    for (auto* service : {&codes_, &users_})
      if (service->start() < 0) return must(false, service->error());
    std::ofstream(folder_ + "/rules.toml") << kRules;
    ::setenv("SLUICE_GUARDS_RULES", (folder_ + "/rules.toml").c_str(), 1);
    // Each service has principals of its own; the same token is given to both here.
    token_for_services_ = codes_.token();
    shop_.arguments({"--apps", "voucher", "--code-service", fmt::format("127.0.0.1:{}", codes_.grpc_port()), "--code-token",
                     codes_.token(), "--segment-codes", "20", "--user-service", fmt::format("127.0.0.1:{}", users_.grpc_port()), "--user-token",
                     users_.token()});
    const bool up = shop_.start() >= 0;
    ::unsetenv("SLUICE_GUARDS_RULES");
    return must(up, shop_.error());
  }

  // One region hangs: its callers get an answer in time, the others notice nothing.
  void hung() {
    plan(R"({"rules":[{"region":"SG","hang_rate":1}]})");
    const auto seen = phase("code service hangs for SG", 2.0);
    transitions();
    must(seen.at("SG").late == 0, fmt::format("{} answers for SG came after their deadline", seen.at("SG").late));
    must(seen.at("SG").broken == 0, "a request was not answered at all");
    must(seen.at("SG").unavailable > 0, "nobody was told code_service_unavailable");
    must(seen.at("TH").unavailable == 0, "TH was told that the code service is away");
    const double share = static_cast<double>(seen.at("TH").batches) / 2.0 / (static_cast<double>(usual_["TH"].batches) / 1.5);
    // One machine runs clients and services alike, so only a stall is called wrong here; the bench
    // measures the share.
    say("  TH kept {:.0f} % of its usual rate\n", share * 100);
    must(share >= 0.5, fmt::format("TH had {:.0f} % of its usual rate while SG hung", share * 100));
    plan("{}");
    recovers("SG");
  }

  void killed() {
    codes_.kill_hard();
    const auto seen = phase("code service killed (SIGKILL)", 1.0);
    for (const auto& [region, tally] : seen) {
      must(tally.late == 0, fmt::format("{} answers for {} came after their deadline", tally.late, region));
      must(tally.broken == 0, "a request was not answered at all");
    }
    const std::uint16_t before = codes_.grpc_port();
    codes_.arguments({"--apps", "codes", "--grpc-listen", fmt::format("127.0.0.1:{}", before)});
    if (codes_.start() < 0) must(false, codes_.error());
    recovers("TH");
    recovers("SG");
    phase("back as usual", 1.0);
    transitions();
  }

  // Shadow traffic opens shadow breakers and takes shadow stock, and nothing else.
  void shadow() {
    const Json before = breaker("SG", false);
    plan(R"({"rules":[{"error_rate":1}]})");
    shadow_ = true;
    phase("shadow traffic only, code service failing", 1.0);
    shadow_ = false;
    plan("{}");
    const Json after = breaker("SG", false), shadow = breaker("SG", true);
    must(before.value("passed", 0) == after.value("passed", 0) && before.value("blocked", 0) == after.value("blocked", 0) &&
             after.value("state", "") == "closed",
         "shadow traffic moved a live counter or breaker");
    say("  live breaker of SG before and after the shadow traffic: {} passed, {}; the shadow one: {}\n",
        after.value("passed", 0), after.value("state", ""), shadow.value("state", ""));
  }

  void stop() {
    for (auto* service : {&shop_, &codes_, &users_})
      must(service->stop_gracefully(), "a service did not end with status 0 on SIGTERM");
    const CampaignBooks books = audit_campaign(shop_.database(), codes_.database());
    for (const auto& wrong : books.wrong) must(false, wrong);
    must(books.issued == static_cast<std::int64_t>(codes_seen_.size()),
         fmt::format("{} vouchers are issued in the books, {} different codes were told", books.issued, codes_seen_.size()));
    say("  issued in all: {} vouchers, {} different codes; the books balance{}\n", books.issued, codes_seen_.size(),
        books.wrong.empty() ? "" : " NOT");
  }

  std::string request(std::uint64_t n, const std::string& region) {
    std::string items;
    for (int i = 0; i < 4; ++i)
      items += fmt::format(R"({}{{"user":"{}","voucher":"{}"}})", i == 0 ? "" : ",",
                           voucher::generated_user_id(static_cast<std::int64_t>((n * 4 + static_cast<std::uint64_t>(i)) / kVouchers % kUsers)),
                           voucher::generated_voucher_id(static_cast<std::int64_t>((n * 4 + static_cast<std::uint64_t>(i)) % kVouchers)));
    const std::string body = fmt::format(R"({{"request_id":"o-{}","region":"{}","items":[{}]}})", n, region, items);
    return fmt::format(
        "POST /v1/commands/{} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\n"
        "Idempotency-Key: o-{}\r\nX-Sluice-Deadline-Ms: {}\r\n{}Content-Length: {}\r\n\r\n{}",
        kBatch, shop_.token(), n, kDeadlineMs, shadow_ ? "X-Sluice-Shadow: true\r\n" : "", body.size(), body);
  }

  std::map<std::string, Tally> phase(const char* what, double seconds) {
    std::map<std::string, Tally> seen{{"SG", {}}, {"TH", {}}};
    // Each region has clients of its own: one that waits takes nothing from the other.
    std::vector<std::string> problems;
    for_both_regions(seconds, seen);
    say("  {:<44}", what);
    for (auto& [region, tally] : seen)
      say(" {}: {:>6.0f} batches/s, p99 {:>4.0f} ms, {:>5} issued, {:>5} unavailable;", region,
          static_cast<double>(tally.batches) / seconds, bench::percentile(tally.latency_us, 0.99) / 1000, tally.issued,
          tally.unavailable);
    say("\n");
    return seen;
  }

  void for_both_regions(double seconds, std::map<std::string, Tally>& seen) {
    const bench::Stopwatch watch;
    // Odd ids are SG's, even ones TH's; each has half of the connections to itself.
    std::map<std::string, std::uint64_t> flying;
    bench::http_drive(
        shop_.port(), kConnections,
        [&]() -> std::optional<bench::Outgoing> {
          if (watch.wall() > seconds) return std::nullopt;
          const std::string region = flying["SG"] < kConnections / 2 ? "SG" : "TH";
          ++flying[region];
          const std::uint64_t n = next_++;
          region_of_[n] = region;
          return bench::Outgoing{n, request(n, region)};
        },
        [&](bench::Incoming in) {
          const std::string region = region_of_[in.id];
          region_of_.erase(in.id);
          --flying[region];
          count(seen[region], in);
        });
  }

  void count(Tally& tally, const bench::Incoming& in) {
    if (in.whole.empty()) {
      ++tally.broken;
      return;
    }
    ++tally.batches;
    tally.latency_us.push_back(in.latency_us);
    if (in.latency_us > kDeadlineMs * 1000) ++tally.late;
    const Json json = Json::parse(in.body(), nullptr, false);
    if (!json.is_object() || !json.contains("results")) {
      ++tally.other;
      return;
    }
    for (const auto& one : json["results"]) {
      const std::string reason = one.value("reason", "");
      if (one.value("status", "") == "issued") {
        ++tally.issued;
        if (!shadow_ && !codes_seen_.insert(one.value("code", "")).second) must(false, "a code was given twice: " + one.dump());
      } else if (reason == "code_service_unavailable") {
        ++tally.unavailable;
        must(one.value("retryable", false), "code_service_unavailable was not called retryable");
      } else {
        ++tally.other;
      }
    }
  }

  void recovers(const std::string& region) {
    const bench::Stopwatch watch;
    while (watch.wall() < 5) {
      const std::uint64_t n = next_++;
      bool issued = false;
      bool sent = false;
      bench::http_drive(
          shop_.port(), 1,
          [&]() -> std::optional<bench::Outgoing> {
            if (std::exchange(sent, true)) return std::nullopt;
            return bench::Outgoing{n, request(n, region)};
          },
          [&](bench::Incoming in) {
            Tally tally;
            count(tally, in);
            issued = tally.issued != 0;
          });
      if (issued && breaker(region, false).value("state", "") == "closed")
        return say("  {} in full service {:.0f} ms after the service came back\n", region, watch.wall() * 1000);
    }
    must(false, region + " did not recover within 5 s");
  }

  void plan(const char* json) {
    ServerOptions server;
    server.server = fmt::format("http://127.0.0.1:{}", codes_.port());
    server.token = codes_.token();
    const HttpAnswer answer = http_post(server, "/v1/commands/voucher.faults.codes.set", json);
    must(answer.ok(), "the fault plan was refused: " + answer.body);
  }

  Json breaker(const std::string& region, bool shadow) {
    ServerOptions server;
    server.server = fmt::format("http://127.0.0.1:{}", shop_.port());
    server.token = shop_.token();
    return run_command(server, "sluice.breakers.show", {{"name", fmt::format("{}.{}", kCodes, region)}, {"shadow", shadow}}).json;
  }

  void transitions() {
    for (const char* region : {"SG", "TH"}) {
      std::string line;
      const Json shown = breaker(region, false);
      for (const auto& t : shown.value("transitions", Json::array()))
        line += fmt::format("{} {} ({})", line.empty() ? "" : " →", t.value("to", ""), t.value("reason", ""));
      say("  breaker of {}:{}\n", region, line.empty() ? " never moved" : line);
    }
  }

  bool must(bool holds, const std::string& otherwise) {
    if (!holds && problems_.size() < 20) problems_.push_back(otherwise);
    return holds;
  }
  template <class... Args>
  void say(fmt::format_string<Args...> text, Args&&... args) {
    if (quiet_) return;
    fmt::print(text, std::forward<Args>(args)...);
    std::fflush(stdout);
  }

  const std::string folder_;
  const bool quiet_;
  DemoServer codes_, users_, shop_;
  std::string token_for_services_;
  std::map<std::string, Tally> usual_;
  std::map<std::uint64_t, std::string> region_of_;
  std::set<std::string> codes_seen_;
  std::vector<std::string> problems_;
  std::uint64_t next_ = 1;
  bool shadow_ = false;
};

}  // namespace

std::vector<std::string> demo_outage(const std::string& folder, bool quiet) { return Outage(folder, quiet).run(); }

}  // namespace sluice::cli
