// What an operator does about transactions. These calls read and write the store while they wait,
// so they run in the backroom and answer on the caller's lane.
#include "server/commands.hpp"
#include "server/first_answer.hpp"
#include "server/json_fields.hpp"
#include "sluice/base/text.hpp"

namespace sluice::server {

namespace {

using rpc::Answer;
using rpc::Invocation;

enum class Row : bool { own, in_commit };  ///< where the audit row is, when it succeeds

Answer too_late(std::string_view what) {
  return Answer::of(Failure(FailureKind::timeout, "no_answer_in_time",
                            "the database did not answer before the deadline; " + std::string(what)));
}

/// Runs `work` in the backroom and finishes the invocation on its lane with what it gives, or at its deadline.
void in_backroom(Invocation& invocation, Backroom& backroom,
                 std::move_only_function<Answer()> work, Answer late, Row row = Row::own) {
  auto waiting = FirstAnswer<Answer>::wait(
      *invocation.lane, invocation.command.deadline, std::move(late), [&invocation, row](Answer answer) {
        if (row == Row::in_commit && answer.kind == Answer::Kind::reply) invocation.audited();
        invocation.finish(std::move(answer));
      });
  auto job = [waiting, work = std::move(work)]() mutable {
    if (!waiting->too_late()) FirstAnswer<Answer>::give(std::move(waiting), work());
  };
  if (auto taken = backroom.submit(std::move(job)); !taken)
    FirstAnswer<Answer>::give(std::move(waiting), Answer::of(std::move(taken).error()));
}

Result<ExchangeId> parse_id(const std::string& text) {
  const auto id = id_from_text(text);
  if (!id || *id == 0)
    return fail(FailureKind::not_found, "unknown_transaction",
                "there is no transaction '" + std::string(beginning_of(text, 64)) + "'");
  return ExchangeId{*id};
}

void settle(Invocation& invocation, Backroom& backroom) {
  const auto refuse = [&](Failure failure) { invocation.finish(Answer::of(std::move(failure))); };
  auto fields = JsonFields::parse(invocation.command.payload);
  if (!fields) return refuse(std::move(fields).error());
  const auto id_text = fields->text("id", 64);
  const auto outcome = fields->text("outcome", 16);
  auto reason = fields->text("reason", 1024);
  if (auto ok = fields->done(); !ok) return refuse(std::move(ok).error());
  if (outcome != "committed" && outcome != "aborted")
    return refuse(Failure(FailureKind::invalid_argument, "bad_payload",
                          "outcome: expected \"committed\" or \"aborted\", got \"" + outcome +
                              "\""));
  const auto id = parse_id(id_text);
  if (!id) return refuse(id.error());
  auto& store = invocation.registry().store();
  in_backroom(invocation, backroom,
              [&store, id = *id, outcome, reason = std::move(reason),
               by = invocation.command.principal->id]() -> Answer {
                auto settled = flow::settle(store, id, outcome == "committed", by, reason);
                if (!settled) return Answer::of(std::move(settled).error());
                return Answer::of(
                    Reply::ok(dump({{"id", to_string(id)}, {"outcome", outcome}})), id);
              }, too_late("it may be settled all the same: look at the transaction, and settle it again if it is open"),
              Row::in_commit);
}

void graph(Invocation& invocation, const flow::Flows& flows) {
  const auto refuse = [&](Failure failure) { invocation.finish(Answer::of(std::move(failure))); };
  auto fields = JsonFields::parse(invocation.command.payload);
  if (!fields) return refuse(std::move(fields).error());
  const auto name = fields->text("flow", 64, false);
  if (auto ok = fields->done(); !ok) return refuse(std::move(ok).error());
  Json found = Json::array();
  for (const auto* flow : flows.all())
    if (name.empty() || flow->name() == name)
      found.push_back({{"flow", flow->name()},
                       {"version", flow->options().version},
                       {"mermaid", flow->to_mermaid()},
                       {"dot", flow->to_dot()},
                       {"lint", flow->lint()}});
  if (!name.empty() && found.empty())
    return refuse(Failure(FailureKind::not_found, "unknown_flow",
                          "this server has no flow '" + name + "'"));
  invocation.finish(Answer::of(Reply::ok(dump({{"flows", std::move(found)}}))));
}

void show_key(Invocation& invocation, Backroom& backroom) {
  const auto refuse = [&](Failure failure) { invocation.finish(Answer::of(std::move(failure))); };
  auto fields = JsonFields::parse(invocation.command.payload);
  if (!fields) return refuse(std::move(fields).error());
  const auto app = fields->text("app", 64);
  const auto principal = fields->text("principal", 64);
  const auto command = fields->text("command", 64);
  const auto version = fields->number("version").value_or(1);
  const auto key = fields->text("key", 255);
  if (auto ok = fields->done(); !ok) return refuse(std::move(ok).error());
  const auto ns = Namespace::parse(app);
  if (!ns) return refuse(ns.error());
  auto scope = idempotency::make_scope(*ns, principal, command,
                                       static_cast<std::uint32_t>(version), key);
  auto& store = invocation.registry().store();
  in_backroom(invocation, backroom, [&store, scope = std::move(scope)]() -> Answer {
    auto row = store::ask_now(store, store::FindKey{scope});
    if (!row) return Answer::of(std::move(row).error());
    if (!*row)
      return Answer::of(Failure(FailureKind::not_found, "unknown_key",
                                "no live key: never used, still running, released or expired"));
    const auto& found = **row;
    Json out{{"state", found.state == store::KeyState::completed ? "completed" : "claimed"},
             {"transaction", to_string(found.exchange)},
             {"fingerprint", to_hex(found.fingerprint.view())},
             {"stored_ms", found.stored_at.time_since_epoch().count()},
             {"expires_ms", found.expires_at.time_since_epoch().count()}};
    if (found.state == store::KeyState::completed)
      if (const auto reply = Reply::decode(found.reply)) {
        Json body = Json::parse(reply->body, nullptr, false);
        if (body.is_discarded()) body = reply->body.empty() ? Json() : Json(reply->body);
        out["reply"] = {{"kind", traits(reply->kind).name}, {"code", reply->code}, {"body", std::move(body)}};
      }
    return Answer::of(Reply::ok(dump(out)));
  }, too_late("ask again"));
}

Status add(rpc::Registry& registry, std::string name, std::string summary, std::string schema,
           rpc::Handler handler) {
  rpc::CommandSpec spec;
  spec.name = std::move(name);
  spec.summary = std::move(summary);
  spec.app = "sluice";
  spec.shadow = false;
  spec.idempotency = rpc::KeyUse::none;
  spec.input_schema = std::move(schema);
  spec.handler = std::move(handler);
  return registry.add(std::move(spec));
}

}  // namespace

Status add_operator_commands(rpc::Registry& registry, Backroom& backroom,
                             const flow::Flows& flows) {
  SLUICE_TRY(add(registry, "sluice.tx.settle", "Says how a transaction in doubt ended, for good.",
                 R"({"type":"object","required":["id","outcome","reason"],)"
                 R"("additionalProperties":false,"properties":{"id":{"type":"string"},)"
                 R"("outcome":{"enum":["committed","aborted"]},"reason":{"type":"string"}}})",
                 [&backroom](Invocation& invocation) { settle(invocation, backroom); }));
  SLUICE_TRY(add(registry, "sluice.tx.graph", "Draws the flows of this server.",
                 R"({"type":"object","properties":{"flow":{"type":"string"}}})",
                 [&flows](Invocation& invocation) { graph(invocation, flows); }));
  return add(registry, "sluice.idempotency.show", "Shows what is stored under an idempotency key.",
             R"({"type":"object","required":["app","principal","command","key"],)"
             R"("properties":{"app":{"type":"string"},"principal":{"type":"string"},)"
             R"("command":{"type":"string"},"version":{"type":"integer"},)"
             R"("key":{"type":"string"}}})",
             [&backroom](Invocation& invocation) { show_key(invocation, backroom); });
}

}  // namespace sluice::server
