// sluice.tx.wake: the outside event of a paused transaction, by whoever holds its wake token.
#include "server/commands.hpp"
#include "server/json_fields.hpp"

namespace sluice::server {
namespace {

using rpc::Answer;

Task<Answer> wake(flow::Flow& flow, Namespace ns, std::string token, Bytes payload) {
  auto waking = flow.wake(std::move(ns), std::move(token), std::move(payload));
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
  spec.idempotency = rpc::KeyUse::none;  // the token is used once
  spec.input_schema =
      R"({"type":"object","required":["token"],"additionalProperties":false,)"
      R"("properties":{"token":{"type":"string"},"app":{"type":"string"},"payload":{}}})";
  spec.handler = [&flows](rpc::Invocation& invocation) {
    auto fields = JsonFields::parse(invocation.command.payload);
    if (!fields) return invocation.finish(Answer::of(std::move(fields).error()));
    std::string token = fields->text("token", 255);
    const std::string app = fields->text("app", 64, false);
    const Json* payload = fields->any("payload", false);
    if (auto ok = fields->done(); !ok) return invocation.finish(Answer::of(std::move(ok).error()));
    // Live wakes live and shadow wakes shadow; the app need be said only where two wait.
    auto waiting = flows.expecting(token);
    std::erase_if(waiting, [&](const auto& one) {
      return one.ns.shadow() != invocation.command.ns.shadow() || (!app.empty() && one.ns.app() != app);
    });
    if (waiting.size() > 1)
      return invocation.finish(Answer::of(
          Failure(FailureKind::invalid_argument, "ambiguous_token",
                  "transactions of several apps wait under '" + token + "', " + std::string(waiting[0].ns.app()) +
                      " and " + std::string(waiting[1].ns.app()) + " among them: name one in \"app\"")));
    if (waiting.empty())
      return invocation.finish(Answer::of(
          Failure(FailureKind::not_found, "nobody_waits",
                  "nothing waits under '" + token + "': it was woken, has timed out, or never was")));
    invocation.run_task(wake(*waiting[0].flow, std::move(waiting[0].ns), std::move(token), payload != nullptr ? dump(*payload) : Bytes()));
  };
  return registry.add(std::move(spec));
}

}  // namespace sluice::server
