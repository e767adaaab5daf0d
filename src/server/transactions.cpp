#include <nlohmann/json.hpp>

#include "sluice/server/server.hpp"

namespace sluice::server {

std::string transaction_json(const flow::TransactionView& view) {
  using Json = nlohmann::ordered_json;
  Json stages = Json::array();
  for (const auto& stage : view.stages)
    stages.push_back({{"step", stage.step},
                      {"stage", stage.stage},
                      {"external", stage.external},
                      {"state", stage.state}});
  Json json{{"id", to_string(view.exchange)},
            {"flow", view.flow},
            {"version", view.version},
            {"namespace", view.ns},
            {"outcome", view.outcome},
            {"cause", view.cause},
            {"reference", view.reference},
            {"principal", view.principal},
            {"command", view.command},
            {"correlation_id", view.correlation},
            {"began_ms", view.began.time_since_epoch().count()},
            {"stages", std::move(stages)}};
  if (view.reply) {
    auto body = Json::parse(view.reply->body, nullptr, false);
    json["reply"] = {{"kind", traits(view.reply->kind).name},
                     {"code", view.reply->code},
                     {"detail", view.reply->detail},
                     {"body", body.is_discarded() ? Json() : std::move(body)}};
  }
  if (view.audit) {
    constexpr std::string_view kOutcomes[] = {"", "ok", "error", "denied", "replayed"};
    json["audit"] = {{"sequence", view.audit->sequence},
                     {"at_ms", view.audit->at.time_since_epoch().count()},
                     {"outcome", kOutcomes[static_cast<std::size_t>(view.audit->outcome)]},
                     {"detail", view.audit->detail}};
  }
  if (!view.settled_by.empty())
    json["settled"] = {{"by", view.settled_by}, {"reason", view.settled_reason}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace sluice::server
