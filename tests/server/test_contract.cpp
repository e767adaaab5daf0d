// The contract of the HTTP API as a whole: who may do what, what is audited, what it says of itself.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "server/running.hpp"
#include "support/temp_folder.hpp"

namespace sluice::server {
namespace {

using testing::HasSubstr;

class Contract : public testing::Test {
 protected:
  testing_support::TempFolder folder;
  RunningServer running;

  std::string make_token(const std::string& body) {
    const auto made = running.ask(test::post("sluice.token.create", body, running.bearer()));
    EXPECT_EQ(made.status, 200) << made.body;
    return nlohmann::json::parse(made.body)["token"];
  }
  std::vector<store::AuditRow> audit() {
    std::vector<store::AuditRow> rows;
    const auto listed = store::ask_now(running.server->context().store, store::ListAudit{});
    return listed ? *listed : rows;
  }
  bool audited(const std::string& command, store::AuditOutcome outcome, const std::string& detail = {}) {
    return wait_until([&] {
      return std::ranges::any_of(audit(), [&](const store::AuditRow& row) {
        return row.command == command && row.outcome == outcome && (detail.empty() || row.detail == detail);
      });
    });
  }
};

TEST_F(Contract, CONSOLE_5_every_route_answers_every_credential_as_it_should) {
  const std::string right = make_token(R"({"name":"right","permissions":["*:*"]})");
  const std::string other = make_token(R"({"name":"other","permissions":["elsewhere:*"]})");
  const std::string revoked = make_token(R"({"name":"revoked","permissions":["*:*"]})");
  for (const auto& info : running.server->tokens().list())
    if (info.name == "revoked")
      ASSERT_EQ(running.ask(test::post("sluice.token.revoke", "{\"id\":\"" + info.id + "\"}", running.bearer())).status, 200);
  struct Credential {
    const char* name;
    std::string header;
  };
  const std::vector<Credential> credentials{
      {"none", ""},
      {"malformed", "Authorization: Basic abc\r\n"},
      {"unknown", "Authorization: Bearer slc_0000\r\n"},
      {"revoked", "Authorization: Bearer " + revoked + "\r\n"},
      {"without permission", "Authorization: Bearer " + other + "\r\n"},
      {"right", "Authorization: Bearer " + right + "\r\n"},
  };
  struct Row {
    std::string request;
    std::array<int, 6> statuses;
  };
  const auto command = [](const std::string& name, const std::string& body) { return name + "\n" + body; };
  const std::vector<Row> rows{
      {command("probe.count", "{}"), {401, 401, 401, 401, 403, 200}},
      {command("kv.put", R"({"collection":"c","key":"k","value":1})"), {401, 401, 401, 401, 403, 200}},
      {command("kv.get", R"({"collection":"c","key":"k"})"), {401, 401, 401, 401, 403, 200}},
      {command("sluice.token.list", "{}"), {401, 401, 401, 401, 403, 200}},
      {command("sluice.tx.graph", "{}"), {401, 401, 401, 401, 403, 200}},
      {command("sluice.tx.settle", R"({"id":"0000000000001","outcome":"aborted","reason":"r"})"), {401, 401, 401, 401, 403, 404}},
      {command("sluice.tx.wake", R"({"token":"t"})"), {401, 401, 401, 401, 403, 404}},
      {"/v1/commands", {401, 401, 401, 401, 200, 200}},
      {"/openapi.json", {401, 401, 401, 401, 200, 200}},
      {"/v1/transactions/0000000000001", {401, 401, 401, 401, 403, 404}},
      {"/healthz", {200, 200, 200, 200, 200, 200}},
      {"/metrics", {200, 200, 200, 200, 200, 200}},
  };
  int n = 0;
  for (const auto& row : rows)
    for (std::size_t i = 0; i < credentials.size(); ++i) {
      const auto line = row.request.find('\n');
      const std::string key = "Idempotency-Key: m" + std::to_string(++n) + "\r\n";
      const bool keyed = row.request.starts_with("probe.") || row.request.starts_with("kv.put");
      const auto answer =
          line == std::string::npos
              ? running.ask(test::get(row.request, credentials[i].header))
              : running.ask(test::post(row.request.substr(0, line), row.request.substr(line + 1), credentials[i].header + (keyed ? key : "")));
      EXPECT_EQ(answer.status, row.statuses[i]) << row.request << " with credential '" << credentials[i].name << "': " << answer.body;
    }
  EXPECT_TRUE(audited("probe.count", store::AuditOutcome::denied)) << "a denial leaves a row";
}

TEST_F(Contract, CONSOLE_6_every_command_that_ran_leaves_a_row_ok_error_denied_or_replayed) {
  const std::string put = R"({"collection":"c","key":"k","value":1})";
  ASSERT_EQ(running.ask(test::post("kv.put", put, running.keyed("a"))).status, 200);
  EXPECT_TRUE(audited("kv.put", store::AuditOutcome::ok)) << "with its Commit";
  ASSERT_EQ(running.ask(test::post("kv.put", put, running.keyed("a"))).status, 200);
  EXPECT_TRUE(audited("kv.put", store::AuditOutcome::replayed));
  ASSERT_EQ(running.ask(test::post("kv.get", R"({"collection":"c","key":"k"})", running.bearer())).status, 200);
  EXPECT_TRUE(audited("kv.get", store::AuditOutcome::ok)) << "a read without a key as well";
  ASSERT_EQ(running.ask(test::post("kv.get", R"({"collection":"c","key":"none"})", running.bearer())).status, 404);
  EXPECT_TRUE(audited("kv.get", store::AuditOutcome::error, "no_such_key"));
  ASSERT_EQ(running.ask(test::post("kv.put", put)).status, 401);
  std::size_t puts = 0;
  for (const auto& row : audit()) puts += row.command == "kv.put" && row.outcome == store::AuditOutcome::ok ? 1 : 0;
  EXPECT_EQ(puts, 1u) << "one row for one effect";
}

TEST_F(Contract, CONSOLE_6_a_refused_request_leaves_a_row_with_its_name_if_it_has_one) {
  const auto made = nlohmann::json::parse(
      running.ask(test::post("sluice.token.create", R"({"name":"till","permissions":["*:*"]})", running.bearer())).body);
  const std::string till = "Authorization: Bearer " + made["token"].get<std::string>() + "\r\n";
  const auto row_of = [&](const std::string& principal, const std::string& command, store::AuditOutcome outcome, const std::string& code) {
    return wait_until([&] {
      return std::ranges::any_of(audit(), [&](const store::AuditRow& row) {
        return row.principal == principal && row.command == command && row.outcome == outcome && row.detail.starts_with(code);
      });
    });
  };
  using enum store::AuditOutcome;
  const std::string put = R"({"collection":"c","key":"k","value":1})";
  const std::string key = "Idempotency-Key: a\r\n";
  EXPECT_EQ(running.ask(test::post("kv.steal", "{}", till)).status, 404);
  EXPECT_TRUE(row_of("till", "kv.steal", error, "unknown_command"));
  EXPECT_EQ(running.ask(test::post("kv.put", put, till)).status, 400);
  EXPECT_TRUE(row_of("till", "kv.put", error, "idempotency_key_required"));
  EXPECT_EQ(running.ask(test::post("kv.put", put, till + "Idempotency-Key: \"open\r\n")).status, 400);
  EXPECT_TRUE(row_of("till", "kv.put", error, "bad_idempotency_key"));
  EXPECT_EQ(running.ask(test::post("kv.put", "{", till + key)).status, 400);
  EXPECT_TRUE(row_of("till", "kv.put", error, "bad_json"));
  EXPECT_EQ(running.ask(test::post("kv.put", put, key)).status, 401);
  EXPECT_TRUE(row_of("", "kv.put", denied, "unauthenticated from 127.0.0.1"));
  EXPECT_EQ(running.ask(test::post("kv.put", put, key + "Authorization: Bearer slc_0\r\n")).status, 401);
  EXPECT_TRUE(row_of("", "kv.put", denied, "unknown_token from 127.0.0.1"));
  EXPECT_EQ(running.ask(test::get("/v1/transactions", "Authorization: Basic eA==\r\n")).status, 401);
  EXPECT_TRUE(row_of("", "GET /v1/transactions", denied, "bad_authorization from 127.0.0.1"));
  ASSERT_TRUE(running.server->tokens().revoke(made["id"].get<std::string>()));
  EXPECT_EQ(running.ask(test::post("kv.put", put, till + key)).status, 401);
  EXPECT_TRUE(row_of("till", "kv.put", denied, "revoked_token from 127.0.0.1"));
  EXPECT_THAT(running.ask(test::get("/metrics")).body, HasSubstr("sluice_requests_refused_total{code=\"revoked_token\",traffic=\"live\"} 1\n"));
}

TEST_F(Contract, CONSOLE_2_openapi_names_every_command_with_its_schema_and_the_problem) {
  const auto answer = running.ask(test::get("/openapi.json", running.bearer()));
  ASSERT_EQ(answer.status, 200);
  const auto document = nlohmann::json::parse(answer.body);
  EXPECT_EQ(document["openapi"], "3.1.0");
  const auto described = nlohmann::json::parse(running.ask(test::get("/v1/commands", running.bearer())).body);
  ASSERT_GT(described["commands"].size(), 8u);
  for (const auto& command : described["commands"]) {
    const std::string path = "/v1/commands/" + command["name"].get<std::string>();
    ASSERT_TRUE(document["paths"].contains(path)) << path;
    const auto& operation = document["paths"][path]["post"];
    if (command.contains("input_schema"))
      EXPECT_EQ(operation["requestBody"]["content"]["application/json"]["schema"], command["input_schema"]);
    EXPECT_THAT(operation.dump(), HasSubstr("#/components/schemas/Problem"));
    EXPECT_TRUE(operation["responses"].contains("409"));
    EXPECT_TRUE(operation["responses"].contains("503"));
  }
  EXPECT_TRUE(document["components"]["schemas"].contains("Problem"));
}

TEST_F(Contract, kv_commands_store_read_add_and_refuse) {
  const auto ask = [&](const std::string& name, const std::string& body, const std::string& key = {}) {
    return running.ask(test::post(name, body, key.empty() ? running.bearer() : running.keyed(key)));
  };
  EXPECT_EQ(ask("kv.put", R"({"collection":"c","key":"k","value":{"a":[1,2]}})", "1").status, 200);
  auto read = nlohmann::json::parse(ask("kv.get", R"({"collection":"c","key":"k"})").body);
  EXPECT_EQ(read["value"], nlohmann::json::parse(R"({"a":[1,2]})"));
  EXPECT_EQ(read["version"], 1);
  EXPECT_EQ(ask("kv.put", R"({"collection":"c","key":"k","value":2,"if_version":1})", "2").status, 200);
  const auto stale = ask("kv.put", R"({"collection":"c","key":"k","value":3,"if_version":1})", "3");
  EXPECT_EQ(stale.status, 409);
  EXPECT_TRUE(stale.has("if_version"));
  EXPECT_EQ(ask("kv.add", R"({"collection":"c","key":"n","delta":5})", "4").status, 200);
  const auto floor = ask("kv.add", R"({"collection":"c","key":"n","delta":-6,"floor":0})", "5");
  EXPECT_EQ(floor.status, 409);
  EXPECT_EQ(nlohmann::json::parse(ask("kv.get", R"({"collection":"c","key":"n"})").body)["number"], 5);
  for (const char* bad : {R"({"collection":"c"})", R"({"collection":"c","key":"k","delta":1.5})", R"({"collection":"c","key":"k","delta":1,"more":1})",
                          R"({"collection":"c","key":"k","delta":99999999999999999999})", R"([1])"}) {
    const auto refused = ask("kv.add", bad, std::string("bad") + std::to_string(std::string_view(bad).size()));
    EXPECT_EQ(refused.status, 400) << bad << " → " << refused.body;
  }
}

}  // namespace
}  // namespace sluice::server
