// Ordering keys over commands: the key names what is changed, whichever command changes it.
#include "server/running.hpp"
#include "sluice/base/runtime.hpp"

namespace sluice::server {
namespace {

/// Two commands over one account; the first is held back until it is let go.
class AccountApp final : public App {
 public:
  std::string_view name() const noexcept override { return "account"; }
  Status install(AppContext& context) override {
    const auto add = [&](const char* name, rpc::Handler handler) {
      rpc::CommandSpec spec;
      spec.name = name;
      spec.app = "bank";
      spec.idempotency = rpc::KeyUse::none;
      spec.ordering_key = [](const rpc::Command& command) { return command.payload; };
      spec.handler = std::move(handler);
      return context.registry.add(std::move(spec));
    };
    SLUICE_TRY(add("account.deposit", [this](rpc::Invocation& invocation) { held = &invocation; }));
    return add("account.withdraw", [this](rpc::Invocation& invocation) {
      ++withdrawn;
      invocation.finish(rpc::Answer::of(Reply::ok("{}")));
    });
  }
  std::atomic<rpc::Invocation*> held{nullptr};
  std::atomic<int> withdrawn{0};
};

TEST(Order, G4_commands_of_one_ordering_key_run_in_the_order_of_arrival_whatever_their_names) {
  auto owned = std::make_unique<AccountApp>();
  AccountApp& account = *owned;
  Config config;
  config.store_kind = "memory";
  config.http.port = 0;
  ServerParts parts;
  parts.logger = &null_logger();
  parts.apps.push_back(std::move(owned));
  std::string bearer;
  parts.first_token = [&](const std::string& token) { bearer = "Authorization: Bearer " + token + "\r\n"; };
  auto server = std::move(*Server::open(std::move(config), std::move(parts)));
  ASSERT_TRUE(server->start());
  test::HttpClient first(server->port()), second(server->port()), other(server->port());
  first.send(test::post("account.deposit", "\"7\"", bearer));
  ASSERT_TRUE(wait_until([&] { return account.held.load() != nullptr; }));
  second.send(test::post("account.withdraw", "\"7\"", bearer));
  EXPECT_EQ(other.ask(test::post("account.withdraw", "\"8\"", bearer))->status, 200) << "another account does not wait";
  EXPECT_FALSE(second.receive(50)) << "its turn comes after the deposit";
  rpc::Invocation* invocation = account.held.exchange(nullptr);
  const int before = account.withdrawn;
  invocation->lane->post([invocation] { invocation->finish(rpc::Answer::of(Reply::ok("{}"))); });
  EXPECT_EQ(first.receive()->status, 200);
  if (before == 1) {
    EXPECT_EQ(second.receive()->status, 200);
  }
  EXPECT_EQ(before, 1);
  EXPECT_TRUE(server->stop());
}

}  // namespace
}  // namespace sluice::server
