// The flash sale: one hot voucher, many buyers, a stock far below what they want. One server process with a store of its
// own; then the same with its codes in a code service of another process. With --store all of it on PostgreSQL, beside
// plain transactions of one connection each. Then the outage.
#include <fmt/core.h>
#include <unistd.h>

#include <map>

#include "apps/voucher/code_service.hpp"
#include "bench/bare_postgres.hpp"
#include "bench/benches.hpp"
#include "bench/durable_rig.hpp"
#include "bench/voucher_rig.hpp"

namespace sluice::bench {
namespace {

constexpr std::int64_t kStock = 1000;
constexpr int kConnections = 64;
const std::vector<Offer> kSale{{"hot", kStock, 2 * kStock, 1}};

void sale(const std::string& name, const Address& shop, const Child& child, bool service, std::uint64_t buyers, Report& report) {
  std::uint64_t next = 0, issued = 0, wrong = 0;
  std::map<std::string, std::uint64_t> reasons;
  std::vector<double> latency;
  const double cpu = child.cpu();
  const double seconds = http_drive(
      shop.port, kConnections,
      [&]() -> std::optional<Outgoing> {
        if (next == buyers) return std::nullopt;
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
  report.add(name, kConnections, "rate", "1/s", {static_cast<double>(buyers) / seconds});
  report.add(name, kConnections, "p50", "us", {percentile(latency, 0.5)});
  report.add(name, kConnections, "p99", "us", {percentile(latency, 0.99)});
  report.add(name, kConnections, "server cpu", "us/op", {(child.cpu() - cpu) * 1e6 / static_cast<double>(buyers)});
  report.add(name, kConnections, "issued", "vouchers", {static_cast<double>(issued)});
  std::string sum;
  for (const auto& [reason, count] : reasons) sum += fmt::format(", {} {}", count, reason);
  report.note(fmt::format("{}: {} buyers: {} issued{}{}", name, buyers, issued, sum,
                          wrong == 0 ? "" : fmt::format(", {} WITHOUT AN ANSWER", wrong)));
  if (service) report_saved(name, kConnections, shop, report);
  if (issued != static_cast<std::uint64_t>(kStock)) report.note(fmt::format("WRONG: expected {} issued", kStock));
}

}  // namespace

void bench_voucher(const Options& options, Report& report) {
  Stores stores(options);
  for (const bool service : {false, true}) {
    int code_pipe[2], shop_pipe[2];
    if (pipe(code_pipe) != 0 || pipe(shop_pipe) != 0) throw std::runtime_error("pipe");
    const std::string label = service ? "flash sale, code service" : "flash sale, own codes";
    const std::string code_store = service ? stores.make("codes2") : std::string(), shop_store = stores.make(service ? "shop2" : "shop1");
    std::unique_ptr<Child> codes;
    voucher::VoucherOptions chosen;
    if (service) {
      codes = std::make_unique<Child>([&] {
        return serve_vouchers({.store = code_store, .offers = kSale, .catalogue = false, .grpc = true}, voucher::make_code_service(), code_pipe[1]);
      });
      const Address address = wait_for(code_pipe[0]);
      chosen.code_service = fmt::format("127.0.0.1:{}", address.grpc_port);
      chosen.code_token = address.token;
    }
    const Child shop([&] {
      return serve_vouchers({.store = shop_store, .offers = kSale, .codes = !service}, voucher::make_app(chosen), shop_pipe[1]);
    });
    sale(label, wait_for(shop_pipe[0]), shop, service, static_cast<std::uint64_t>(as_many(options, kBuyers)), report);
  }
  bench_voucher_outage(options, report, stores);
  if (options.store.empty()) return;
  // Last: what forks has no threads.
  const std::string bare = stores.make("bare");
  const Rig rig(bare);
  std::vector<double> rate;
  for (int round = 0; round < options.rounds; ++round)
    rate.push_back(bare_commits(bare, durable_rows(), kConnections, options.seconds, false).per_second);
  report.add("limit: bare transactions of four rows, one per connection", kConnections, "rate", "1/s", rate);
}

}  // namespace sluice::bench
