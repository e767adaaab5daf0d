// sluice.echo and kv.*: enough to try the server without an application. Their rows live in
// collections of their own ("kv." + name), so they reach no application's data and no token.
#include "server/commands.hpp"
#include "server/json_fields.hpp"

namespace sluice::server {

namespace {

using rpc::Answer;
using rpc::CommandSpec;
using rpc::Invocation;
using rpc::KeyUse;

store::KvKey key_of(const Invocation& invocation, const std::string& collection,
                    const std::string& key) {
  return {invocation.command.ns.text(), "kv." + collection, key};
}

void refuse(Invocation& invocation, Failure failure) {
  invocation.finish(Answer::of(std::move(failure)));
}

void kv_put(Invocation& invocation) {
  auto fields = JsonFields::parse(invocation.command.payload);
  if (!fields) return refuse(invocation, std::move(fields).error());
  auto key = key_of(invocation, fields->text("collection", 64), fields->text("key"));
  const Json* value = fields->any("value");
  const auto version = fields->number("if_version");
  if (auto ok = fields->done(); !ok) return refuse(invocation, std::move(ok).error());
  store::Commit commit;
  if (version) {
    store::KvVersionIs is{key, static_cast<std::uint64_t>(*version)};
    commit.requires_.push_back({std::move(is), "if_version"});
  }
  commit.then.emplace_back(store::KvPut{std::move(key), dump(*value), std::nullopt});
  invocation.finish_with(std::move(commit), Reply::ok("{\"stored\":true}"));
}

void kv_add(Invocation& invocation) {
  auto fields = JsonFields::parse(invocation.command.payload);
  if (!fields) return refuse(invocation, std::move(fields).error());
  auto key = key_of(invocation, fields->text("collection", 64), fields->text("key"));
  const auto delta = fields->number("delta", true);
  const auto floor = fields->number("floor");
  if (auto ok = fields->done(); !ok) return refuse(invocation, std::move(ok).error());
  constexpr std::int64_t kLimit = INT64_C(1) << 53;  // what JSON readers keep exactly
  if (*delta > kLimit || *delta < -kLimit || (floor && (*floor > kLimit || *floor < -kLimit)))
    return refuse(invocation, Failure(FailureKind::invalid_argument, "bad_payload",
                                      "delta, floor: expected at most 2^53 either way"));
  store::Commit commit;
  if (floor) commit.requires_.push_back({store::KvAtLeast{key, *floor - *delta}, "floor"});
  commit.then.emplace_back(store::KvAdd{std::move(key), *delta});
  invocation.finish_with(std::move(commit), Reply::ok("{\"added\":" + std::to_string(*delta) + "}"));
}

Task<Answer> read(store::Store& store, store::KvKey key) {
  store::GetRows query;
  query.keys.push_back(std::move(key));
  auto rows = co_await store::ask(store, std::move(query));
  if (!rows) co_return Answer::of(std::move(rows).error());
  const auto& row = rows->front();
  if (!row) {
    Failure none(FailureKind::not_found, "no_such_key", "there is nothing under this key");
    co_return Answer::of(std::move(none));
  }
  Json out;
  out["version"] = row->version;
  out["number"] = row->number;
  out["value"] = row->value.empty() ? Json() : Json::parse(row->value, nullptr, false);
  const auto reply = Reply::ok(dump(out));
  co_return Answer::of(reply);
}

void kv_get(Invocation& invocation) {
  auto fields = JsonFields::parse(invocation.command.payload);
  if (!fields) return refuse(invocation, std::move(fields).error());
  auto key = key_of(invocation, fields->text("collection", 64), fields->text("key"));
  if (auto ok = fields->done(); !ok) return refuse(invocation, std::move(ok).error());
  invocation.run_task(read(invocation.registry().store(), std::move(key)));
}

/// Commands of one row run in arrival order.
std::string row_order(const rpc::Command& command) {
  const auto json = Json::parse(command.payload, nullptr, false);
  if (!json.is_object()) return {};
  const auto part = [&](const char* name) {
    const auto found = json.find(name);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  return part("collection") + "/" + part("key");
}

CommandSpec spec(std::string name, std::string summary, KeyUse keys, rpc::Handler handler) {
  CommandSpec out;
  out.name = std::move(name);
  out.summary = std::move(summary);
  out.idempotency = keys;
  out.handler = std::move(handler);
  return out;
}

}  // namespace

Status add_basic_commands(rpc::Registry& registry) {
  auto echo = spec("sluice.echo", "Gives the payload back.", KeyUse::optional,
                   [](Invocation& invocation) {
                     invocation.finish(Answer::of(Reply::ok(invocation.command.payload)));
                   });
  SLUICE_TRY(registry.add(std::move(echo)));

  auto put = spec("kv.put", "Stores a JSON value under a key of a collection.", KeyUse::required,
                  kv_put);
  put.ordering_key = row_order;
  put.input_schema =
      R"({"type":"object","required":["collection","key","value"],"additionalProperties":false,)"
      R"("properties":{"collection":{"type":"string","maxLength":64},)"
      R"("key":{"type":"string","maxLength":256},"value":{},)"
      R"("if_version":{"type":"integer","description":"0: the key must not exist"}}})";
  SLUICE_TRY(registry.add(std::move(put)));

  auto add = spec("kv.add", "Adds to the number under a key, refused below a floor.",
                  KeyUse::required, kv_add);
  add.ordering_key = row_order;
  add.input_schema =
      R"({"type":"object","required":["collection","key","delta"],"additionalProperties":false,)"
      R"("properties":{"collection":{"type":"string","maxLength":64},)"
      R"("key":{"type":"string","maxLength":256},"delta":{"type":"integer"},)"
      R"("floor":{"type":"integer"}}})";
  SLUICE_TRY(registry.add(std::move(add)));

  auto get = spec("kv.get", "Reads value, number and version under a key.", KeyUse::none, kv_get);
  get.input_schema =
      R"({"type":"object","required":["collection","key"],"additionalProperties":false,)"
      R"("properties":{"collection":{"type":"string","maxLength":64},)"
      R"("key":{"type":"string","maxLength":256}}})";
  return registry.add(std::move(get));
}

}  // namespace sluice::server
