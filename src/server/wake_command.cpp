// sluice.tx.wake: the outside event of a paused transaction, by whoever holds its wake token.
#include "server/commands.hpp"
#include "server/json_fields.hpp"

namespace sluice::server {
namespace {

using rpc::Answer;

Task<Answer> wake(flow::Flow& flow, std::string token, Bytes payload) {
  auto waking = flow.wake(std::move(token), std::move(payload));
  const Status woken = co_await waking;
  if (!woken) co_return Answer::of(woken.error());
  const Reply reply = Reply::ok(R"({"woken":true})");
  co_return Answer::of(reply);
}

}  // namespace

Status add_wake_command(rpc::Registry& registry, const flow::Flows& flows) {
  rpc::CommandSpec spec;
  spec.name = "sluice.tx.wake";
  spec.summary = "Wakes a paused transaction with what its stage waits for.";
  spec.app = "sluice";
  spec.shadow = false;
  spec.idempotency = rpc::KeyUse::none;  // the token is used once
  spec.input_schema =
      R"({"type":"object","required":["token"],"additionalProperties":false,)"
      R"("properties":{"token":{"type":"string"},"payload":{}}})";
  spec.handler = [&flows](rpc::Invocation& invocation) {
    auto fields = JsonFields::parse(invocation.command.payload);
    if (!fields) return invocation.finish(Answer::of(std::move(fields).error()));
    std::string token = fields->text("token", 255);
    const Json* payload = fields->any("payload", false);
    if (auto ok = fields->done(); !ok) return invocation.finish(Answer::of(std::move(ok).error()));
    flow::Flow* const flow = flows.expecting(token);
    if (flow == nullptr)
      return invocation.finish(Answer::of(
          Failure(FailureKind::not_found, "nobody_waits",
                  "nothing waits under '" + token + "': it was woken, has timed out, or never was")));
    invocation.run_task(wake(*flow, std::move(token), payload != nullptr ? dump(*payload) : Bytes()));
  };
  return registry.add(std::move(spec));
}

}  // namespace sluice::server
