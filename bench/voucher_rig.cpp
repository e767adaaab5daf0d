#include "bench/voucher_rig.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "apps/voucher/code_service.hpp"
#include "apps/voucher/rows.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/server/server.hpp"
#include "sluice/store/postgres.hpp"
#include "store/postgres/connection.hpp"

namespace sluice::bench {
namespace {

constexpr std::size_t kFillStep = 10'000;  // rows of a commit

void commit(server::Server& server, store::Commit commit) {
  const auto filled = store::commit_and_wait(server.context().store, std::move(commit));
  if (!filled) throw std::runtime_error(filled.error().to_string());
}

void fill(server::Server& server, const std::vector<Offer>& offers, bool catalogue, bool codes) {
  constexpr const char* kNs = "voucher";
  // In pieces, as an import: a database that others share is not held by one of a million rows.
  store::Commit rows;
  const auto put = [&](store::KvPut row) {
    rows.then.emplace_back(std::move(row));
    if (rows.then.size() == kFillStep) commit(server, std::exchange(rows, {}));
  };
  for (int i = 0; catalogue && i < kBuyers; ++i) {
    const std::string user = fmt::format("u{}", i);
    put({voucher::user_key(kNs, user), encode(voucher::User{user, "SG"}), {}});
  }
  for (const Offer& offer : offers) {
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
      put({voucher::voucher_key(kNs, v.id), encode(v), {}});
      put({voucher::stock_key(kNs, v.id), "", v.stock});
      put({voucher::budget_key(kNs, v.id), "", v.budget_minor});
    }
    if (codes) {
      put({voucher::pool_key(kNs, offer.id), "", offer.codes});
      for (std::int64_t i = 0; i < offer.codes; ++i)
        put({voucher::code_key(kNs, offer.id, i), fmt::format("{}-{:06}", offer.id == "sg" ? "SG" : offer.id == "th" ? "TH" : "HOT", i), {}});
    }
  }
  commit(server, std::move(rows));
}

std::string with_database(const std::string& url, const std::string& name) {
  return url + (url.find('?') == std::string::npos ? "?" : "&") + "dbname=" + name;
}

}  // namespace

Stores::Stores(const Options& options) : folder_(options), url_(options.store) {}

Stores::~Stores() {
  for (const auto& name : databases_) {
    try {
      run("DROP DATABASE " + name + " WITH (FORCE)");
    } catch (const std::exception& error) {
      fmt::print(stderr, "{} was left behind: {}\n", name, error.what());
    }
  }
}

std::string Stores::make(const std::string& name) {
  if (url_.empty()) return folder_.path(name + ".db");
  databases_.push_back(fmt::format("sluice_bench_{}_{}", getpid(), name));
  run("CREATE DATABASE " + databases_.back());
  return with_database(url_, databases_.back());
}

// A connection each time: none is open while the bench forks.
void Stores::run(const std::string& sql) const {
  store::PostgresOptions options;
  options.url = url_;
  options.io_timeout = seconds(120);  // dropping a database waits for a checkpoint
  auto connection = store::PgConnection::open(options);
  Status done = connection ? (*connection)->script(sql.c_str()) : Status(std::unexpected(connection.error()));
  if (!done) throw std::runtime_error(sql + ": " + done.error().to_string());
}

int serve_vouchers(const Serving& what, std::unique_ptr<server::App> app, int ready) {
  auto config = server::load_config("", {{"SLUICE_HTTP_PORT", "0"}, {"SLUICE_LOG_LEVEL", "error"}});
  if (!config) return 1;
  if (store::is_postgres_url(what.store))
    config->postgres.url = what.store;
  else
    config->sqlite.path = what.store;
  if (what.grpc) config->grpc.listen = "127.0.0.1:0";
  config->guard_rules = what.rules;
  Address address;
  server::ServerParts parts;
  parts.apps.push_back(std::move(app));
  parts.first_token = [&](const std::string& token) { token.copy(address.token, sizeof address.token - 1); };
  auto opened = server::Server::open(std::move(*config), std::move(parts));
  if (!opened || !(*opened)->start()) return 1;
  fill(**opened, what.offers, what.catalogue, what.codes);
  address.port = (*opened)->port();
  address.grpc_port = (*opened)->grpc_port();
  if (write(ready, &address, sizeof address) != sizeof address) return 1;
  Parker forever;
  forever.park();
  return 0;
}

void report_saved(const std::string& name, int callers, const Address& shop, Report& report) {
  std::string body;
  http_drive(
      shop.port, 1,
      [&, sent = false]() mutable -> std::optional<Outgoing> {
        if (std::exchange(sent, true)) return std::nullopt;
        return Outgoing{0, fmt::format("POST /v1/commands/voucher.downstream.show HTTP/1.1\r\nHost: localhost\r\n"
                                       "Authorization: Bearer {}\r\nContent-Length: 2\r\n\r\n{{}}", shop.token)};
      },
      [&](Incoming in) { body = in.body(); });
  const auto shown = nlohmann::json::parse(body, nullptr, false);
  if (!shown.is_object()) return report.note("WRONG: voucher.downstream.show answered " + body);
  const auto count = [&](const char* member) { return shown.value(member, 0.0); };
  // Each item wants a code: it is at hand, or comes with a call that several items wait for, or the breaker says no.
  report.add(name, callers, "calls of the code service", "", {count("code_calls") - count("code_calls_refused")});
  report.add(name, callers, "saved by cache", "calls", {count("codes_at_hand")});
  report.add(name, callers, "saved by single-flight", "calls", {std::max(0.0, count("code_waits") - count("code_calls"))});
  report.add(name, callers, "saved by breaker", "calls", {count("code_calls_refused")});
}

Address wait_for(int fd) {
  Address address;
  if (read(fd, &address, sizeof address) != sizeof address) throw std::runtime_error("a server did not start");
  return address;
}

}  // namespace sluice::bench
