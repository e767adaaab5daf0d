// A code service that hangs, fails or answers nonsense, and a deadline that passes meanwhile.
#include <chrono>
#include <fstream>

#include "apps/voucher/books.hpp"
#include "support/sanitized.hpp"
#include "voucher/services_fixture.hpp"

namespace sluice::voucher {
namespace {

using testing_support::kSanitized;
using VoucherOutage = VoucherServicesTest;

TEST_F(VoucherOutage, VOUCHER_8_a_hung_code_service_costs_a_bounded_time_and_only_those_who_need_it) {
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

TEST_F(VoucherOutage, VOUCHER_10_calls_that_the_breaker_saved_are_counted_apart) {
  faults({{"rules", {{{"region", "SG"}, {"error_rate", 1.0}}}}});
  for (int i = 0; i < 20; ++i) (void)batch({{user(i), "v2"}});
  const Json saved = shop.ask("voucher.downstream.show", Json::object());
  const Json shown = shop.ask("sluice.breakers.show", {{"name", std::string(kGetCodes) + ".SG"}});
  EXPECT_GE(saved["code_calls_refused"], 1) << saved.dump();
  EXPECT_EQ(saved["code_calls_refused"], shown["blocked"]) << shown.dump();
  EXPECT_EQ(saved["code_calls"], 20) << "refused or not";
}

// Threads, permits and memory after a thousand callers of a hung service are those after the first hundred.
TEST_F(VoucherOutage, VOUCHER_8_a_hung_code_service_makes_neither_threads_nor_memory_grow) {
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

TEST_F(VoucherOutage, VOUCHER_2_a_deadline_that_passes_takes_nothing_and_the_same_request_goes_on_later) {
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

TEST_F(VoucherOutage, VOUCHER_8_wrong_answers_and_a_cut_line_are_failures_and_add_no_code) {
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

TEST_F(VoucherOutage, VOUCHER_8_RES_11_wrong_answers_open_the_breaker_of_their_region) {
  faults({{"rules", {{{"region", "SG"}, {"wrong_rate", 1.0}}}}});
  bool opened = false;
  for (int i = 0; i < 30 && !opened; ++i) {
    (void)batch({{user(i), "v1"}});
    opened = breaker("SG") == "open";
  }
  EXPECT_TRUE(opened) << "a service that answers nonsense is a service that fails";
}

// The line itself is slow: bytes that come late, and a line that carries few of them.
TEST_F(VoucherOutage, VOUCHER_8_a_slow_line_is_a_failure_within_the_callers_time_and_nothing_is_lost) {
  ASSERT_EQ(batch({{user(0), "v1"}})["results"][0]["status"], "issued");
  const auto late = [&](test::Chaos chaos, const char* region) {
    proxy.set(chaos);
    const auto began = std::chrono::steady_clock::now();
    const Json reply = batch({{user(1), "v2"}}, region, "X-Sluice-Deadline-Ms: 3000\r\n");
    EXPECT_LT(std::chrono::steady_clock::now() - began, seconds(3));
    proxy.set({});
    ASSERT_EQ(reply["results"].size(), 1u) << reply.dump();
    EXPECT_EQ(reply["results"][0]["reason"], "code_service_unavailable") << reply.dump();
    EXPECT_EQ(reply["results"][0]["retryable"], true);
  };
  late({.delay = seconds(2)}, "ID");
  late({.bytes_per_second = 50}, "MY");
  Json back = Json::object();
  for (int i = 0; i < 500; ++i) {
    back = batch({{user(2), "v2"}}, "VN")["results"][0];
    if (back.value("status", "") == "issued") break;
    poll(nullptr, 0, 10);
  }
  EXPECT_EQ(back["status"], "issued") << back.dump();
  const auto books = audit_books(shop.store(), "voucher", &codes.store());
  ASSERT_TRUE(books);
  EXPECT_EQ(books->issued, 2);
  for (const auto& wrong : books->wrong) ADD_FAILURE() << wrong;
}

// A code service that answers well-formed nonsense: about a voucher that nobody asked for.
class OtherCodes final : public server::App {
 public:
  std::string_view name() const noexcept override { return "codes"; }
  Status install(server::AppContext& context) override {
    rpc::CommandSpec get;
    get.name = kGetCodes;
    get.app = "voucher";
    get.handler = [](rpc::Invocation& invocation) {
      invocation.finish(rpc::Answer::of(Reply::ok(R"({"lease_ms":60000,"segments":[{"voucher":"other","none":true}]})")));
    };
    return context.registry.add(std::move(get));
  }
};

TEST_F(VoucherOutage, VOUCHER_8_answers_about_other_vouchers_open_the_breaker_of_their_region) {
  Service wrong{std::make_unique<OtherCodes>(), true};
  Service asking{make_app(options_for(wrong.server->grpc_port(), wrong.token)), true, kRules};
  const Voucher v = open_for_all("v1", 100);
  store::Commit fill;
  fill.then = {store::KvPut{voucher_key("voucher", v.id), encode(v), {}}, store::KvPut{stock_key("voucher", v.id), "", v.stock},
               store::KvPut{budget_key("voucher", v.id), "", v.budget_minor},
               store::KvPut{user_key("voucher", user(0)), encode(User{user(0), "SG"}), {}}};
  ASSERT_TRUE(store::commit_and_wait(asking.store(), std::move(fill)));
  for (int i = 0; i < 4; ++i) {
    const std::string id = "r" + std::to_string(i);
    const Json answer = asking.ask(kBatch, {{"request_id", id}, {"region", "SG"}, {"items", {{{"user", user(0)}, {"voucher", "v1"}}}}},
                                   "Idempotency-Key: " + id + "\r\n");
    EXPECT_EQ(answer["results"][0]["reason"], "code_service_unavailable") << answer.dump();
  }
  const Json shown = asking.ask("sluice.breakers.show", {{"name", std::string(kGetCodes) + ".SG"}});
  EXPECT_EQ(shown.value("state", ""), "open") << shown.dump();
}

}  // namespace
}  // namespace sluice::voucher
