#include "transport/envelope.hpp"

#include <algorithm>

#include "sluice/base/text.hpp"
#include "sluice/idempotency/key_header.hpp"
#include "sluice/rpc/json_canonical.hpp"

namespace sluice::transport {

namespace {

Failure bad(std::string_view code, std::string detail) {
  return Failure(FailureKind::invalid_argument, code, std::move(detail));
}

bool usable_trace(std::string_view text) noexcept {
  // version-trace-parent-flags, lower-case hexadecimal. Source: W3C Trace Context, section 3.2.
  if (text.size() != 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  return std::ranges::all_of(
      text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-'; });
}

}  // namespace

std::string quoted(std::string_view text) {
  std::string shown(beginning_of(text, 64));
  for (char& c : shown)
    if (c < 0x20 || c == 0x7F) c = '?';
  return "'" + shown + "'";
}

bool usable_correlation(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 128 && std::ranges::all_of(text, [](char c) {
    return c > 0x20 && c < 0x7F && c != '"' && c != '\\';
  });
}

std::string_view token_of(std::string_view authorization) noexcept {
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer =
      authorization.size() > kScheme.size() &&
      std::ranges::equal(authorization.substr(0, kScheme.size()), kScheme,
                         [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
  return bearer ? authorization.substr(kScheme.size()) : std::string_view();
}

Result<std::shared_ptr<const rpc::Principal>> authenticate_bearer(
    std::string_view authorization, const Authenticate& authenticate) {
  if (authorization.empty()) return nullptr;
  const auto token = token_of(authorization);
  if (token.empty())
    return fail(FailureKind::unauthenticated, "bad_authorization",
                "Authorization: expected 'Bearer <token>'");
  if (!authenticate)
    return fail(FailureKind::unauthenticated, "unknown_token", "no tokens are known here");
  return authenticate(token);
}

Failure needs_token() {
  return Failure(FailureKind::unauthenticated, "unauthenticated",
                 "this needs a token: Authorization: Bearer <token>");
}

Failure refuse(rpc::Registry& registry, const NameOf& name_of, const Asked& asked, Failure failure) {
  const bool stranger = asked.principal == nullptr;
  if (stranger && failure.kind() != FailureKind::unauthenticated) {
    const auto spec = registry.find(asked.command, 0);
    if (!spec || !(*spec)->anonymous) failure = needs_token();
  }
  store::AuditRow row;
  if (!stranger) row.principal = asked.principal->id;
  else if (const auto token = token_of(asked.authorization); name_of && !token.empty()) row.principal = name_of(token);
  row.command = asked.command;
  row.correlation = asked.correlation;
  registry.refused(std::move(row), failure, stranger, asked.client, asked.now, asked.shadow);
  return failure;
}

bool says_shadow(std::string_view value) noexcept { return value == "true" || value == "1"; }

Status decode_envelope(const Envelope& envelope, std::string_view name, std::uint32_t version,
                       const rpc::Registry& registry, rpc::Command& out) {
  if (envelope.repeated)
    return fail(bad("repeated_header", "a header that may stand once stands twice"));
  out.name = name;
  out.version = version;
  auto spec = registry.find(out.name, out.version);
  if (!spec) return fail(std::move(spec).error());

  const bool shadow = says_shadow(envelope.shadow);
  if (!shadow && !envelope.shadow.empty() && envelope.shadow != "false" && envelope.shadow != "0")
    return fail(bad("bad_shadow",
                    "X-Sluice-Shadow: expected true or false, got " + quoted(envelope.shadow)));
  const std::string_view app = envelope.app.empty() ? std::string_view((*spec)->app) : envelope.app;
  auto ns = Namespace::parse(app);
  if (!ns || ns->shadow())
    return fail(
        bad("bad_app", "X-Sluice-App: expected 1–64 of a–z 0–9 - _ . , got " + quoted(app)));
  out.ns = shadow ? Namespace(app, true) : std::move(*ns);

  out.idempotency_key.reset();
  if (envelope.has_key) {
    auto key = idempotency::parse_key_header(envelope.key);
    if (!key) return fail(std::move(key).error());
    out.idempotency_key = std::move(*key);
  }
  if (usable_trace(envelope.trace)) out.trace = envelope.trace;
  return {};
}

Status check_payload(rpc::Command& command, std::size_t max_json_depth, std::string_view depth_key) {
  if (command.payload.empty()) command.payload = "{}";
  constexpr std::string_view kRefused = "the body is not JSON that can be taken: ";
  if (const auto problem = rpc::check_json(command.payload, max_json_depth))
    return fail(bad(problem->too_deep ? "json_too_deep" : "bad_json",
                    std::string(kRefused) + problem->to_string() + (problem->too_deep ? " (" + std::string(depth_key) + ")" : "")));
  // Readers differ in which of the two they take: what was authorised would not be what is handled.
  if (const auto problem = rpc::canonical_json(command.payload, command.canonical))
    return fail(bad("repeated_member", std::string(kRefused) + problem->to_string()));
  return {};
}

}  // namespace sluice::transport
