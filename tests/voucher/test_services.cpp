// The distribution service beside real code and user services, each a server of its own, with a proxy
// in between that misbehaves.
#include <gmock/gmock.h>

#include <chrono>
#include <fstream>
#include <mutex>
#include <set>

#include "apps/voucher/books.hpp"
#include "apps/voucher/rows.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc_channel.hpp"
#include "support/chaos_proxy.hpp"
#include "voucher/services.hpp"
#include "voucher/v1/codes.pb.h"
#include "voucher/v1/distribution.pb.h"
#include "voucher/v1/users.pb.h"

namespace sluice::voucher {
namespace {

namespace v1 = ::voucher::v1;

using testing::HasSubstr;

// Sanitizers keep freed memory back.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

constexpr const char* kRules = R"([guard."voucher.code.*".breaker]
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

class VoucherServices : public testing::Test {
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

TEST_F(VoucherServices, VOUCHER_6_codes_come_in_segments_from_the_code_service_and_each_goes_to_one_user) {
  std::set<std::string> given;
  for (int round = 0; round < 4; ++round) {
    std::vector<std::pair<std::string, std::string>> items;
    for (int i = 0; i < 25; ++i) items.push_back({user(round * 25 + i), "v1"});
    const Json reply = batch(items);
    ASSERT_EQ(reply["results"].size(), 25u) << reply.dump();
    for (const auto& one : reply["results"]) {
      ASSERT_EQ(one["status"], "issued") << one.dump();
      EXPECT_TRUE(given.insert(one["code"]).second) << "a code was given twice";
    }
  }
  EXPECT_EQ(given.size(), 100u);
  const Json saved = shop.ask("voucher.downstream.show", Json::object());
  EXPECT_GE(saved["code_calls"], 10) << saved.dump();  // segments of ten
  EXPECT_LE(saved["code_calls"], 12) << saved.dump();
  EXPECT_EQ(saved["codes_at_hand"].get<int>() + saved["code_waits"].get<int>(), 100) << "the others shared: " << saved.dump();
}

TEST_F(VoucherServices, VOUCHER_6_no_code_stands_in_the_log) {
  const Json reply = batch({{user(0), "v1"}, {user(1), "v1"}});
  shop.server->stop();  // what is logged is written
  EXPECT_THAT(lines->all, HasSubstr("a service was called"));
  for (const auto& one : reply["results"]) {
    ASSERT_EQ(one["status"], "issued") << reply.dump();
    EXPECT_THAT(lines->all, testing::Not(HasSubstr(one["code"].get<std::string>())));
  }
  EXPECT_THAT(lines->all, testing::Not(HasSubstr("L-V1-"))) << "nor those leased beside them";
}

TEST_F(VoucherServices, VOUCHER_2_a_full_batch_of_different_vouchers_is_issued_within_the_usual_time) {
  std::vector<std::pair<std::string, std::string>> items;
  for (int i = 0; i < 500; ++i) {
    open_voucher("voucher", "w" + std::to_string(i), 10, 2);
    items.emplace_back(user(i % 200), "w" + std::to_string(i));
  }
  const Json answer = batch(items);
  int issued = 0;
  for (const auto& result : answer.value("results", Json::array())) issued += result.value("status", "") == "issued";
  EXPECT_EQ(issued, 500) << answer.dump().substr(0, 300);
}

TEST_F(VoucherServices, VOUCHER_6_distribution_services_with_stores_of_their_own_get_different_codes) {
  Service other{make_app(options_for(codes.server->grpc_port(), codes.token)), true};
  const Voucher v = open_for_all("v1", 100);
  store::Commit fill;
  fill.then = {store::KvPut{voucher_key("voucher", v.id), encode(v), {}}, store::KvPut{stock_key("voucher", v.id), "", v.stock},
               store::KvPut{budget_key("voucher", v.id), "", v.budget_minor},
               store::KvPut{user_key("voucher", user(0)), encode(User{user(0), "SG"}), {}}};
  ASSERT_TRUE(store::commit_and_wait(other.store(), std::move(fill)));
  std::set<std::string> given;
  for (Service* service : {&shop, &other}) {
    const Json answer = service->ask(kBatch, {{"request_id", "r"}, {"region", "SG"}, {"items", {{{"user", user(0)}, {"voucher", "v1"}}}}},
                                     "Idempotency-Key: r\r\n");
    ASSERT_EQ(answer["results"][0]["status"], "issued") << answer.dump();
    given.insert(answer["results"][0]["code"].get<std::string>());
  }
  EXPECT_EQ(given.size(), 2u) << "one code went to both";
}

TEST_F(VoucherServices, VOUCHER_6_when_the_codes_run_out_it_is_said_and_nothing_is_taken) {
  open_voucher("voucher", "few", 100, 3);
  int issued = 0, none = 0;
  for (int i = 0; i < 6; ++i) {
    const Json one = batch({{user(i), "few"}})["results"][0];
    issued += one["status"] == "issued";
    none += one.value("reason", "") == "no_code";
  }
  EXPECT_EQ(issued, 3);
  EXPECT_EQ(none, 3);
  store::GetRows rows;
  rows.keys = {stock_key("voucher", "few")};
  EXPECT_EQ((*store::ask_now(shop.store(), rows))[0]->number, 97);
}

TEST_F(VoucherServices, VOUCHER_6_a_universal_code_is_asked_for_once_and_goes_to_all) {
  open_voucher("voucher", "all", 60, 0);
  store::Commit there;
  there.then.push_back(store::KvPut{pool_key("voucher", "all"), "WELCOME", 0});
  ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  int issued = 0, sold_out = 0;
  for (int round = 0; round < 4; ++round) {
    std::vector<std::pair<std::string, std::string>> items;
    for (int i = 0; i < 20; ++i) items.push_back({user(round * 20 + i), "all"});
    const auto answer = batch(items);
    for (const auto& one : answer["results"]) {
      issued += one.value("code", "") == "WELCOME";
      sold_out += one.value("reason", "") == "sold_out";
    }
  }
  EXPECT_EQ(issued, 60);
  EXPECT_EQ(sold_out, 20);
  const std::string metrics = test::HttpClient(shop.server->port()).ask(test::get("/metrics"))->body;
  EXPECT_THAT(metrics, HasSubstr("outcome=\"ok\"} 1\n")) << "eighty items, one call: the code is remembered for its lease";
  const auto books = audit_books(shop.store(), "voucher", &codes.store());
  ASSERT_TRUE(books);
  for (const auto& wrong : books->wrong) ADD_FAILURE() << wrong;
}

TEST_F(VoucherServices, VOUCHER_8_a_hung_code_service_costs_a_bounded_time_and_only_those_who_need_it) {
  ASSERT_EQ(batch({{user(0), "v1"}})["results"][0]["status"], "issued");
  faults({{"rules", {{{"region", "SG"}, {"hang_rate", 1.0}}}}});
  for (int i = 0; i < 12; ++i) {
    const auto began = std::chrono::steady_clock::now();
    const Json reply = batch({{user(i), "v2"}, {"nobody", "v2"}}, "SG", "X-Sluice-Deadline-Ms: 2000\r\n");
    EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(2)) << "an answer comes before the deadline";
    ASSERT_EQ(reply["results"].size(), 2u) << reply.dump();
    EXPECT_EQ(reply["results"][0]["reason"], "code_service_unavailable") << reply.dump();
    EXPECT_EQ(reply["results"][0]["retryable"], true);
    EXPECT_EQ(reply["results"][1]["reason"], "unknown_user") << "who does not need it has an ordinary answer";
  }
  EXPECT_EQ(breaker("SG"), "open");
  open_voucher("voucher", "v3", 10, 10);
  EXPECT_EQ(batch({{user(1), "v3"}}, "TH")["results"][0]["status"], "issued") << "other regions are unharmed";
  EXPECT_EQ(breaker("TH"), "closed");
  faults(Json::object());
  Json last;
  for (int i = 0; i < 200; ++i) {  // two probe intervals are 400 ms; bounded by the attempts, not by luck
    last = batch({{user(2), "v2"}}, "SG", "", "again");
    if (last["results"][0]["status"] == "issued") break;
    EXPECT_EQ(last["results"][0]["retryable"], true);
    poll(nullptr, 0, 10);
  }
  EXPECT_EQ(last["results"][0]["status"], "issued") << "a refusal was not remembered; the same id goes on";
  EXPECT_EQ(breaker("SG"), "closed");
}

// Threads, permits and memory after a thousand callers of a hung service are those after the first hundred.
TEST_F(VoucherServices, VOUCHER_8_a_hung_code_service_makes_neither_threads_nor_memory_grow) {
  faults({{"rules", {{{"hang_rate", 1.0}}}}});
  const auto number_after = [](const std::string& text, const std::string& name) {
    const auto at = text.find(name);
    return at == std::string::npos ? -1.0 : std::atof(text.c_str() + at + name.size());
  };
  const auto status = [&](const char* field) {
    std::ifstream file("/proc/self/status");
    const std::string text(std::istreambuf_iterator<char>(file), {});
    return number_after(text, field);
  };
  const auto callers = [&](int count) {
    constexpr int kAtOnce = 16;
    for (int i = 0; i < count / kAtOnce; ++i) {
      // Sixteen wait together, each on a connection of its own; then all have an answer.
      std::vector<std::unique_ptr<test::HttpClient>> clients;
      for (int c = 0; c < kAtOnce; ++c) {
        const std::string id = "g" + std::to_string(++asked);
        const Json body{{"request_id", id}, {"region", "SG"}, {"items", {{{"user", user(c)}, {"voucher", "v2"}}}}};
        clients.push_back(std::make_unique<test::HttpClient>(shop.server->port()));
        ASSERT_TRUE(clients.back()->send(test::post(kBatch, body.dump(), "Authorization: Bearer " + shop.token +
                                                                             "\r\nIdempotency-Key: " + id + "\r\n")));
      }
      for (auto& client : clients) {
        const auto answer = client->receive();
        ASSERT_TRUE(answer);
        ASSERT_TRUE(answer->has("code_service_unavailable")) << answer->body;
      }
    }
  };
  callers(160);
  const double threads = status("Threads:"), resident = status("VmRSS:");
  callers(1600);
  EXPECT_LE(status("Threads:"), threads + 4) << "a thread for each that hangs; gRPC's own pool may take one or two";
  if (!kSanitized) EXPECT_LE(status("VmRSS:"), resident + 32 * 1024) << "KiB; what hangs is kept";
  for (Service* service : {&shop, &codes}) {
    double in_use = -1;
    for (int i = 0; i < 500; ++i) {  // a cancelled call takes a moment to be known at the other end
      const std::string metrics = test::HttpClient(service->server->port()).ask(test::get("/metrics"))->body;
      const auto at = metrics.find("\nsluice_admission_in_use{");
      ASSERT_NE(at, std::string::npos);
      in_use = number_after(metrics.substr(at), "} ");
      if (in_use == 0) break;
      poll(nullptr, 0, 10);
    }
    EXPECT_EQ(in_use, 0) << "a permit is still out";
  }
}

TEST_F(VoucherServices, VOUCHER_2_a_deadline_that_passes_takes_nothing_and_the_same_request_goes_on_later) {
  faults({{"rules", {{{"hang_rate", 1.0}}}}});
  const auto began = std::chrono::steady_clock::now();
  const Json late = batch({{user(1), "v1"}, {"nobody", "v1"}}, "SG", "X-Sluice-Deadline-Ms: 60\r\n", "late");
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(2));
  if (late.contains("results"))  // each item by itself, or the batch as a whole
    EXPECT_EQ(late["results"][0]["retryable"], true) << late.dump();
  else
    EXPECT_EQ(late["http"], 504) << late.dump();
  faults(Json::object());
  Json later;
  for (int i = 0; i < 500; ++i) {
    later = batch({{user(1), "v1"}, {"nobody", "v1"}}, "SG", "", "late");
    if (later.contains("results") && later["results"][0]["status"] == "issued") break;
    poll(nullptr, 0, 10);
  }
  ASSERT_EQ(later["results"][0]["status"], "issued") << later.dump();
  EXPECT_EQ(later["results"][1]["reason"], "unknown_user");
  EXPECT_EQ(batch({{user(1), "v1"}, {"nobody", "v1"}}, "SG", "", "late"), later) << "and is the same from then on";
  const auto books = audit_books(shop.store(), "voucher", &codes.store());
  ASSERT_TRUE(books);
  EXPECT_EQ(books->issued, 1);
  for (const auto& wrong : books->wrong) ADD_FAILURE() << wrong;
}

TEST_F(VoucherServices, VOUCHER_8_wrong_answers_and_a_cut_line_are_failures_and_add_no_code) {
  faults({{"rules", {{{"wrong_rate", 1.0}}}}});
  const Json wrong = batch({{user(0), "v1"}});
  EXPECT_EQ(wrong["results"][0]["reason"], "code_service_unavailable") << wrong.dump();
  faults(Json::object());
  proxy.set({.refuse = true});
  proxy.cut();
  const Json cut = batch({{user(1), "v2"}}, "ID");
  EXPECT_EQ(cut["results"][0]["reason"], "code_service_unavailable") << cut.dump();
  proxy.set({});
  Json back;
  for (int i = 0; i < 500 && !(back.is_object() && back["results"][0]["status"] == "issued"); ++i) {
    back = batch({{user(2), "v2"}}, "VN");
    poll(nullptr, 0, 10);
  }
  EXPECT_EQ(back["results"][0]["status"], "issued") << back.dump();
}

TEST_F(VoucherServices, VOUCHER_8_RES_11_wrong_answers_open_the_breaker_of_their_region) {
  faults({{"rules", {{{"region", "SG"}, {"wrong_rate", 1.0}}}}});
  bool opened = false;
  for (int i = 0; i < 30 && !opened; ++i) {
    (void)batch({{user(i), "v1"}});
    opened = breaker("SG") == "open";
  }
  EXPECT_TRUE(opened) << "a service that answers nonsense is a service that fails";
}

TEST_F(VoucherServices, VOUCHER_9_shadow_traffic_has_its_own_codes_and_its_own_breaker) {
  const Json shadow = batch({{user(0), "v1"}}, "SG", "X-Sluice-Shadow: true\r\n");
  ASSERT_EQ(shadow["results"][0]["status"], "issued") << shadow.dump();
  EXPECT_THAT(shadow["results"][0]["code"].get<std::string>(), HasSubstr("S-V1")) << "of the shadow pool, in the downstream too";
  const Json live = batch({{user(0), "v1"}});
  EXPECT_THAT(live["results"][0]["code"].get<std::string>(), HasSubstr("L-V1-1000")) << "the live pool was not touched";
  faults({{"rules", {{{"error_rate", 1.0}}}}});
  for (int i = 0; i < 8; ++i) (void)batch({{user(i), "v2"}}, "SG", "X-Sluice-Shadow: true\r\n");
  EXPECT_EQ(breaker("SG", true), "open");
  EXPECT_EQ(breaker("SG", false), "closed") << "shadow failures opened a live breaker";
}

TEST_F(VoucherServices, VOUCHER_1_grpc_and_http_are_one_command_and_replay_each_others_reply) {
  RealClock clock;
  LaneThread caller(clock, "caller");
  caller.start();
  transport::GrpcChannelOptions to;
  to.target = "127.0.0.1:" + std::to_string(shop.server->grpc_port());
  to.token = shop.token;
  auto channel = transport::make_grpc_channel(std::move(to));
  ASSERT_TRUE(channel);
  {
    rpc::Client client(*std::move(channel), {});
    const auto distribute = rpc::remote<v1::BatchDistributeVoucherRequest, v1::BatchDistributeVoucherResponse>(
        client, {.name = "distribute", .method = "voucher.v1.Distribution/BatchDistributeVoucher"});
    v1::BatchDistributeVoucherRequest request;
    request.set_request_id("both");
    request.set_region("SG");
    auto* item = request.add_items();
    item->set_user(user(1));
    item->set_voucher("v1");
    rpc::CallContext context;
    context.ns = Namespace("voucher");
    context.idempotency_key = "both";
    const auto first = block_on(caller, distribute(context, request));
    ASSERT_TRUE(first) << first.error().to_string();
    ASSERT_EQ((*first)->results_size(), 1);
    EXPECT_EQ((*first)->results(0).status(), "issued");
    EXPECT_EQ((*first)->results(0).value_minor(), 500);
    const auto again = block_on(caller, distribute(context, request));
    ASSERT_TRUE(again);
    EXPECT_EQ((*again)->SerializeAsString(), (*first)->SerializeAsString()) << "a replay is the same, byte for byte";
    test::HttpClient http(shop.server->port());
    const auto response = http.ask(test::post(
        kBatch, R"({"request_id":"both","region":"SG","items":[{"user":"u1","voucher":"v1"}]})",
        "Authorization: Bearer " + shop.token + "\r\nIdempotency-Key: both\r\n"));
    ASSERT_TRUE(response);
    EXPECT_EQ(response->headers.count("idempotency-replayed"), 1u) << response->body;
    EXPECT_THAT(response->body, HasSubstr((*first)->results(0).code()));
    request.mutable_items(0)->set_user(user(2));
    const auto other = block_on(caller, distribute(context, request));
    ASSERT_FALSE(other) << "another request under the same key";
    EXPECT_EQ(other.error().kind(), FailureKind::fingerprint_mismatch);
  }
  caller.stop();
  caller.join();
}

// The same commands by the typed services of the code and the user service.
TEST(VoucherTyped, VOUCHER_1_codes_and_users_have_typed_services_of_their_own) {
  Service codes{make_code_service(), true};
  Service users{make_user_service(), true};
  store::Commit there;
  there.then.push_back(store::KvPut{pool_key("voucher", "v1"), "", 30});
  for (std::int64_t n = 0; n < 30; ++n)
    there.then.push_back(store::KvPut{code_key("voucher", "v1", n), "CODE-" + std::to_string(n), {}});
  there.then.push_back(store::KvPut{pool_key("voucher", "all"), "WELCOME", 0});
  ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(there)));
  store::Commit known;
  known.then.push_back(store::KvPut{user_key("voucher", "ann"), encode(User{"ann", "SG"}), {}});
  ASSERT_TRUE(store::commit_and_wait(users.store(), std::move(known)));
  RealClock clock;
  LaneThread caller(clock, "caller");
  caller.start();
  const auto open = [](Service& to) {
    transport::GrpcChannelOptions options;
    options.target = "127.0.0.1:" + std::to_string(to.server->grpc_port());
    options.token = to.token;
    return std::make_unique<rpc::Client>(*transport::make_grpc_channel(std::move(options)),
                                         std::vector<std::shared_ptr<rpc::Interceptor>>{});
  };
  {
    const auto to_codes = open(codes), to_users = open(users);
    const auto lease = rpc::remote<v1::BatchGetCodeUsingCacheRequest, v1::BatchGetCodeUsingCacheResponse>(
        *to_codes, {.name = "lease", .method = "voucher.v1.Codes/BatchGetCodeUsingCache"});
    rpc::CallContext context;
    context.ns = Namespace("voucher");
    const auto leased = [&](const std::string& key, const v1::BatchGetCodeUsingCacheRequest& request) {
      context.idempotency_key = key;
      auto answer = block_on(caller, lease(context, request));
      EXPECT_TRUE(answer) << answer.error().to_string();
      return answer ? **answer : v1::BatchGetCodeUsingCacheResponse();
    };
    v1::BatchGetCodeUsingCacheRequest request;
    request.set_owner("shop-1");
    for (const char* voucher : {"v1", "all", "other"}) request.add_vouchers(voucher);
    request.set_count(20);
    const auto first = leased("a", request);
    ASSERT_EQ(first.segments_size(), 3);
    EXPECT_EQ(first.lease_ms(), 600'000);
    EXPECT_EQ(first.segments(0).codes_size(), 20);
    EXPECT_EQ(first.segments(1).universal(), "WELCOME");
    EXPECT_TRUE(first.segments(2).none());
    EXPECT_EQ(leased("a", request).SerializeAsString(), first.SerializeAsString()) << "a replay is the same";
    request.clear_vouchers();
    auto* finished = request.add_finished();  // 64-bit integers, which JSON has as text
    finished->set_voucher("v1");
    finished->set_first(first.segments(0).first());
    finished->set_token(first.segments(0).token());
    (void)leased("b", request);
    request.clear_finished();
    request.add_vouchers("v1");
    request.set_resume(true);
    const auto rest = leased("c", request);
    ASSERT_EQ(rest.segments_size(), 1);
    EXPECT_EQ(rest.segments(0).first(), 20) << "what is finished is not given again";
    EXPECT_EQ(rest.segments(0).codes(9), "CODE-29");
    request.set_count(-1);
    context.idempotency_key = "d";
    const auto refused = block_on(caller, lease(context, request));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), "bad_request");
    const auto exists = rpc::remote<v1::ExistsRequest, v1::ExistsResponse>(
        *to_users, {.name = "exists", .method = "voucher.v1.Users/Exists", .read_only = true});
    v1::ExistsRequest who;
    for (const char* user : {"ann", "nobody"}) who.add_users(user);
    rpc::CallContext plain;
    plain.ns = Namespace("voucher");
    const auto answer = block_on(caller, exists(plain, who));
    ASSERT_TRUE(answer) << answer.error().to_string();
    ASSERT_EQ((*answer)->exists_size(), 2);
    EXPECT_TRUE((*answer)->exists(0));
    EXPECT_FALSE((*answer)->exists(1));
  }
  caller.stop();
  caller.join();
}

TEST(VoucherUsers, VOUCHER_3_users_are_asked_of_the_user_service_once_for_a_batch) {
  Service codes{make_code_service(), true};
  Service users{make_user_service(), true};
  store::Commit known;
  for (int i = 0; i < 5; ++i)
    known.then.push_back(store::KvPut{user_key("voucher", "u" + std::to_string(i)), encode(User{"u" + std::to_string(i), "SG"}), {}});
  ASSERT_TRUE(store::commit_and_wait(users.store(), std::move(known)));
  VoucherOptions options = options_for(codes.server->grpc_port(), codes.token, users.server->grpc_port());
  options.code_service.clear();
  options.user_token = users.token;
  Service shop{make_app(options), false};
  Json items = Json::array();
  for (int i = 0; i < 10; ++i) items.push_back({{"user", "u" + std::to_string(i)}, {"voucher", "none"}});
  const Json reply = shop.ask(kBatch, {{"request_id", "a"}, {"region", "SG"}, {"items", items}}, "Idempotency-Key: a\r\n");
  for (int i = 0; i < 10; ++i)
    EXPECT_EQ(reply["results"][i]["reason"], i < 5 ? "unknown_voucher" : "unknown_user") << reply.dump();
  const std::string metrics = test::HttpClient(shop.server->port()).ask(test::get("/metrics"))->body;
  EXPECT_THAT(metrics, HasSubstr("sluice_client_calls_total{command=\"voucher.user.exists.SG\",traffic=\"live\",outcome=\"ok\"} 1"))
      << "ten items, one call";
  users.server->stop();
  const Json down = shop.ask(kBatch, {{"request_id", "b"}, {"region", "TH"}, {"items", {{{"user", "u9"}, {"voucher", "none"}}}}},
                             "Idempotency-Key: b\r\n");
  EXPECT_EQ(down["results"][0]["reason"], "user_service_unavailable") << down.dump();
}

TEST(VoucherLimits, VOUCHER_3_a_caller_past_its_rate_is_refused_as_a_whole_and_told_when) {
  VoucherOptions options;
  options.caller_rate = 10;
  Service shop{make_app(options), false};
  Json items = Json::array();
  for (int i = 0; i < 300; ++i) items.push_back({{"user", "u" + std::to_string(i)}, {"voucher", "none"}});
  const auto send = [&](const char* id, const char* region) {
    return shop.ask(kBatch, {{"request_id", id}, {"region", region}, {"items", items}},
                    std::string("Idempotency-Key: ") + id + "\r\n");
  };
  EXPECT_TRUE(send("a", "SG").contains("results"));
  const Json refused = send("b", "SG");
  EXPECT_EQ(refused["http"], 429) << refused.dump();
  EXPECT_EQ(refused["code"], "caller_rate_limit");
  EXPECT_TRUE(send("c", "TH").contains("results")) << "each region by itself";
}

}  // namespace
}  // namespace sluice::voucher
