// The flash sale: one hot voucher, many buyers, a stock far below what they want. One server process
// with embedded SQLite; then the same with its codes in a code service of another process.
#include <fmt/core.h>
#include <unistd.h>

#include <map>

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

struct Address {
  std::uint16_t port = 0, grpc_port = 0;
  char token[128] = {};
};

void fill(server::Server& server, bool catalogue, bool codes) {
  constexpr const char* kNs = "voucher";
  store::Commit commit;
  if (catalogue) {
    voucher::Voucher hot;
    hot.id = hot.name = "hot";
    hot.region = "ALL";
    hot.to = WallTime(std::chrono::hours(24 * 365 * 200));
    hot.value_minor = 100;
    hot.currency = "EUR";
    hot.stock = kStock;
    hot.user_quota = 1;
    hot.day_quota = 1'000'000;
    hot.budget_minor = 1'000'000'000;
    commit.then = {store::KvPut{voucher::voucher_key(kNs, "hot"), encode(hot), {}},
                   store::KvPut{voucher::stock_key(kNs, "hot"), "", kStock},
                   store::KvPut{voucher::budget_key(kNs, "hot"), "", hot.budget_minor}};
    for (int i = 0; i < kBuyers; ++i) {
      const std::string user = fmt::format("u{}", i);
      commit.then.push_back(store::KvPut{voucher::user_key(kNs, user), encode(voucher::User{user, "SG"}), {}});
    }
  }
  if (codes) {
    commit.then.push_back(store::KvPut{voucher::pool_key(kNs, "hot"), "", 2 * kStock});
    for (int i = 0; i < 2 * kStock; ++i)
      commit.then.push_back(store::KvPut{voucher::code_key(kNs, "hot", i), fmt::format("HOT-{:06}", i), {}});
  }
  const auto filled = store::commit_and_wait(server.context().store, std::move(commit));
  if (!filled) throw std::runtime_error(filled.error().to_string());
}

int serve(const std::string& database, std::unique_ptr<server::App> app, bool catalogue, bool codes, bool grpc, int ready) {
  auto config = server::load_config("", {{"SLUICE_HTTP_PORT", "0"}, {"SLUICE_LOG_LEVEL", "error"}});
  if (!config) return 1;
  config->sqlite.path = database;
  if (grpc) config->grpc.listen = "127.0.0.1:0";
  Address address;
  server::ServerParts parts;
  parts.apps.push_back(std::move(app));
  parts.first_token = [&](const std::string& token) { token.copy(address.token, sizeof address.token - 1); };
  auto opened = server::Server::open(std::move(*config), std::move(parts));
  if (!opened || !(*opened)->start()) return 1;
  fill(**opened, catalogue, codes);
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
  if (issued != static_cast<std::uint64_t>(kStock)) report.note(fmt::format("WRONG: expected {} issued", kStock));
}

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
          [&] { return serve(folder.path("codes.db"), voucher::make_code_service(), false, true, true, code_pipe[1]); });
      const Address address = wait_for(code_pipe[0]);
      chosen.code_service = fmt::format("127.0.0.1:{}", address.grpc_port);
      chosen.code_token = address.token;
    }
    const Child shop([&] {
      return serve(folder.path(service ? "shop2.db" : "shop.db"), voucher::make_app(chosen), true, !service, false, shop_pipe[1]);
    });
    sale(label, wait_for(shop_pipe[0]), shop, report);
  }
}

}  // namespace sluice::bench
