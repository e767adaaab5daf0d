#include "sluice/rpc/registry.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "rpc/audit_log.hpp"
#include "rpc/refusals.hpp"
#include "sluice/base/text.hpp"
#include "sluice/idempotency/fingerprint.hpp"
#include "sluice/rpc/json_canonical.hpp"

namespace sluice::rpc {

namespace {

// A star stands for any run of characters, also none.
bool glob(std::string_view pattern, std::string_view text) noexcept {
  std::size_t p = 0, t = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool valid_name(std::string_view name) noexcept {
  if (name.empty() || name.size() > 64) return false;
  return std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

constexpr std::size_t kShownCommand = 80;  // a name has up to 64, a route a method before it

std::string code_of(const Failure& failure) {
  return std::string(failure.code().empty() ? failure.traits().name : failure.code());
}

std::string printable(std::string_view text, std::size_t limit) {
  std::string out(beginning_of(text, limit));
  for (char& c : out)
    if (c < 0x20 || c == 0x7F) c = '?';
  return out;
}

}  // namespace

bool Principal::may(std::string_view app, std::string_view command) const noexcept {
  for (const std::string_view pattern : permissions) {
    const auto colon = pattern.find(':');
    if (colon == std::string_view::npos) continue;  // not of the form: grants nothing
    if (glob(pattern.substr(0, colon), app) && glob(pattern.substr(colon + 1), command))
      return true;
  }
  return false;
}

std::string_view key_use_name(KeyUse use) noexcept {
  switch (use) {
    case KeyUse::required:
      return "required";
    case KeyUse::optional:
      return "optional";
    case KeyUse::none:
      return "none";
  }
  return "none";
}

Answer Answer::of(Bytes encoded, ExchangeId exchange) {
  Answer answer;
  answer.exchange = exchange;
  answer.reply = std::make_shared<const Bytes>(std::move(encoded));
  return answer;
}
Answer Answer::of(const Reply& reply, ExchangeId exchange) { return of(reply.encode(), exchange); }
Answer Answer::of(Failure failure) {
  Answer answer;
  answer.kind = Kind::failure;
  answer.failure = std::move(failure);
  return answer;
}
Answer Answer::pending(ExchangeId exchange) {
  Answer answer;
  answer.kind = Kind::pending;
  answer.exchange = exchange;
  return answer;
}
Answer Answer::in_doubt(ExchangeId exchange) {
  Answer answer = pending(exchange);
  answer.kind = Kind::in_doubt;
  return answer;
}

Digest fingerprint_of(const CommandSpec& spec, const Command& command, std::uint32_t version) {
  if (spec.projection) return idempotency::fingerprint(spec.name, version, spec.projection(command));
  if (!command.canonical.empty()) return idempotency::fingerprint(spec.name, version, command.canonical);
  // Of no door. What has no canonical form is covered as it is.
  Bytes canonical;
  const bool has_one = !check_json(command.payload) && !canonical_json(command.payload, canonical);
  return idempotency::fingerprint(spec.name, version, has_one ? canonical : command.payload);
}

std::optional<Digest> earlier_fingerprint_of(const CommandSpec& spec, const Command& command, std::uint32_t version) {
  if (spec.projection || command.canonical == command.payload) return std::nullopt;
  return idempotency::fingerprint(spec.name, version, command.payload);
}

Registry::Registry(store::Store& store, idempotency::Keys& keys, IdSource& ids,
                   RegistryOptions options)
    : store_(store),
      keys_(keys),
      ids_(ids),
      options_(options),
      audit_log_(std::make_shared<AuditLog>(store, options.max_audit_buffer)),
      refusals_(std::make_unique<Refusals>()) {}
Registry::~Registry() = default;

Status Registry::add(CommandSpec spec) {
  if (!valid_name(spec.name))
    return fail(FailureKind::invalid_argument, "bad_command_name",
                "command name '" + spec.name + "': expected 1–64 of a–z 0–9 - _ .");
  if (!spec.handler)
    return fail(FailureKind::invalid_argument, "no_handler",
                "command '" + spec.name + "' has no handler");
  if (spec.version == 0)
    return fail(FailureKind::invalid_argument, "bad_version",
                "command '" + spec.name + "': versions count from 1");
  if (spec.permission.empty()) spec.permission = spec.name;
  auto& versions = specs_[spec.name];
  const auto version = spec.version;
  if (versions.contains(version))
    return fail(FailureKind::already_exists, "command_exists",
                "command '" + spec.name + "' version " + std::to_string(version) +
                    " is registered already");
  versions.emplace(version, std::make_shared<const CommandSpec>(std::move(spec)));
  return {};
}

Result<std::shared_ptr<const CommandSpec>> Registry::find(std::string_view name,
                                                          std::uint32_t version) const {
  const auto found = specs_.find(name);
  if (found == specs_.end())
    return fail(FailureKind::not_found, "unknown_command",
                "there is no command '" + std::string(beginning_of(name, 64)) +
                    "'; GET /v1/commands lists them");
  const auto& versions = found->second;
  if (version == 0) return versions.rbegin()->second;
  if (const auto spec = versions.find(version); spec != versions.end()) return spec->second;
  std::string have;
  for (const auto& [v, spec] : versions) have += (have.empty() ? "" : ", ") + std::to_string(v);
  return fail(FailureKind::invalid_argument, "unsupported_version",
              "command '" + std::string(name) + "' has no version " + std::to_string(version) +
                  "; it has " + have);
}

std::vector<std::shared_ptr<const CommandSpec>> Registry::commands() const {
  std::vector<std::shared_ptr<const CommandSpec>> all;
  for (const auto& [name, versions] : specs_)
    for (const auto& [version, spec] : versions) all.push_back(spec);
  return all;
}

std::string Registry::describe() const {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const auto& spec : commands()) {
    nlohmann::ordered_json item{{"name", spec->name},
                                {"version", spec->version},
                                {"summary", spec->summary},
                                {"app", spec->app},
                                {"permission", spec->permission},
                                {"anonymous", spec->anonymous},
                                {"shadow", spec->shadow},
                                {"idempotency", key_use_name(spec->idempotency)},
                                {"key_ttl_ms", spec->keys.ttl.count()},
                                {"duplicates_wait", spec->keys.wait},
                                {"max_payload_bytes", spec->max_payload}};
    if (!spec->input_schema.empty()) {
      auto schema = nlohmann::ordered_json::parse(spec->input_schema, nullptr, false);
      if (!schema.is_discarded()) item["input_schema"] = std::move(schema);
    }
    list.push_back(std::move(item));
  }
  return nlohmann::ordered_json{{"commands", std::move(list)}}.dump();
}

void Registry::audit(store::AuditRow row) { audit_log_->add(std::move(row)); }

void Registry::count_refused(const Failure& failure, bool shadow) {
  if (options_.metrics == nullptr) return;
  options_.metrics
      ->counter("sluice_requests_refused_total", "Requests refused before they took effect, by the code they were told",
                {{"code", code_of(failure)}, {"traffic", shadow ? "shadow" : "live"}})
      .add();
}

void Registry::refused(store::AuditRow row, const Failure& failure, bool stranger, std::string_view client,
                       Instant now, bool shadow) {
  count_refused(failure, shadow);
  const bool denied = failure.kind() == FailureKind::unauthenticated || failure.kind() == FailureKind::forbidden;
  if (denied) denied_.fetch_add(1, std::memory_order_relaxed);
  row.outcome = denied ? store::AuditOutcome::denied : store::AuditOutcome::error;
  row.detail = code_of(failure);
  if (stranger) {
    const auto before = refusals_->row(row.detail + '\n' + row.principal, now);
    if (!before) return;
    if (!client.empty()) row.detail.append(" from ").append(client);
    if (*before > 0) row.detail += ", " + std::to_string(*before) + " more before";
  }
  // A stranger chooses these words.
  row.command = printable(row.command, kShownCommand);
  audit(std::move(row));
}

RegistryStats Registry::stats() const noexcept {
  const auto get = [](const std::atomic<std::uint64_t>& n) {
    return n.load(std::memory_order_relaxed);
  };
  return {get(dispatched_), get(replayed_), get(denied_), get(failed_), get(audit_log_->lost)};
}

}  // namespace sluice::rpc
