#include "transport/http/openapi.hpp"

#include <nlohmann/json.hpp>

#include <set>

namespace sluice::transport {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kKinds = static_cast<int>(FailureKind::internal) + 1;

Json text(const char* what) { return {{"description", what}, {"content", {{"application/json", Json::object()}}}}; }

Json header(const char* name, const char* what, bool required, const char* type = "string") {
  return {{"name", name}, {"in", "header"}, {"required", required}, {"description", what}, {"schema", {{"type", type}}}};
}

Json problem_schema() {
  return {{"type", "object"},
          {"required", {"type", "title", "status", "kind", "code", "retryable", "detail"}},
          {"properties",
           {{"type", {{"type", "string"}}},
            {"title", {{"type", "string"}}},
            {"status", {{"type", "integer"}}},
            {"kind", {{"type", "string"}, {"description", "stable word; docs/errors.md lists them"}}},
            {"code", {{"type", "string"}}},
            {"retryable", {{"type", "boolean"}}},
            {"detail", {{"type", "string"}}},
            {"transaction", {{"type", "string"}}},
            {"correlation_id", {{"type", "string"}}}}}};
}

// By status, once each, with the kinds that lead to it.
Json problems() {
  Json responses = Json::object();
  std::set<int> statuses;
  for (int kind = 1; kind < kKinds; ++kind) statuses.insert(traits(static_cast<FailureKind>(kind)).http_status);
  for (const int status : statuses) {
    if (status == 202) continue;
    std::string kinds;
    for (int kind = 1; kind < kKinds; ++kind)
      if (const auto& row = traits(static_cast<FailureKind>(kind)); row.http_status == status)
        kinds += (kinds.empty() ? "" : ", ") + std::string(row.name);
    responses[std::to_string(status)] = {
        {"description", kinds},
        {"content", {{"application/problem+json", {{"schema", {{"$ref", "#/components/schemas/Problem"}}}}}}}};
  }
  return responses;
}

Json command_path(const rpc::CommandSpec& spec, const Json& failures) {
  Json parameters = Json::array();
  if (spec.idempotency != rpc::KeyUse::none)
    parameters.push_back(header("Idempotency-Key", "With the same key the command takes effect once; 1-255 bytes",
                                spec.idempotency == rpc::KeyUse::required));
  parameters.push_back(header("X-Sluice-Deadline-Ms", "How long the caller waits; longer than http.max_deadline_ms counts as that", false, "integer"));
  parameters.push_back(header("X-Sluice-App", "Namespace; default: the command's own", false));
  if (spec.shadow) parameters.push_back(header("X-Sluice-Shadow", "true: stress-test traffic", false));
  parameters.push_back(header("traceparent", "W3C trace context", false));
  Json schema = Json::parse(spec.input_schema, nullptr, false);
  if (schema.is_discarded()) schema = {{"type", "object"}};
  Json responses{{"200", text("The reply; a replay says Idempotency-Replayed: true")},
                 {"202", text("In doubt: decided, an outside stage is unsettled; Location names the transaction")}};
  for (const auto& [status, response] : failures.items()) responses[status] = response;
  Json operation{{"operationId", spec.name},
                 {"summary", spec.summary},
                 {"parameters", std::move(parameters)},
                 {"requestBody", {{"content", {{"application/json", {{"schema", std::move(schema)}}}}}}},
                 {"responses", std::move(responses)}};
  if (spec.anonymous) operation["security"] = Json::array({Json::object()});
  return {{"post", std::move(operation)}};
}

Json reading(const char* summary, bool open, Json parameters = Json::array()) {
  Json operation{{"summary", summary}, {"parameters", std::move(parameters)}, {"responses", {{"200", text("As it is now")}}}};
  if (open) operation["security"] = Json::array({Json::object()});
  return {{"get", std::move(operation)}};
}

}  // namespace

std::string openapi_document(const rpc::Registry& registry) {
  const Json failures = problems();
  Json paths = Json::object();
  for (const auto& spec : registry.commands()) paths["/v1/commands/" + spec->name] = command_path(*spec, failures);
  paths["/v1/commands"] = reading("What commands there are, with schemas and permissions", false);
  paths["/v1/transactions"] = reading(
      "The newest transactions, or those that are open", false,
      {{{"name", "state"}, {"in", "query"}, {"schema", {{"enum", {"open", "in_doubt", "paused"}}}}},
       {{"name", "limit"}, {"in", "query"}, {"schema", {{"type", "integer"}, {"minimum", 1}, {"maximum", 1000}}}},
       {{"name", "before"}, {"in", "query"}, {"schema", {{"type", "string"}}}}});
  paths["/v1/transactions/{id}"] =
      reading("One transaction, stage by stage", false,
              {{{"name", "id"}, {"in", "path"}, {"required", true}, {"schema", {{"type", "string"}}}}});
  for (const char* open : {"/healthz", "/readyz", "/metrics"}) paths[open] = reading("For orchestrators and monitoring", true);
  const Json document{
      {"openapi", "3.1.0"},
      {"info", {{"title", "Sluice"}, {"version", "1"}}},
      {"paths", std::move(paths)},
      {"security", Json::array({{{"token", Json::array()}}})},
      {"components",
       {{"securitySchemes", {{"token", {{"type", "http"}, {"scheme", "bearer"}}}}}, {"schemas", {{"Problem", problem_schema()}}}}}};
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice::transport
