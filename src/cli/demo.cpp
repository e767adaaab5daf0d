// sluice demo: a real server process, real requests over sockets, duplicates and hostile ones mixed
// in, SIGKILL in the middle; then the books are checked and a report printed.
#include <fmt/core.h>

#include <cstdlib>
#include <filesystem>
#include <map>

#include "bench/http_load.hpp"
#include "bench/report.hpp"
#include "cli/commands.hpp"
#include "cli/demo_campaign.hpp"
#include "cli/demo_nodes.hpp"
#include "cli/demo_outage.hpp"
#include "cli/demo_recovery.hpp"
#include "cli/demo_requests.hpp"
#include "cli/demo_server.hpp"

namespace sluice::cli {
namespace {

constexpr int kConnections = 32;
constexpr int kAccounts = 200;
constexpr int kOrders = 8;             // in the partner's hands when the server is killed
constexpr std::uint64_t kAfterOrders = 64;  // answers from them to the kill: they are open on disk by then

struct DemoOptions {
  std::uint64_t requests = 12'000;
  bool stay = false;
  bool json = false;
  int port = 8080;
  std::uint64_t seed = 1;
  std::string store;
};

/// What a good request is for, and what came of it.
struct Intent {
  int account = 0;          ///< negative: a voucher batch
  std::uint64_t choice = 0; ///< of voucher and user
  bool order = false;       ///< with a partner outside
  std::string acknowledged;  ///< body of the first 2xx answer
  int sends = 0;
  int answers = 0;
};

class Demo {
 public:
  Demo(DemoOptions options, std::string folder) : options_(options), folder_(folder), server_(std::move(folder), "sluice", {"--apps", "voucher,demo"}), random_state_(options.seed) {}

  int run() {
    fmt::print("A campaign of 1,000 vouchers and 100,000 codes, generated and imported:\n");
    if (const std::string error = prepare_campaign(database()); !error.empty()) {
      fmt::print(stderr, "error: {}\n", error);
      return 1;
    }
    if (!start("first start")) return 1;
    fmt::print("Server on http://127.0.0.1:{}, embedded SQLite. Sending {} requests over {} connections, seed {}.\n",
               server_.port(), options_.requests, kConnections, options_.seed);
    drive(options_.requests * 2 / 5);
    fmt::print("… now killing it with SIGKILL in the middle of traffic …\n");
    kill_during(options_.requests / 5);
    if (!start("restart")) return 1;
    look_at_recovery();
    resend_unanswered();
    drive(options_.requests - sent_);
    resend_unanswered();
    check_replays();
    check_books();
    const double cpu = server_.cpu_seconds();
    if (!server_.stop_gracefully()) problem("the server did not end with status 0 on SIGTERM");
    check_campaign();
    report(cpu);
    for (auto& text : demo_outage(folder_, options_.json)) problem("outage: " + text);
    verdict();
    if (options_.stay && problems_.empty() && !start("started again")) return 1;
    if (options_.stay && problems_.empty()) {
      fmt::print("\nThe server stays up: http://127.0.0.1:{}/  (token: {})\nCtrl-C ends it.\n", server_.port(), server_.token());
      std::fflush(stdout);
      server_.wait();
    }
    return problems_.empty() ? 0 : 1;
  }

 private:
  std::uint64_t draw(std::uint64_t bound) {  // SplitMix64: the same drive for the same seed
    std::uint64_t z = random_state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return (z ^ (z >> 31)) % bound;
  }

  std::string database() const { return folder_ + "/sluice.db"; }
  bool start(const char* what) {
    const double seconds = server_.start(port_);
    if (seconds < 0) {
      fmt::print(stderr, "error: {}\n", server_.error());
      return false;
    }
    port_ = server_.port();
    fmt::print("{}: doors open after {:.0f} ms\n", what, seconds * 1000);
    std::fflush(stdout);
    return true;
  }

  std::string key_of(std::size_t intent) const { return fmt::format("demo-{}-{:08}", options_.seed, intent); }
  std::string add_request(std::size_t intent) {
    if (intents_[intent].account < 0)
      return demo_request("voucher.ss.distribution.batch_distribute_voucher", key_of(intent),
                          campaign_request(intent, intents_[intent].choice), server_.token());
    const std::string account = fmt::format("account-{:03}", intents_[intent].account);
    if (intents_[intent].order) return demo_request("demo.order", key_of(intent), fmt::format(R"({{"key":"{}"}})", account), server_.token());
    const std::string body = fmt::format(R"({{"collection":"demo","key":"{}","delta":1}})", account);
    return demo_request("kv.add", key_of(intent), body, server_.token());
  }

  // Ids: good requests are their intent's number; hostile ones have the top bit and their kind.
  static constexpr std::uint64_t kHostileBit = std::uint64_t{1} << 63;

  bench::Outgoing next_request() {
    const std::uint64_t dice = draw(100);
    ++sent_;
    if (orders_due_ > 0) {
      --orders_due_;
      intents_.push_back({static_cast<int>(draw(kAccounts)), 0, true, {}, 1, 0});
      return {intents_.size() - 1, add_request(intents_.size() - 1)};
    }
    if (dice < 4) {
      const std::size_t which = draw(std::size(kHostile));
      ++hostile_sent_;
      return {kHostileBit | which, hostile_request(kHostile[which].kind, sent_, server_.token())};
    }
    std::size_t intent;
    if (dice < 24 && !intents_.empty()) {
      ++duplicates_;
      // Half of the duplicates are of what is in flight or was just answered.
      const std::size_t window = draw(2) == 0 ? std::min<std::size_t>(intents_.size(), 40) : intents_.size();
      intent = intents_.size() - 1 - draw(window);
    } else {
      intent = intents_.size();
      const bool batch = draw(5) == 0;
      intents_.push_back({batch ? -1 : static_cast<int>(draw(kAccounts)), draw(100'000), false, {}, 0, 0});
    }
    ++intents_[intent].sends;
    return {intent, add_request(intent)};
  }

  void on_answer(const bench::Incoming& in) {
    if (in.whole.empty()) {
      ++cut_off_;
      if ((in.id & kHostileBit) != 0) ++hostile_cut_off_;
      return;
    }
    latencies_.push_back(in.latency_us);
    if ((in.id & kHostileBit) != 0) {
      const auto& hostile = kHostile[in.id & ~kHostileBit];
      if (in.status() != hostile.expected)
        problem(fmt::format("{}: expected {}, got {}", hostile.what, hostile.expected, in.whole.substr(0, 200)));
      ++hostile_answers_[hostile.what];
      ++refused_;
      return;
    }
    Intent& intent = intents_[in.id];
    if (in.status() != 200) {
      if (in.status() == 409 || in.status() == 503) {
        ++retry_later_;
        return;
      }
      problem(fmt::format("a good request got {}", in.whole.substr(0, 300)));
      return;
    }
    ++intent.answers;
    if (in.has_header("Idempotency-Replayed: true") || in.has_header("idempotency-replayed: true"))
      ++replayed_;
    else
      ++done_;
    const std::string body(in.body());
    if (intent.acknowledged.empty())
      intent.acknowledged = body;
    else if (intent.acknowledged != body)
      problem(fmt::format("key {} was answered '{}' and then '{}'", key_of(in.id), intent.acknowledged, body));
  }

  void drive(std::uint64_t count) {
    std::uint64_t left = count;
    seconds_ += bench::http_drive(
        port_, kConnections,
        [&]() -> std::optional<bench::Outgoing> {
          if (left == 0) return std::nullopt;
          --left;
          return next_request();
        },
        [this](bench::Incoming in) { on_answer(in); });
  }

  void kill_during(std::uint64_t count) {
    std::uint64_t answered = 0, left = count;
    const std::uint64_t orders_at = count / 2 + draw(count / 4), kill_at = orders_at + std::min(kAfterOrders, count / 5);
    seconds_ += bench::http_drive(
        port_, kConnections,
        [&]() -> std::optional<bench::Outgoing> {
          if (left == 0) return std::nullopt;
          --left;
          return next_request();
        },
        [&](bench::Incoming in) {
          on_answer(in);
          if (++answered == orders_at) orders_due_ = kOrders;
          if (answered == kill_at) server_.kill_hard();
        });
    orders_due_ = 0;
  }

  void look_at_recovery() {
    const auto said = watch_recovery(port_);
    if (!said) return problem("/readyz says nothing of recovery");
    recovered_ = *said;
    if (said->found == 0) problem("nothing was open at the kill: it shows nothing of recovery");
    if (said->left != 0) problem(fmt::format("{} of {} open transactions were not recovered", said->left, said->found));
    if (said->in_doubt != 0) problem(fmt::format("{} transactions are in doubt, though the partner answers", said->in_doubt));
  }

  // A client that got no answer asks again with the same key, until it has one.
  void resend_unanswered() {
    for (int round = 0; round < 5; ++round) {
      std::vector<std::size_t> open;
      for (std::size_t i = 0; i < intents_.size(); ++i)
        if (intents_[i].acknowledged.empty()) open.push_back(i);
      if (open.empty()) return;
      resent_ += open.size();
      std::size_t at = 0;
      bench::http_drive(
          port_, kConnections,
          [&]() -> std::optional<bench::Outgoing> {
            if (at == open.size()) return std::nullopt;
            const std::size_t intent = open[at++];
            ++intents_[intent].sends;
            return bench::Outgoing{intent, add_request(intent)};
          },
          [this](bench::Incoming in) { on_answer(in); });
    }
    for (std::size_t i = 0; i < intents_.size(); ++i)
      if (intents_[i].acknowledged.empty()) problem("no answer for key " + key_of(i) + " after five rounds");
  }

  // Every acknowledged reply once more: on_answer compares byte for byte.
  void check_replays() {
    const std::uint64_t before = replayed_;
    std::size_t at = 0;
    bench::http_drive(
        port_, kConnections,
        [&]() -> std::optional<bench::Outgoing> {
          if (at == intents_.size()) return std::nullopt;
          const std::size_t intent = at++;
          return bench::Outgoing{intent, add_request(intent)};
        },
        [this](bench::Incoming in) { on_answer(in); });
    reproduced_ = replayed_ - before;
    asked_at_end_ = at;
    if (reproduced_ != intents_.size())
      problem(fmt::format("{} of {} acknowledged replies were marked as replayed", reproduced_, intents_.size()));
  }

  void check_books() {
    std::vector<std::int64_t> expected(kAccounts);
    for (const auto& intent : intents_) {
      if (intent.account >= 0) ++expected[static_cast<std::size_t>(intent.account)];
      if (intent.account < 0) ++batches_;
      if (intent.acknowledged.find(R"("status":"issued")") != std::string::npos) ++issued_;
      if (intent.acknowledged.find(R"("sold_out")") != std::string::npos) ++sold_out_;
    }
    int at = 0;
    bench::http_drive(
        port_, 4,
        [&]() -> std::optional<bench::Outgoing> {
          if (at == kAccounts) return std::nullopt;
          const int account = at++;
          return bench::Outgoing{static_cast<std::uint64_t>(account),
                                 demo_request("kv.get", "", fmt::format(R"({{"collection":"demo","key":"account-{:03}"}})", account), server_.token())};
        },
        [&](bench::Incoming in) {
          const auto found = in.whole.find("\"number\":");
          const std::int64_t number = found == std::string::npos ? 0 : std::atoll(in.whole.c_str() + found + 9);
          total_ += number;
          if (number != expected[in.id])
            problem(fmt::format("account {} holds {}, but {} additions were acknowledged", in.id, number, expected[in.id]));
        });
  }

  void check_campaign() {
    books_ = audit_campaign(database());
    for (const auto& wrong : books_.wrong) problem(wrong);
    if (books_.issued != issued_)
      problem(fmt::format("{} vouchers are issued in the books, but {} were acknowledged", books_.issued, issued_));
    // Else no stock was in danger, and that it held says nothing.
    constexpr std::uint64_t kHotInAll = static_cast<std::uint64_t>(kHotVouchers * kHotStock);
    if (batches_ > kHotInAll + kHotInAll / 2 && (books_.sold_out == 0 || sold_out_ == 0))
      problem(fmt::format("{} batches for {} vouchers of a stock of {} each, and none is sold out", batches_, kHotVouchers, kHotStock));
  }

  void problem(std::string text) {
    if (problems_.size() < 20) problems_.push_back(std::move(text));
  }

  static std::string thousands(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (std::size_t at = text.size(); at > 3;) text.insert(at -= 3, ",");
    return text;
  }

  // One line of the report, whose parts must add up.
  void sum(const char* what, std::uint64_t total, const std::vector<std::pair<std::uint64_t, std::string>>& parts) {
    std::string text;
    std::uint64_t added = 0;
    for (const auto& [part, name] : parts) {
      text += fmt::format("{}{} {}", text.empty() ? "" : " + ", thousands(part), name);
      added += part;
    }
    fmt::print("  {:<12} {:>8} = {}\n", what, thousands(total), text);
    if (added != total) problem(fmt::format("{}: the parts add up to {}, not to {}", what, thousands(added), thousands(total)));
  }

  void report(double cpu) {
    if (sent_ != options_.requests) problem(fmt::format("{} requests were sent instead of {}", sent_, options_.requests));
    const double p50 = bench::percentile(latencies_, 0.5) / 1000, p99 = bench::percentile(latencies_, 0.99) / 1000;
    const double rate = static_cast<double>(latencies_.size()) / seconds_;
    if (options_.json) {
      fmt::print(R"({{"sent":{},"intents":{},"duplicates":{},"hostile":{},"cut_off":{},"recovery":{{"found":{},"left":{},"in_doubt":{}}},"resent":{},"replayed":{},"reproduced":{},"total":{},"rate":{:.0f},"p50_ms":{:.3f},"p99_ms":{:.3f},"problems":{}}})" "\n",
                 sent_, intents_.size(), duplicates_, hostile_sent_, cut_off_, recovered_.found, recovered_.left, recovered_.in_doubt, resent_, replayed_, reproduced_, total_, rate, p50, p99, problems_.size());
      return;
    }
    fmt::print("\n");
    const auto n = [](auto value) { return static_cast<std::uint64_t>(value); };
    const std::uint64_t first = intents_.size();
    sum("sent", sent_, {{first, "first requests"}, {duplicates_, "duplicates of them"}, {hostile_sent_, "hostile"}});
    sum("sent in all", sent_ + resent_ + asked_at_end_,
        {{sent_, "as above"}, {resent_, "again, as they had no answer"}, {asked_at_end_, "every key once more at the end"}});
    sum("  of these", sent_ + resent_ + asked_at_end_,
        {{latencies_.size(), "answered"}, {cut_off_, "cut off by the kill"}});
    sum("recovered", recovered_.found,
        {{recovered_.found - recovered_.left - recovered_.in_doubt, fmt::format("begun with a partner and open at the kill: settled within {:.0f} ms of the restart", recovered_.seconds * 1000)},
         {recovered_.left, "left"}, {recovered_.in_doubt, "in doubt"}});
    sum("answered", latencies_.size(),
        {{done_, "done"}, {replayed_, "replayed byte for byte"}, {retry_later_, "told to try later"}, {refused_, "hostile, refused"}});
    sum("took effect", first, {{n(total_), "on the accounts"}, {batches_, "voucher batches: each once"}});
    sum("vouchers", n(books_.stock), {{n(books_.left), "left"}, {n(books_.issued), "issued"}});
    sum("batches", batches_,
        {{n(issued_), "issued a voucher"}, {sold_out_, fmt::format("told that it is sold out ({} of {} hot vouchers are)", books_.sold_out, kHotVouchers)},
         {batches_ - n(issued_) - sold_out_, "declined (quota)"}});
    std::vector<std::pair<std::uint64_t, std::string>> hostile_parts;
    for (const auto& hostile : kHostile)
      hostile_parts.emplace_back(hostile_answers_[hostile.what], fmt::format("{} ({})", hostile.what, hostile.expected));
    if (hostile_cut_off_ > 0) hostile_parts.emplace_back(hostile_cut_off_, "cut off");
    sum("hostile", hostile_sent_, hostile_parts);
    fmt::print("  {:<12} {:>8.0f} requests/s; p50 {:.2f} ms, p99 {:.2f} ms; server CPU since the restart {:.2f} s\n", "rate",
               rate, p50, p99, cpu);
    std::fflush(stdout);
  }

  void verdict() const {
    for (const auto& text : problems_) fmt::print(options_.json ? stderr : stdout, "WRONG: {}\n", text);
    if (!options_.json)
      fmt::print("\n{}\n", problems_.empty() ? "Everything is as it must be." : "Something is wrong.");
    std::fflush(stdout);
  }

  DemoOptions options_;
  std::string folder_;
  DemoServer server_;
  std::uint64_t random_state_;
  std::uint16_t port_ = 0;
  std::vector<Intent> intents_;
  std::map<std::string, std::uint64_t> hostile_answers_;
  std::vector<double> latencies_;
  std::vector<std::string> problems_;
  std::uint64_t sent_ = 0, duplicates_ = 0, hostile_sent_ = 0, cut_off_ = 0, resent_ = 0, replayed_ = 0, reproduced_ = 0,
                retry_later_ = 0, done_ = 0, refused_ = 0, hostile_cut_off_ = 0, asked_at_end_ = 0;
  std::int64_t total_ = 0, issued_ = 0;
  std::uint64_t batches_ = 0, sold_out_ = 0;
  CampaignBooks books_;
  int orders_due_ = 0;
  Recovered recovered_;
  double seconds_ = 0;
};

}  // namespace

void add_demo(CLI::App& app) {
  auto* demo = app.add_subcommand("demo", "Starts a server, drives it through a crash, checks the books");
  auto options = std::make_shared<DemoOptions>();
  demo->add_option("--requests", options->requests, "How many to send")->check(CLI::Range(1000, 10'000'000))->capture_default_str();
  demo->add_option("--seed", options->seed, "Of the drive; the same seed sends the same requests")->capture_default_str();
  demo->add_option("--store", options->store, "postgres://… of an empty database: two nodes on it, one is killed")
      ->check(CLI::Validator([](std::string& given) { return store::is_postgres_url(given) ? std::string() : "expected postgres://… of an empty database, "
                             "got '" + given + "'; without --store the demo makes a SQLite database of its own"; }, "", "store"));
  demo->add_flag("--stay", options->stay, "Leave the server running at the end");
  demo->add_flag("--json", options->json, "The report as one JSON line");
  demo->footer("Examples:\n  sluice demo\n  sluice demo --requests 100000 --seed 7 --json");
  demo->callback([options] {
    bench::Options folder_options;
    const bench::WorkFolder folder(folder_options);
    const int status = !options->store.empty() ? demo_nodes(folder.path(""), options->store, options->requests, options->stay)
                                               : Demo(*options, folder.path("")).run();
    if (status != 0) throw CLI::RuntimeError(status);
  });
}

}  // namespace sluice::cli
