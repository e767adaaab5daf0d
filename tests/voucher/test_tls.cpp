// Distribution, code and user services over TLS with an authority of the test's own; and with
// certificates that are wrong in every way there is.
#include <gmock/gmock.h>

#include <fstream>

#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc_channel.hpp"
#include "support/certificates.hpp"
#include "support/temp_folder.hpp"
#include "voucher/services.hpp"

namespace sluice::voucher {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

class Lines final : public LogSink {
 public:
  void write(LogLevel, std::string_view line) override {
    const std::scoped_lock lock(mutex_);
    all_.append(line).append("\n");
  }
  std::string all() const {
    const std::scoped_lock lock(mutex_);
    return all_;
  }

 private:
  mutable std::mutex mutex_;
  std::string all_;
};

class VoucherTls : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  test::MadeCertificate authority = test::make_certificate("Sluice test authority");

  std::string write(const std::string& name, const std::string& text) {
    std::ofstream(folder.file(name)) << text;
    return folder.file(name);
  }
  struct Files {
    std::string cert, key;
  };
  Files files(const std::string& name, const test::MadeCertificate& made) {
    return {write(name + ".pem", made.certificate), write(name + ".key", made.key)};
  }
  Files issued(const std::string& host, long from = -3600, long to = 3600) {
    return files(host, test::make_certificate(host, &authority, from, to));
  }
  std::string ca() { return write("ca.pem", authority.certificate); }

  /// A service behind TLS that lets in who shows a certificate of the authority.
  std::function<void(server::Config&)> behind_tls(const Files& own, std::uint16_t port = 0) {
    return [this, own, port](server::Config& config) {
      config.grpc.listen = "localhost:" + std::to_string(port);
      config.grpc.tls_cert = own.cert;
      config.grpc.tls_key = own.key;
      config.grpc.tls_client_ca = ca();
    };
  }
  server::ChannelConfig channel(const Service& to, const std::string& name) {
    const Files own = issued("shop");
    server::ChannelConfig config;
    config.options.target = "localhost:" + std::to_string(to.server->grpc_port());
    config.options.tls_ca = ca();
    config.options.tls_cert = own.cert;
    config.options.tls_key = own.key;
    config.options.max_backoff = milliseconds(50);
    config.token_file = write(name + ".token", to.token + "\n");
    return config;
  }
  static VoucherOptions quick() {
    VoucherOptions options;
    options.downstream.timeout = seconds(3);  // nothing here hangs: it is for a machine with much to do
    return options;
  }
  static void fill_codes(Service& codes) {
    store::Commit rows;
    rows.then.push_back(store::KvPut{pool_key("voucher", "v"), "", 50});
    for (int i = 0; i < 50; ++i)
      rows.then.push_back(store::KvPut{code_key("voucher", "v", i), "CODE-" + std::to_string(1000 + i), {}});
    ASSERT_TRUE(store::commit_and_wait(codes.store(), std::move(rows)));
  }
  static void fill_shop(Service& shop) {
    store::Commit rows;
    rows.then = {store::KvPut{voucher_key("voucher", "v"), encode(open_for_all("v", 10)), {}},
                 store::KvPut{stock_key("voucher", "v"), "", 10},
                 store::KvPut{budget_key("voucher", "v"), "", 500'000'000},
                 store::KvPut{user_key("voucher", "ann"), encode(User{"ann", "SG"}), {}}};
    ASSERT_TRUE(store::commit_and_wait(shop.store(), std::move(rows)));
  }
  Json buy(Service& shop, const std::string& id, const std::string& user = "ann") {
    const Json reply = shop.ask(kBatch, {{"request_id", id}, {"region", "SG"}, {"items", {{{"user", user}, {"voucher", "v"}}}}},
                                "Idempotency-Key: " + id + "\r\n");
    return reply.contains("results") ? reply["results"][0] : reply;
  }
  static std::int64_t left(Service& shop) {
    store::GetRows rows;
    rows.keys = {stock_key("voucher", "v")};
    return (*store::ask_now(shop.store(), rows))[0]->number;
  }
  static std::string refused(std::function<void(server::Config&)> adjust, std::unique_ptr<server::App> app) {
    server::Config config;
    config.store_kind = "memory";
    config.http.port = 0;
    adjust(config);
    server::ServerParts parts;
    parts.logger = &null_logger();
    parts.apps.push_back(std::move(app));
    auto opened = server::Server::open(std::move(config), std::move(parts));
    if (!opened) return opened.error().to_string();
    const auto started = (*opened)->start();
    return started ? "" : started.error().to_string();
  }
};

TEST_F(VoucherTls, RES_1_the_three_services_know_each_other_by_certificates) {
  Service codes{make_code_service(), true, "", behind_tls(issued("localhost"))};
  Service users{make_user_service(), true, "", behind_tls(issued("localhost"))};
  fill_codes(codes);
  store::Commit known;
  known.then.push_back(store::KvPut{user_key("voucher", "ann"), encode(User{"ann", "SG"}), {}});
  ASSERT_TRUE(store::commit_and_wait(users.store(), std::move(known)));
  Service shop{make_app(quick()), false, "", [&](server::Config& config) {
                 config.channels["codes"] = channel(codes, "codes");
                 config.channels["users"] = channel(users, "users");
               }};
  fill_shop(shop);
  const Json bought = buy(shop, "a");
  EXPECT_EQ(bought["status"], "issued") << bought.dump();
  EXPECT_EQ(buy(shop, "b", "nobody")["reason"], "unknown_user");
  EXPECT_EQ(left(shop), 9);
}

TEST_F(VoucherTls, RES_1_strangers_are_refused_on_both_sides_and_nothing_is_taken) {
  Service codes{make_code_service(), true, "", behind_tls(issued("localhost"))};
  fill_codes(codes);
  const auto stranger = test::make_certificate("Another authority");
  const std::string other_ca = write("other-ca.pem", stranger.certificate);
  const Files other = files("other", test::make_certificate("shop", &stranger));
  const std::map<std::string, std::function<void(server::ChannelConfig&)>> wrongs{
      {"an authority that did not sign the callee", [&](auto& c) { c.options.tls_ca = other_ca; }},
      {"a name that is not the callee's", [](auto& c) { c.options.tls_server_name = "codes.example"; }},
      {"no certificate of our own", [](auto& c) { c.options.tls_cert.clear(), c.options.tls_key.clear(); }},
      {"a certificate of another authority", [&](auto& c) { c.options.tls_cert = other.cert, c.options.tls_key = other.key; }},
      {"no TLS", [](auto& c) { c.options.tls_ca.clear(), c.options.tls_cert.clear(), c.options.tls_key.clear(); }},
  };
  RealClock clock;
  for (const auto& [what, spoil] : wrongs) {
    const auto lines = std::make_shared<Lines>();
    const auto logger = make_logger(clock, lines);
    Service shop{make_app(quick()), false, "",
                 [&](server::Config& config) {
                   config.channels["codes"] = channel(codes, "codes");
                   spoil(config.channels["codes"]);
                 },
                 logger.get()};
    fill_shop(shop);
    const Json answer = buy(shop, "a");
    EXPECT_EQ(answer["reason"], "code_service_unavailable") << what << ": " << answer.dump();
    EXPECT_EQ(answer["retryable"], true) << what;
    EXPECT_EQ(left(shop), 10) << what;
    EXPECT_EQ(buy(shop, "b", "nobody")["reason"], "unknown_user") << what << ": the shop lives";
    EXPECT_THAT(lines->all(), AllOf(HasSubstr("a call of a service failed"), HasSubstr("cannot_connect"))) << what;
    if (what.starts_with("an authority") || what.starts_with("a name"))
      EXPECT_THAT(lines->all(), AnyOf(HasSubstr("andshake"), HasSubstr("certificate"))) << what;
  }
  Service shop{make_app(quick()), false, "", [&](server::Config& config) { config.channels["codes"] = channel(codes, "codes"); }};
  fill_shop(shop);
  EXPECT_EQ(buy(shop, "a")["status"], "issued") << "and so does the code service";
}

TEST_F(VoucherTls, RES_1_a_callee_with_a_wrong_name_is_trusted_once_it_has_the_right_one) {
  auto codes = std::make_unique<Service>(make_code_service(), true, "", behind_tls(issued("codes.example")));
  const std::uint16_t port = codes->server->grpc_port();
  Service shop{make_app(quick()), false, "", [&](server::Config& config) { config.channels["codes"] = channel(*codes, "codes"); }};
  fill_shop(shop);
  const Json before = buy(shop, "a");
  EXPECT_EQ(before["reason"], "code_service_unavailable") << before.dump();
  const std::string old_token = codes->token;
  ASSERT_TRUE(codes->server->stop());
  codes = std::make_unique<Service>(make_code_service(), true, "", behind_tls(issued("localhost"), port));
  // A service of its own has principals of its own: the new one's door says so, which is past TLS.
  Json after;
  for (int i = 0; i < 300; ++i) {
    after = buy(shop, "b" + std::to_string(i));
    const std::string metrics = test::HttpClient(shop.server->port()).ask(test::get("/metrics"))->body;
    if (metrics.find("outcome=\"unauthenticated\"") != std::string::npos) return;
    poll(nullptr, 0, 10);
  }
  FAIL() << "never got past TLS: " << after.dump();
}

TEST_F(VoucherTls, RES_1_replaced_certificates_of_a_server_are_used_and_bad_ones_are_not) {
  const auto lines = std::make_shared<Lines>();
  RealClock clock;
  const auto logger = make_logger(clock, lines);
  const Files own = issued("localhost");
  Service codes{make_code_service(), true, "",
                [&](server::Config& config) {
                  behind_tls(own)(config);
                  config.grpc.tls_watch = milliseconds(1);
                },
                logger.get()};
  EXPECT_THAT(lines->all(), HasSubstr("the certificate expires soon")) << "those of this test live for an hour";
  LaneThread caller(clock, "caller");
  caller.start();
  // Over a connection of its own each time.
  const auto reaches = [&](const std::string& trusted, const Files& shown) {
    transport::GrpcChannelOptions to;
    to.target = "localhost:" + std::to_string(codes.server->grpc_port());
    to.tls = true;
    to.tls_ca = trusted;
    to.tls_cert = shown.cert;
    to.tls_key = shown.key;
    to.token = codes.token;
    auto channel = transport::make_grpc_channel(std::move(to));
    EXPECT_TRUE(channel) << channel.error().to_string();
    rpc::Client client(*std::move(channel), {});
    rpc::RemoteCommand get{.name = "voucher.faults.codes.get", .read_only = true};
    rpc::CallContext call;
    call.ns = Namespace("sluice");
    const auto answer = block_on(caller, client.call(client.add(std::move(get)), std::move(call), "{}"));
    return answer ? std::string("reached") : std::string(answer.error().code());
  };
  const Files shop = issued("shop");
  EXPECT_EQ(reaches(ca(), shop), "reached");
  write("localhost.pem", "half a certificate");
  EXPECT_EQ(reaches(ca(), shop), "reached") << "what cannot be used is not";
  EXPECT_THAT(lines->all(), HasSubstr("cannot be used; those of before stay"));
  // Another authority for both sides; clients of the former are let in no more.
  const auto next = test::make_certificate("The next authority");
  const std::string next_ca = write("next-ca.pem", next.certificate);
  const Files next_shop = files("next-shop", test::make_certificate("shop", &next));
  files("localhost", test::make_certificate("localhost", &next));
  const std::string old_ca = write("old-ca.pem", authority.certificate);
  write("ca.pem", next.certificate);
  EXPECT_EQ(reaches(next_ca, next_shop), "reached");
  EXPECT_EQ(reaches(old_ca, shop), "cannot_connect") << "the old certificate is not shown any more";
  EXPECT_EQ(reaches(next_ca, shop), "cannot_connect") << "and that of the old authority not taken";
  EXPECT_THAT(lines->all(), HasSubstr("are used from now on"));
  const std::string metrics = test::HttpClient(codes.server->port()).ask(test::get("/metrics"))->body;
  const auto at = metrics.find("\nsluice_grpc_certificate_expires_seconds ");
  ASSERT_NE(at, std::string::npos);
  const double left = std::atof(metrics.c_str() + metrics.find(' ', at)) -
                      static_cast<double>(std::chrono::duration_cast<std::chrono::seconds>(clock.wall().time_since_epoch()).count());
  EXPECT_NEAR(left, 3600, 120);
  caller.stop();
  caller.join();
}

TEST_F(VoucherTls, RES_1_replaced_certificates_of_a_client_are_used_by_its_next_call) {
  auto codes = std::make_unique<Service>(make_code_service(), true, "", behind_tls(issued("localhost")));
  const std::uint16_t port = codes->server->grpc_port();
  const Files own = issued("shop");
  const std::string trusted = write("trusted.pem", authority.certificate);
  RealClock clock;
  LaneThread caller(clock, "caller");
  caller.start();
  transport::GrpcChannelOptions to;
  to.target = "localhost:" + std::to_string(port);
  to.tls = true;
  to.tls_ca = trusted;
  to.tls_cert = own.cert;
  to.tls_key = own.key;
  to.tls_watch = milliseconds(1);
  to.max_backoff = milliseconds(50);
  auto channel = transport::make_grpc_channel(std::move(to));
  ASSERT_TRUE(channel) << channel.error().to_string();
  {
    rpc::Client client(*std::move(channel), {});
    rpc::RemoteCommand get{.name = "voucher.faults.codes.get", .read_only = true};
    const auto& command = client.add(std::move(get));
    // Past TLS the door wants a token, which is none of this test's business.
    const auto asked = [&] {
      const auto answer = block_on(caller, client.call(command, rpc::CallContext{}, "{}"));
      return answer ? FailureKind::none : answer.error().kind();
    };
    EXPECT_EQ(asked(), FailureKind::unauthenticated);
    ASSERT_TRUE(codes->server->stop());
    codes.reset();
    const auto next = test::make_certificate("The next authority");
    files("localhost", test::make_certificate("localhost", &next));
    write("ca.pem", next.certificate);
    codes = std::make_unique<Service>(make_code_service(), true, "", [&](server::Config& config) {
      config.grpc.listen = "localhost:" + std::to_string(port);
      config.grpc.tls_cert = folder.file("localhost.pem");
      config.grpc.tls_key = folder.file("localhost.key");
      config.grpc.tls_client_ca = folder.file("ca.pem");
    });
    EXPECT_EQ(asked(), FailureKind::unavailable) << "nobody knows the new authority yet";
    files("shop", test::make_certificate("shop", &next));
    write("trusted.pem", next.certificate);
    FailureKind now = FailureKind::unavailable;
    for (int i = 0; i < 300 && now == FailureKind::unavailable; ++i) {
      now = asked();
      poll(nullptr, 0, 10);
    }
    EXPECT_EQ(now, FailureKind::unauthenticated);
  }
  caller.stop();
  caller.join();
}

TEST_F(VoucherTls, RES_1_files_that_cannot_be_used_are_told_by_key_and_file_before_anything_starts) {
  const Files expired = files("expired", test::make_certificate("localhost", &authority, -7200, -60));
  const Files early = files("early", test::make_certificate("localhost", &authority, 3600, 7200));
  const Files good = issued("localhost");
  EXPECT_THAT(refused(behind_tls(expired), make_code_service()), AllOf(HasSubstr("grpc.tls_cert"), HasSubstr("expired.pem expired at")));
  EXPECT_THAT(refused(behind_tls(early), make_code_service()), HasSubstr("early.pem is not valid before"));
  EXPECT_THAT(refused(behind_tls({good.cert, early.key}), make_code_service()), HasSubstr("is not the key of the certificate"));
  const auto shop = [&](std::function<void(server::ChannelConfig&)> spoil) {
    return refused(
        [&](server::Config& config) {
          auto& codes = config.channels["codes"];
          codes.options.target = "localhost:1";
          spoil(codes);
        },
        make_app(quick()));
  };
  const std::string text = write("text.pem", "no certificate");
  EXPECT_THAT(shop([&](auto& c) { c.options.tls_ca = text; }), AllOf(HasSubstr("channels.codes"), HasSubstr("text.pem holds no certificate")));
  EXPECT_THAT(shop([&](auto& c) { c.options.tls_ca = expired.cert; }), HasSubstr("expired.pem expired at"));
  EXPECT_THAT(shop([&](auto& c) { c.options.tls_cert = good.cert; }), HasSubstr("tls_key is not set"));
  EXPECT_THAT(shop([&](auto& c) { c.options.tls_cert = good.cert, c.options.tls_key = folder.file("none"); }), HasSubstr("cannot be read"));
  EXPECT_THAT(shop([&](auto& c) { c.token_file = folder.file("none"); }), HasSubstr("channels.codes.token_file"));
  EXPECT_THAT(shop([](auto& c) { c.options.target.clear(); }), HasSubstr("channels.codes.target is not set"));
}

}  // namespace
}  // namespace sluice::voucher
