// sluice.audit.list: who did what, newest first.
#include <algorithm>
#include <array>

#include "server/commands.hpp"
#include "server/json_fields.hpp"

namespace sluice::server {
namespace {

using rpc::Answer;
using store::AuditOutcome;
using store::AuditRow;

constexpr std::size_t kPage = 500;
// Of rows that do not match, for one answer; its "before" leads on.
constexpr int kPagesLookedAt = 40;

constexpr std::array<std::pair<AuditOutcome, std::string_view>, 4> kOutcomes{{{AuditOutcome::ok, "ok"},
                                                                              {AuditOutcome::error, "error"},
                                                                              {AuditOutcome::denied, "denied"},
                                                                              {AuditOutcome::replayed, "replayed"}}};

std::string_view word_of(AuditOutcome outcome) noexcept {
  for (const auto& [value, word] : kOutcomes)
    if (value == outcome) return word;
  return "?";
}

struct Wanted {
  std::uint64_t before = 0;
  std::size_t limit = 50;
  std::string principal, command, outcome;  // empty: any

  bool matches(const AuditRow& row) const {
    return (principal.empty() || row.principal == principal) && (command.empty() || row.command == command) &&
           (outcome.empty() || word_of(row.outcome) == outcome);
  }
};

nlohmann::ordered_json row_json(const AuditRow& row) {
  nlohmann::ordered_json json{{"sequence", row.sequence},
                              {"at_ms", row.at.time_since_epoch().count()},
                              {"principal", row.principal},
                              {"command", row.command},
                              {"outcome", word_of(row.outcome)},
                              {"detail", row.detail},
                              {"namespace", row.ns}};
  if (row.exchange) json["transaction"] = to_string(row.exchange);
  if (!row.correlation.empty()) json["correlation_id"] = row.correlation;
  return json;
}

Task<Answer> list(store::Store& store, Wanted wanted) {
  auto found = nlohmann::ordered_json::array();
  std::uint64_t before = wanted.before;
  bool more = true;
  for (int page = 0; more && page < kPagesLookedAt; ++page) {
    store::ListAudit query;
    query.before = before;
    query.limit = kPage;
    auto asking = store::ask(store, query);
    const auto rows = co_await asking;
    if (!rows) co_return Answer::of(rows.error());
    more = rows->size() == kPage;
    for (const auto& row : *rows) {
      if (found.size() == wanted.limit) {
        more = true;
        break;
      }
      before = row.sequence;
      if (wanted.matches(row)) found.push_back(row_json(row));
    }
    if (found.size() == wanted.limit) break;
  }
  nlohmann::ordered_json body{{"rows", std::move(found)}};
  if (more) body["before"] = before;
  const Reply reply = Reply::ok(body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  co_return Answer::of(reply);
}

Result<Wanted> read(const Bytes& payload) {
  SLUICE_ASSIGN(auto fields, JsonFields::parse(payload));
  Wanted wanted;
  const auto before = fields.number("before").value_or(0);
  const auto limit = fields.number("limit").value_or(50);
  wanted.principal = fields.text("principal", 64, false);
  wanted.command = fields.text("command", 64, false);
  wanted.outcome = fields.text("outcome", 16, false);
  SLUICE_TRY(fields.done());
  const auto bad = [](std::string what) { return fail(FailureKind::invalid_argument, "bad_payload", std::move(what)); };
  if (before < 0) return bad("before: expected the sequence of a row, got " + std::to_string(before));
  if (limit < 1 || limit > 1000) return bad("limit: expected 1–1000, got " + std::to_string(limit));
  if (!wanted.outcome.empty() && std::ranges::none_of(kOutcomes, [&](const auto& one) { return one.second == wanted.outcome; }))
    return bad("outcome: expected ok, error, denied or replayed, got \"" + wanted.outcome + "\"");
  wanted.before = static_cast<std::uint64_t>(before);
  wanted.limit = static_cast<std::size_t>(limit);
  return wanted;
}

}  // namespace

Status add_audit_command(rpc::Registry& registry) {
  rpc::CommandSpec spec;
  spec.name = "sluice.audit.list";
  spec.summary = "Who did what, newest first: {before?, limit?, principal?, command?, outcome?}";
  spec.app = "sluice";
  spec.shadow = false;
  spec.idempotency = rpc::KeyUse::none;
  spec.input_schema =
      R"({"type":"object","additionalProperties":false,"properties":{)"
      R"("before":{"type":"integer","description":"older than the row of this sequence"},)"
      R"("limit":{"type":"integer","minimum":1,"maximum":1000},"principal":{"type":"string"},)"
      R"("command":{"type":"string"},"outcome":{"enum":["ok","error","denied","replayed"]}}})";
  spec.handler = [](rpc::Invocation& invocation) {
    auto wanted = read(invocation.command.payload);
    if (!wanted) return invocation.finish(Answer::of(std::move(wanted).error()));
    invocation.run_task(list(invocation.registry().store(), *std::move(wanted)));
  };
  return registry.add(std::move(spec));
}

}  // namespace sluice::server
