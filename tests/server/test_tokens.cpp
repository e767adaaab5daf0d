// Tokens: whose name they carry, what their makers may grant, and what is refused for being
// misspelt. Beside it what a command says to a key that it does not use.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server/running.hpp"
#include "sim/clock.hpp"
#include "sim/random.hpp"
#include "sluice/store/memory.hpp"

namespace sluice::server {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

class TokensOnServer : public testing::Test {
 protected:
  RunningServer running;

  test::HttpResponse ask(const std::string& command, const Json& body, const std::string& header) {
    return running.ask(test::post(command, body.dump(), header));
  }
  test::HttpResponse make(const Json& body, const std::string& by = {}) {
    return ask("sluice.token.create", body, by.empty() ? running.bearer() : by);
  }
  static std::string bearer(const test::HttpResponse& made) {
    EXPECT_EQ(made.status, 200) << made.body;
    return made.status == 200 ? "Authorization: Bearer " + Json::parse(made.body)["token"].get<std::string>() + "\r\n" : "";
  }
};

TEST_F(TokensOnServer, IDEM_1_a_name_is_one_principal_and_nobody_else_gets_it) {
  const Json shop{{"name", "shop"}, {"permissions", {"shop:*"}}};
  const auto first = make(shop);
  const std::string old = bearer(first);
  EXPECT_EQ(ask("probe.count", Json::object(), old + "Idempotency-Key: a\r\n").status, 200);

  const auto second = make(shop);
  EXPECT_EQ(second.status, 409);
  EXPECT_TRUE(second.has("token_name_taken") && second.has("replaces")) << second.body;
  const std::string id = Json::parse(first.body)["id"];
  ASSERT_EQ(ask("sluice.token.revoke", {{"id", id}}, running.bearer()).status, 200);
  EXPECT_EQ(make(shop).status, 409) << "nor when it is revoked: the stored replies are still its own";

  // Said in so many words it is the same principal under a new secret, and its key is known.
  Json renewed = shop;
  renewed["replaces"] = id;
  const std::string fresh = bearer(make(renewed));
  const auto again = ask("probe.count", Json::object(), fresh + "Idempotency-Key: a\r\n");
  EXPECT_EQ(again.status, 200);
  EXPECT_EQ(again.headers.count("idempotency-replayed"), 1u);
  EXPECT_EQ(running.runs(), 1);
  renewed["name"] = "another";
  EXPECT_EQ(make(renewed).status, 400) << "another name is another principal";
  renewed = shop;
  renewed["replaces"] = "0000000000000000";
  EXPECT_EQ(make(renewed).status, 404);
}

TEST_F(TokensOnServer, CONSOLE_5_a_token_reads_the_transactions_of_its_app_by_id_alone) {
  const auto auth = bearer(make({{"name", "shop"}, {"permissions", {"shop:probe.count", "shop:transactions.read"}}}));
  const auto other = bearer(make({{"name", "bank"}, {"permissions", {"bank:*"}}}));
  const auto r = ask("probe.count", Json::object(), auth + "X-Sluice-App: shop\r\nIdempotency-Key: a\r\n");
  ASSERT_EQ(r.status, 200) << r.body;
  const std::string path = "/v1/transactions/" + r.headers.at("x-sluice-transaction");
  EXPECT_EQ(running.ask(test::get(path, auth)).status, 200);
  EXPECT_EQ(running.ask(test::get(path, other)).status, 403);
  EXPECT_EQ(running.ask(test::get(path, other + "X-Sluice-App: bank\r\n")).status, 403);
}

TEST_F(TokensOnServer, CONSOLE_4_a_token_is_replaced_once) {
  const Json shop{{"name", "shop"}, {"permissions", {"shop:*"}}};
  Json renewed = shop;
  renewed["replaces"] = Json::parse(make(shop).body)["id"];
  const auto second = make(renewed);
  const std::string fresh = bearer(second);
  const auto again = make(renewed);
  EXPECT_EQ(again.status, 409) << again.body;
  EXPECT_TRUE(again.has("token_replaced") && again.has("sluice.token.list")) << again.body;
  EXPECT_EQ(ask("probe.count", Json::object(), fresh + "Idempotency-Key: a\r\n").status, 200);
  renewed["replaces"] = Json::parse(second.body)["id"];
  bearer(make(renewed));
  EXPECT_EQ(ask("probe.count", Json::object(), fresh + "Idempotency-Key: b\r\n").status, 401);
}

// Two nodes over one store: what one has replaced the other does not know yet.
TEST(TokensOfTwoNodes, CONSOLE_4_a_token_is_replaced_once) {
  sim::SimClock clock;
  sim::SimRandom random{3};
  const auto store = store::make_memory_store(clock, random);
  Tokens one(*store, random), two(*store, random);
  TokenRequest request;
  request.name = "shop";
  const auto made = one.create(request);
  ASSERT_TRUE(made);
  ASSERT_TRUE(two.load());
  request.replaces = made->info.id;
  ASSERT_TRUE(one.create(request));
  const auto again = two.create(request);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), "token_replaced");
  store->close();
}

TEST(TokensOfTwoNodes, CONSOLE_4_NODE_3_a_token_ends_by_the_stores_clock_at_every_node) {
  sim::SimClock of_store;
  of_store.step_wall(std::chrono::hours(48));  // that of no node here
  sim::SimRandom random{3};
  const auto store = store::make_memory_store(of_store, random);
  Tokens one(*store, random), two(*store, random);
  TokenRequest request;
  request.name = "shop";
  request.ttl = seconds(60);
  const auto made = one.create(request);
  ASSERT_TRUE(made);
  EXPECT_EQ(made->info.created, of_store.wall());
  ASSERT_TRUE(two.load());
  of_store.advance(milliseconds(59'999));
  for (const Tokens* node : {&one, &two}) EXPECT_TRUE(node->authenticate(made->token));
  of_store.advance(milliseconds(1));
  for (const Tokens* node : {&one, &two}) {
    const auto refused = node->authenticate(made->token);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), "expired_token");
  }
  store->close();
}

TEST_F(TokensOnServer, CONSOLE_4_what_is_replaced_ends_with_the_same_commit) {
  const auto first = make({{"name", "shop"}, {"permissions", {"shop:*"}}});
  const std::string old = bearer(first);
  const std::string fresh = bearer(
      make({{"name", "shop"}, {"permissions", {"shop:*"}}, {"replaces", Json::parse(first.body)["id"]}}));
  EXPECT_EQ(ask("probe.count", Json::object(), old).status, 401);
  EXPECT_EQ(ask("probe.count", Json::object(), fresh).status, 200);
}

TEST_F(TokensOnServer, CONSOLE_5_nobody_grants_what_it_does_not_hold) {
  const std::string clerk = bearer(make({{"name", "clerk"}, {"permissions", {"sluice:sluice.token.create", "shop:probe.*", "till-*:*"}}}));
  int n = 0;
  const auto status = [&](const char* permission) {
    const auto made = make({{"name", "t" + std::to_string(++n)}, {"permissions", {permission}}}, clerk);
    if (made.status == 403) EXPECT_TRUE(made.has(permission)) << made.body;
    return made.status;
  };
  for (const char* held : {"shop:probe.count", "shop:probe.*", "shop:probe.c*", "till-7:kv.put", "till-*:kv.*", "sluice:sluice.token.create"})
    EXPECT_EQ(status(held), 200) << held;
  for (const char* more : {"*:*", "shop:*", "shop:p*", "*:probe.count", "till*:*", "sluice:*", "sluice:sluice.token.*", "bank:kv.put"})
    EXPECT_EQ(status(more), 403) << more;
  EXPECT_EQ(make({{"name", "s"}, {"shadow", true}}, clerk).status, 403);
  const auto listed = Json::parse(ask("sluice.token.list", Json::object(), running.bearer()).body);
  for (const auto& one : listed["tokens"])
    if (one["name"] == "clerk")
      EXPECT_EQ(make({{"name", "clerk"}, {"replaces", one["id"]}}, clerk).status, 403) << "it may not revoke";
}

TEST_F(TokensOnServer, CONSOLE_4_misspelt_bodies_and_malformed_permissions_are_refused) {
  for (const Json& body : {Json{{"name", "a"}, {"permission", {"shop:*"}}}, Json{{"name", "a"}, {"permissions", "shop:*"}},
                           Json{{"name", "a"}, {"permissions", {"shop"}}}, Json{{"name", "a"}, {"permissions", {"shop:"}}},
                           Json{{"name", "a"}, {"permissions", {":kv.put"}}}, Json{{"name", "a"}, {"permissions", {"shop:kv:put"}}},
                           Json{{"name", "a"}, {"permissions", {"Shop:kv.put"}}}, Json{{"name", "a"}, {"permissions", {"shop: kv"}}},
                           Json{{"permissions", {"shop:*"}}}, Json::array()})
    EXPECT_EQ(make(body).status, 400) << body;
  EXPECT_EQ(ask("sluice.token.list", {{"all", true}}, running.bearer()).status, 400);
  EXPECT_EQ(ask("sluice.token.revoke", {{"id", "00"}, {"why", "lost"}}, running.bearer()).status, 400);
  EXPECT_EQ(running.server->tokens().list().size(), 1u) << "the administrator's";
}

TEST_F(TokensOnServer, IDEM_6_a_key_that_is_not_used_is_not_passed_over) {
  const auto read = ask("kv.get", {{"collection", "c"}, {"key", "k"}}, running.keyed("a"));
  EXPECT_EQ(read.status, 400);
  EXPECT_TRUE(read.has("key_not_used")) << read.body;
  EXPECT_EQ(make({{"name", "a"}}, running.keyed("b")).status, 400);
  EXPECT_EQ(running.server->tokens().list().size(), 1u);
  EXPECT_EQ(ask("sluice.echo", Json::object(), running.keyed("c")).status, 200) << "optional is used";
}

class AuditOnServer : public TokensOnServer {
 protected:
  Json rows(const Json& wanted) {
    const auto answer = ask("sluice.audit.list", wanted, running.bearer());
    EXPECT_EQ(answer.status, 200) << answer.body;
    return Json::parse(answer.body)["rows"];
  }
};

TEST_F(AuditOnServer, CONSOLE_6_the_trail_is_read_and_chosen_from) {
  const std::string clerk = bearer(make({{"name", "clerk"}, {"permissions", {"default:kv.*"}}}));
  for (const char* key : {"1", "2", "3"})
    ASSERT_EQ(ask("kv.add", {{"collection", "c"}, {"key", "k"}, {"delta", 5}}, clerk + "Idempotency-Key: " + key + "\r\n").status, 200);
  // A plain command that refuses says why in its row, with a key and without.
  EXPECT_EQ(ask("kv.add", {{"collection", "c"}, {"key", "k"}, {"delta", "5"}}, clerk + "Idempotency-Key: 4\r\n").status, 400);
  EXPECT_EQ(ask("kv.get", {{"collection", "c"}, {"key", "none"}}, clerk).status, 404);
  EXPECT_EQ(ask("sluice.audit.list", Json::object(), clerk).status, 403);

  const Json adds = rows({{"principal", "clerk"}, {"command", "kv.add"}, {"outcome", "ok"}});
  ASSERT_EQ(adds.size(), 3u) << adds;
  EXPECT_GT(adds[0]["sequence"], adds[1]["sequence"]) << "newest first";
  EXPECT_EQ(adds[0]["principal"], "clerk");
  EXPECT_EQ(adds[0]["namespace"], "default");
  EXPECT_EQ(adds[0]["transaction"].get<std::string>().size(), 13u);
  EXPECT_TRUE(wait_until([&] {
    const Json errors = rows({{"principal", "clerk"}, {"outcome", "error"}});
    return errors.size() == 2 && errors.dump().find("bad_payload") != std::string::npos &&
           errors.dump().find("no_such_key") != std::string::npos;
  })) << rows({{"principal", "clerk"}, {"outcome", "error"}});
  EXPECT_TRUE(wait_until([&] { return rows({{"outcome", "denied"}}).size() == 1; }));

  // Page by page it is the same.
  const auto page = ask("sluice.audit.list", {{"command", "kv.add"}, {"outcome", "ok"}, {"limit", 2}}, running.bearer());
  const Json first = Json::parse(page.body);
  ASSERT_EQ(first["rows"].size(), 2u);
  const Json rest = rows({{"command", "kv.add"}, {"outcome", "ok"}, {"limit", 2}, {"before", first["before"]}});
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0], adds[2]);
  for (const Json& bad : {Json{{"outcome", "good"}}, Json{{"limit", 0}}, Json{{"limit", 1001}}, Json{{"before", -1}}, Json{{"who", "me"}}})
    EXPECT_EQ(ask("sluice.audit.list", bad, running.bearer()).status, 400) << bad;
}

}  // namespace
}  // namespace sluice::server
