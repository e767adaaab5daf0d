// Servers of the voucher services in one process, each with a store of its own, for tests.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "apps/voucher/app.hpp"
#include "apps/voucher/code_service.hpp"
#include "apps/voucher/rows.hpp"
#include "apps/voucher/user_service.hpp"
#include "sluice/server/server.hpp"
#include "support/http_client.hpp"

namespace sluice::voucher {

using Json = nlohmann::json;

inline constexpr const char* kBatch = "voucher.ss.distribution.batch_distribute_voucher";
struct Service {
  explicit Service(std::unique_ptr<server::App> app, bool grpc, const char* rules = "",
                   const std::function<void(server::Config&)>& adjust = {}, Logger* logger = nullptr) {
    server::Config config;
    config.store_kind = "memory";
    config.http.port = 0;
    if (grpc) config.grpc.listen = "127.0.0.1:0";
    if (adjust) adjust(config);
    server::ServerParts parts;
    parts.logger = logger != nullptr ? logger : &null_logger();
    parts.apps.push_back(std::move(app));
    parts.first_token = [this](const std::string& made) { token = made; };
    auto opened = server::Server::open(std::move(config), std::move(parts));
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().to_string());
    server = std::move(*opened);
    const auto started = server->start();
    EXPECT_TRUE(started) << (started ? "" : started.error().to_string());
    if (*rules != 0) {
      const Json answer = ask("sluice.rules.reload", {{"rules", rules}});
      EXPECT_TRUE(answer.contains("version")) << answer.dump();
    }
  }
  store::Store& store() { return server->context().store; }
  Json ask(const char* command, const Json& payload, const std::string& more = {}) {
    test::HttpClient client(server->port());
    auto response = client.ask(test::post(command, payload.dump(), "Authorization: Bearer " + token + "\r\n" + more));
    if (!response) return Json{{"no", "answer"}};
    Json json = Json::parse(response->body, nullptr, false);
    if (response->status >= 400) json["http"] = response->status;
    return json;
  }
  std::string token;
  std::unique_ptr<server::Server> server;
};

inline VoucherOptions options_for(std::uint16_t codes, const std::string& code_token, std::uint16_t users = 0) {
  VoucherOptions options;
  options.code_service = "127.0.0.1:" + std::to_string(codes);
  if (users != 0) options.user_service = "127.0.0.1:" + std::to_string(users);
  options.code_token = code_token;
  options.downstream.segment_codes = 10;
  options.downstream.timeout = milliseconds(400);
  return options;
}

/// A voucher for everybody at any time, in the shop's store.
inline Voucher open_for_all(const std::string& id, std::int64_t stock) {
  Voucher v;
  v.id = v.name = id;
  v.region = "ALL";
  v.from = WallTime(milliseconds(0));
  v.to = WallTime(std::chrono::hours(24 * 365 * 200));
  v.value_minor = 500;
  v.currency = "EUR";
  v.stock = stock;
  v.user_quota = 1'000'000;
  v.day_quota = 1'000'000;
  v.budget_minor = 500'000'000;
  return v;
}

}  // namespace sluice::voucher
