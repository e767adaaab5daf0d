// sluice.breakers.* and sluice.rules.*: what guards outbound calls, and what an operator may do to it.
#include <algorithm>

#include "server/commands.hpp"
#include "server/guard_rules.hpp"
#include "server/json_fields.hpp"

namespace sluice::server {
namespace {

using resilience::BreakerState;
using resilience::ProtectorSnapshot;
using rpc::Answer;
using rpc::Invocation;

constexpr std::size_t kAppMax = 64;

double in_ms(Duration d) { return std::chrono::duration<double, std::milli>(d).count(); }

Json transition_json(const resilience::BreakerTransition& one, Instant now) {
  Json out{{"from", to_string(one.from)}, {"to", to_string(one.to)},       {"reason", to_string(one.reason)},
           {"ago_ms", in_ms(now - one.at)}, {"generation", one.generation}};
  if (one.threshold != 0) {
    out["observed"] = one.observed;
    out["threshold"] = one.threshold;
  }
  if (one.isolation > Duration::zero()) out["isolation_ms"] = in_ms(one.isolation);
  return out;
}

Json places_json(const resilience::BulkheadStats& places) {
  return {{"limit", places.limit}, {"in_flight", places.in_flight}, {"waiting", places.waiting}};
}

double part(std::uint64_t of, std::uint64_t all) { return all == 0 ? 0 : static_cast<double>(of) / static_cast<double>(all); }

// What is in the window, and what it is held against; a threshold of 0 is not looked at.
Json window_json(const resilience::BreakerSnapshot& breaker) {
  const auto& rule = breaker.options;
  const auto& window = breaker.window;
  Json out{{"calls", window.calls},
           {"failures", window.failures},
           {"slow", window.slow},
           {"consecutive", breaker.consecutive},
           {"failure_ratio", part(window.failures, window.calls)},
           {"slow_ratio", part(window.slow, window.calls)},
           {"minimum_calls", rule.minimum_calls},
           {"slow_after_ms", in_ms(rule.slow_after)},
           {"trips_at",
            {{"failure_ratio", rule.failure_ratio},
             {"slow_ratio", rule.slow_ratio},
             {"failures", rule.failures},
             {"consecutive", rule.consecutive}}}};
  if (rule.window == resilience::BreakerWindow::time)
    out["last_ms"] = in_ms(rule.window_time);
  else
    out["last_calls"] = rule.window_calls;
  return out;
}

Json protector_json(const ProtectorSnapshot& one, Instant now, bool whole) {
  Json out{{"name", one.name}, {"app", one.app}, {"shadow", one.shadow}, {"rule", one.rule},
           {"version", one.version}, {"passed", one.passed}, {"state", "none"}};
  std::uint64_t blocked = 0;
  for (const auto& policy : one.policies) blocked += policy.blocked;
  out["blocked"] = blocked;
  if (one.breaker) {
    const auto& breaker = *one.breaker;
    out["state"] = to_string(breaker.state);
    out["calls"] = breaker.window.calls;
    out["failures"] = breaker.window.failures;
    out["slow"] = breaker.window.slow;
    out["generation"] = breaker.generation;
    if (breaker.state == BreakerState::open) out["opens_for_ms"] = std::max(0.0, in_ms(breaker.open_until - now));
    if (breaker.state == BreakerState::half_open)
      out["trials"] = {{"running", breaker.trials_running},
                       {"passed", breaker.trials_passed},
                       {"failed", breaker.trials_failed},
                       {"all", breaker.options.trials}};
    if (whole) out["window"] = window_json(breaker);
    Json history = Json::array();
    for (const auto& transition : breaker.transitions) history.push_back(transition_json(transition, now));
    out["transitions"] = std::move(history);
  }
  if (!whole) return out;
  Json policies = Json::array();
  for (const auto& policy : one.policies)
    policies.push_back({{"policy", to_string(policy.policy)},
                        {"mode", to_string(policy.mode)},
                        {"blocked", policy.blocked},
                        {"would_block", policy.would_block}});
  out["policies"] = std::move(policies);
  if (one.bulkhead) out["bulkhead"] = places_json(*one.bulkhead);
  if (one.adaptive) {
    out["adaptive"] = places_json(one.adaptive->places);
    out["adaptive"]["best_ms"] = in_ms(one.adaptive->best);
  }
  if (one.tokens) out["tokens"] = *one.tokens;
  if (one.throttle_refusal) out["throttle_refusal"] = *one.throttle_refusal;
  out["retry_budget"] = one.retry_budget;
  out["retry_spent_at"] = one.retry_spent_at;
  out["retries"] = one.retries;
  out["hedges"] = one.hedges;
  return out;
}

Json plan_json(const resilience::ReloadPlan& plan) {
  return {{"version", plan.version},
          {"rules_added", plan.rules_added},
          {"rules_removed", plan.rules_removed},
          {"rules_changed", plan.rules_changed},
          {"rules_unmet", plan.rules_unmet},
          {"protectors_changed", plan.protectors_changed},
          {"closes", plan.closes},
          {"resets", plan.resets},
          {"loses", plan.loses},
          {"text", plan.text}};
}

std::optional<BreakerState> state_named(std::string_view name) {
  for (const auto state : {BreakerState::closed, BreakerState::half_open, BreakerState::forced_open,
                           BreakerState::forced_closed, BreakerState::disabled, BreakerState::metrics_only})
    if (to_string(state) == name) return state;
  return std::nullopt;
}

std::vector<std::string> callers(const resilience::Guards& guards, std::string_view name, bool shadow) {
  std::vector<std::string> apps;
  for (const auto& one : guards.list())
    if (one.name == name && one.shadow == shadow && guards.called(name, shadow, one.app)) apps.emplace_back(one.app);
  return apps;
}

Answer force(const JsonFields& read, const std::string& by, resilience::Guards& guards) {
  JsonFields fields = read;
  const auto name = fields.text("name", 128);
  const auto word = fields.text("state", 32);
  const auto why = fields.text("reason", 1024);
  const bool shadow = fields.flag("shadow");
  const auto app = fields.text("app", kAppMax, false);
  if (auto ok = fields.done(); !ok) return Answer::of(std::move(ok).error());
  if (!app.empty())
    if (auto known = Namespace::parse(app); !known) return Answer::of(std::move(known).error());
  const auto state = state_named(word);
  if (!state)
    return Answer::of(Failure(FailureKind::invalid_argument, "bad_state",
                              "state: expected closed, half_open, forced_open, forced_closed, disabled or "
                              "metrics_only, got \"" + word + "\""));
  const bool called = guards.called(name, shadow, app);
  if (auto forced = guards.force(name, shadow, *state, by, why, app); !forced)
    return Answer::of(std::move(forced).error());
  Json out{{"name", name}, {"app", app.empty() ? std::string(resilience::kEveryApp) : app}, {"shadow", shadow}, {"state", word}, {"called", called}};
  // It holds from the first call on; of a misspelt name none will come.
  if (called) return Answer::of(Reply::ok(dump(out)));
  if (const auto apps = callers(guards, name, shadow); !apps.empty())
    out["callers"] = apps;  // so it is the app that is misspelt, if anything
  else if (const auto nearest = guards.nearest(name, shadow))
    out["nearest"] = *nearest;
  return Answer::of(Reply::ok(dump(out)));
}

Answer rules(const JsonFields& read, const std::string& by, GuardRules& all, bool dry) {
  JsonFields fields = read;
  const std::optional<std::string> text = fields.any_text("rules", 4 << 20);  // empty: no rules at all
  if (auto ok = fields.done(); !ok) return Answer::of(std::move(ok).error());
  auto plan = dry ? all.plan(text) : all.reload(text, by);
  if (!plan) return Answer::of(std::move(plan).error());
  return Answer::of(Reply::ok(dump(plan_json(*plan))));
}

template <class Do>
Status add(rpc::Registry& registry, std::string name, std::string summary, std::string schema, Do work) {
  rpc::CommandSpec spec;
  spec.name = std::move(name);
  spec.summary = std::move(summary);
  spec.app = "sluice";
  spec.shadow = false;
  spec.idempotency = rpc::KeyUse::none;
  spec.max_payload = 8 << 20;
  spec.input_schema = std::move(schema);
  spec.handler = [work](Invocation& invocation) {
    auto fields = JsonFields::parse(invocation.command.payload);
    if (!fields) return invocation.finish(Answer::of(std::move(fields).error()));
    invocation.finish(work(*fields, invocation));
  };
  return registry.add(std::move(spec));
}

}  // namespace

Status add_guard_commands(rpc::Registry& registry, resilience::Guards& guards, GuardRules& rule_file, Clock& clock) {
  SLUICE_TRY(add(registry, "sluice.breakers.list", "What guards each outbound command.", R"({"type":"object"})",
                 [&guards, &clock, began = clock.now()](JsonFields& fields, Invocation&) -> Answer {
                   if (auto ok = fields.done(); !ok) return Answer::of(std::move(ok).error());
                   Json all = Json::array();
                   const Instant now = clock.now();
                   for (const auto& one : guards.list()) all.push_back(protector_json(one, now, false));
                   // Who looks again and again sees by it that all was counted from the start again.
                   return Answer::of(Reply::ok(dump({{"counting_for_ms", in_ms(now - began)}, {"protectors", std::move(all)}})));
                 }));
  SLUICE_TRY(add(registry, "sluice.breakers.show", "One protector: policies, window, permits, last transitions.",
                 R"({"type":"object","required":["name"],"properties":{"name":{"type":"string"},)"
                 R"("app":{"type":"string"},"shadow":{"type":"boolean"}}})",
                 [&guards, &clock](JsonFields& fields, Invocation&) -> Answer {
                   const auto name = fields.text("name", 128);
                   const bool shadow = fields.flag("shadow");
                   const auto app = fields.text("app", kAppMax, false);
                   if (auto ok = fields.done(); !ok) return Answer::of(std::move(ok).error());
                   const auto one = guards.show(name, shadow, app);
                   if (!one) return Answer::of(one.error());
                   return Answer::of(Reply::ok(dump(protector_json(*one, clock.now(), true))));
                 }));
  SLUICE_TRY(add(registry, "sluice.breakers.force", "Puts a breaker into a state, with the reason in the audit trail.",
                 R"({"type":"object","required":["name","state","reason"],"properties":{"name":{"type":"string"},)"
                 R"("app":{"type":"string"},"shadow":{"type":"boolean"},"state":{"enum":["closed","half_open","forced_open","forced_closed",)"
                 R"("disabled","metrics_only"]},"reason":{"type":"string"}}})",
                 [&guards](JsonFields& fields, Invocation& invocation) {
                   return force(fields, invocation.command.principal->id, guards);
                 }));
  const std::string schema = R"({"type":"object","properties":{"rules":{"type":"string"}}})";
  SLUICE_TRY(add(registry, "sluice.rules.diff", "What a reload would change: of the given rules, or of the file.",
                 schema, [&rule_file](JsonFields& fields, Invocation& invocation) {
                   return rules(fields, invocation.command.principal->id, rule_file, true);
                 }));
  return add(registry, "sluice.rules.reload", "Replaces the rules by the given ones, or by the file's.", schema,
             [&rule_file](JsonFields& fields, Invocation& invocation) {
               return rules(fields, invocation.command.principal->id, rule_file, false);
             });
}

}  // namespace sluice::server
