// The distribution service beside a real code service, each a server of its own, with a proxy in between
// that misbehaves.
#pragma once
#include <gmock/gmock.h>

#include <mutex>

#include "apps/voucher/rows.hpp"
#include "sluice/base/runtime.hpp"
#include "support/chaos_proxy.hpp"
#include "voucher/services.hpp"

namespace sluice::voucher {

inline constexpr const char* kRules = R"([guard."voucher.code.*".breaker]
minimum_calls = 4
failure_ratio = 0.5
window_time = "2s"
isolation = "200ms"
isolation_jitter = 0.0
trials = 1
[guard."voucher.code.*".timeout]
timeout = "150ms"
)";

class Lines final : public LogSink {
 public:
  void write(LogLevel, std::string_view line) override {
    const std::lock_guard lock(mutex);
    all.append(line).append("\n");
  }
  std::mutex mutex;
  std::string all;
};

class VoucherServicesTest : public testing::Test {
 protected:
  Service codes{make_code_service(), true};
  test::ChaosProxy proxy{codes.server->grpc_port()};
  RealClock log_clock;
  std::shared_ptr<Lines> lines = std::make_shared<Lines>();
  std::unique_ptr<Logger> logger = make_logger(log_clock, lines);
  Service shop{make_app(options_for(proxy.port(), codes.token)), true, kRules, {}, logger.get()};
  int asked = 0;

  void SetUp() override {
    for (const char* ns : {"voucher", "voucher~shadow"})
      for (const char* id : {"v1", "v2"}) open_voucher(ns, id, 1000, 200);
    store::Commit users;
    for (int i = 0; i < 200; ++i)
      for (const char* ns : {"voucher", "voucher~shadow"})
        users.then.push_back(store::KvPut{user_key(ns, user(i)), encode(User{user(i), "SG"}), {}});
    ASSERT_TRUE(store::commit_and_wait(shop.store(), std::move(users)));
  }
  static std::string user(int i) { return "u" + std::to_string(i); }
  void open_voucher(const std::string& ns, const std::string& id, std::int64_t stock, std::int64_t count) {
    const Voucher v = open_for_all(id, stock);
    store::Commit here;
    here.then = {store::KvPut{voucher_key(ns, id), encode(v), {}}, store::KvPut{stock_key(ns, id), "", stock},
                 store::KvPut{budget_key(ns, id), "", v.budget_minor}};
    ASSERT_TRUE(store::commit_and_wait(shop.store(), std::move(here)));
    store::Commit there;
    there.then.push_back(store::KvPut{pool_key(ns, id), "", count});
    for (std::int64_t n = 0; n < count; ++n) {
      std::string text = (ns == "voucher" ? "L-" : "S-") + id + "-" + std::to_string(1000 + n);
      for (char& c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      there.then.push_back(store::KvPut{code_key(ns, id, n), text, {}});
    }
    ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  }
  Json batch(const std::vector<std::pair<std::string, std::string>>& items, const std::string& region = "SG",
             const std::string& more = {}, std::string id = {}) {
    if (id.empty()) id = "r" + std::to_string(++asked);
    Json list = Json::array();
    for (const auto& [who, voucher] : items) list.push_back({{"user", who}, {"voucher", voucher}});
    return shop.ask(kBatch, {{"request_id", id}, {"region", region}, {"items", list}},
                    "Idempotency-Key: " + id + "\r\n" + more);
  }
  std::string breaker(const std::string& region, bool shadow = false) {
    const Json shown = shop.ask("sluice.breakers.show",
                                {{"name", std::string(kGetCodes) + "." + region}, {"shadow", shadow}});
    return shown.value("state", shown.dump());
  }
  void faults(const Json& plan) {
    const Json set = codes.ask("voucher.faults.codes.set", plan);
    ASSERT_FALSE(set.contains("http")) << set.dump();
  }
};

}  // namespace sluice::voucher
