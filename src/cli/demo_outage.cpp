#include "cli/demo_outage.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/report.hpp"
#include "cli/client.hpp"
#include "cli/demo_campaign.hpp"
#include "cli/demo_outage_load.hpp"
#include "cli/demo_server.hpp"

namespace sluice::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kCodes = "voucher.code.batch_get_code_using_cache";
constexpr double kKept = 0.9;  // of its own rate just before, by the region that the outage is not about
constexpr int kTries = 5;      // a machine that was busy with something else for a second is no outage

// An open breaker tries the service again after `isolation`, however often it did; two of those are the time to recover.
constexpr double kProbe = 0.3;
constexpr const char* kRules = R"([guard."voucher.*".breaker]
minimum_calls = 5
failure_ratio = 0.5
window_time = "2s"
isolation = "300ms"
isolation_max = "300ms"
trials = 2
[guard."voucher.*".timeout]
timeout = "100ms"
[guard."voucher.*".retry]
attempts = 2
)";

// A connection that was lost is tried again after a second at most.
constexpr double kReconnect = 1.0;

class Outage {
 public:
  Outage(const std::string& folder, bool quiet)
      : folder_(folder),
        quiet_(quiet),
        codes_(folder, "codes", {"--apps", "codes", "--grpc-listen", "127.0.0.1:0"}),
        users_(folder, "users", {"--apps", "users", "--grpc-listen", "127.0.0.1:0"}),
        shop_(folder, "shop"),
        load_(shop_) {}

  std::vector<std::string> run() {
    say("\nThree processes now: distribution, code service, user service, over gRPC.\n");
    if (const auto error = prepare_services(shop_.database(), codes_.database(), users_.database()); !error.empty())
      return {error};
    if (!start()) return problems_;
    const auto usual = phase("as usual", 1.5);
    must(usual.at("SG").issued > 0 && usual.at("TH").issued > 0, "nothing was issued before the outage");
    outage("code service hangs for SG", R"({"rules":[{"region":"SG","hang_rate":1}]})");
    outage("code service slow for SG (400 ms)", R"({"rules":[{"region":"SG","latency_ms":400}]})");
    killed();
    shadow();
    stop();
    problems_.insert(problems_.end(), load_.problems().begin(), load_.problems().end());
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

  // The code service hangs, or is too slow, for one region: its callers get an answer in time, the others notice nothing.
  void outage(const char* what, const char* plan_of_it) {
    double best = 0;
    for (int i = 0; i < kTries && best < kKept; ++i) {
      const auto before = phase("before", 1.0);
      const std::int64_t sg = moves("SG"), th = moves("TH");
      plan(plan_of_it);
      const auto seen = phase(what, 1.5);
      in_time(seen);
      must(seen.at("SG").unavailable > 0, std::string(what) + ": nobody was told code_service_unavailable");
      must(seen.at("TH").unavailable == 0, std::string(what) + ": TH was told that the code service is away");
      must(moves("SG") > sg, std::string(what) + ": the breaker of SG did not open");
      must(moves("TH") == th, std::string(what) + ": the breaker of TH moved");
      plan("{}");
      recovers("SG", 2 * kProbe);
      best = std::max(best, static_cast<double>(seen.at("TH").batches) / 1.5 / std::max(1.0, static_cast<double>(before.at("TH").batches)));
    }
    transitions();
    const std::string verdict = fmt::format("verdict: TH kept {:.0f} % of its own rate just before, {} {:.0f} %", best * 100,
                                            best >= kKept ? "no less than" : "LESS than", kKept * 100);
    say("  {}\n", verdict);
    must(best >= kKept, std::string(what) + ": " + verdict);
  }

  void in_time(const std::map<std::string, OutageTally>& seen) {
    for (const auto& [region, tally] : seen) {
      must(tally.late == 0, fmt::format("{} answers for {} came after their deadline", tally.late, region));
      must(tally.broken == 0, "a request was not answered at all");
    }
  }

  void killed() {
    codes_.kill_hard();
    in_time(phase("code service killed (SIGKILL)", 1.0));
    const std::uint16_t before = codes_.grpc_port();
    codes_.arguments({"--apps", "codes", "--grpc-listen", fmt::format("127.0.0.1:{}", before)});
    if (codes_.start() < 0) must(false, codes_.error());
    const bench::Stopwatch watch;
    for (const char* region : {"TH", "SG"}) recovers(region, 2 * kReconnect - watch.wall());
    phase("back as usual", 1.0);
    transitions();
  }

  // Shadow traffic opens shadow breakers and takes shadow stock, and nothing else.
  void shadow() {
    const Json before = breaker("SG", false);
    plan(R"({"rules":[{"error_rate":1}]})");
    load_.shadow(true);
    phase("shadow traffic only, code service failing", 1.0);
    load_.shadow(false);
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
    must(books.issued == static_cast<std::int64_t>(load_.codes_seen()),
         fmt::format("{} vouchers are issued in the books, {} different codes were told", books.issued, load_.codes_seen()));
    say("  issued in all: {} vouchers, {} different codes; the books balance{}\n", books.issued, load_.codes_seen(),
        books.wrong.empty() ? "" : " NOT");
  }

  std::map<std::string, OutageTally> phase(const char* what, double seconds) {
    auto seen = load_.both_regions(seconds);
    say("  {:<40}", what);
    for (auto& [region, tally] : seen)
      say(" {}: {:>5.0f} batches/s, p99 {:>3.0f} ms, {:>5} issued, {:>4} unavailable, {} late;", region,
          static_cast<double>(tally.batches) / seconds, bench::percentile(tally.latency_us, 0.99) / 1000, tally.issued,
          tally.unavailable, tally.late);
    say("\n");
    return seen;
  }

  // Issues again, and its breaker is closed.
  void recovers(const std::string& region, double within) {
    const bench::Stopwatch watch;
    do {
      if (!load_.one(region) || breaker(region, false).value("state", "") != "closed") continue;
      return say("  {} in full service {:.0f} ms after the service came back (limit: {:.0f})\n", region, watch.wall() * 1000, within * 1000);
    } while (watch.wall() < within);
    must(false, fmt::format("{} did not recover within {:.0f} ms", region, within * 1000));
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

  // How often it has changed its state.
  std::int64_t moves(const char* region) { return breaker(region, false).value("generation", std::int64_t{0}); }

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
  OutageLoad load_;
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<std::string> demo_outage(const std::string& folder, bool quiet) { return Outage(folder, quiet).run(); }

}  // namespace sluice::cli
