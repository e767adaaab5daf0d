#include "transport/http/routes.hpp"

#include <algorithm>
#include <charconv>

#include "sluice/idempotency/key_header.hpp"
#include "sluice/rpc/json_check.hpp"

namespace sluice::transport {

namespace {

constexpr std::string_view kCommands = "/v1/commands";
constexpr std::string_view kTransactions = "/v1/transactions";

template <class T>
bool number(std::string_view text, T& out) noexcept {
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, out);
  return !text.empty() && error == std::errc() && at == end;
}

std::string quoted(std::string_view text) {
  std::string shown(text.substr(0, 64));
  for (char& c : shown)
    if (c < 0x20 || c == 0x7F) c = '?';
  return "'" + shown + "'";
}

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

Route route_of(Method method, std::string_view target) noexcept {
  Route route;
  const auto mark = target.find('?');
  const auto path = target.substr(0, mark);
  if (mark != std::string_view::npos) route.query = target.substr(mark + 1);
  using Kind = Route::Kind;
  const bool reads = method == Method::get || method == Method::head;
  const auto is = [&](Kind kind, bool matches) {
    route.kind = kind;
    route.method_matches = matches;
    return route;
  };
  if (path.starts_with(kCommands)) {
    auto rest = path.substr(kCommands.size());
    if (rest.empty()) return is(Kind::commands, reads);
    if (rest.front() != '/' || rest.size() == 1) return route;
    route.name = rest.substr(1);
    return is(Kind::command, method == Method::post);
  }
  if (path.starts_with(kTransactions)) {
    auto rest = path.substr(kTransactions.size());
    if (rest.empty()) return is(Kind::transactions, reads);
    if (rest.front() != '/' || rest.size() == 1) return route;
    route.name = rest.substr(1);
    return is(Kind::transaction, reads);
  }
  if (path == "/openapi.json") return is(Kind::openapi, reads);
  if (path == "/healthz") return is(Kind::healthz, reads);
  if (path == "/readyz") return is(Kind::readyz, reads);
  if (path == "/metrics") return is(Kind::metrics, reads);
  if (path == "/") return is(Kind::home, reads);
  return route;
}

std::string_view query_value(std::string_view query, std::string_view name) noexcept {
  while (!query.empty()) {
    const auto pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const auto equals = pair.find('=');
    if (pair.substr(0, equals) == name && equals != std::string_view::npos)
      return pair.substr(equals + 1);
  }
  return {};
}

bool usable_correlation(std::string_view text) noexcept {
  return !text.empty() && text.size() <= 128 && std::ranges::all_of(text, [](char c) {
    return c > 0x20 && c < 0x7F && c != '"' && c != '\\';
  });
}

Result<std::shared_ptr<const rpc::Principal>> authenticate(const HttpRequest& request,
                                                           const HttpHooks& hooks) {
  const std::string_view header = request.authorization;
  if (header.empty()) return nullptr;
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer =
      header.size() > kScheme.size() &&
      std::ranges::equal(header.substr(0, kScheme.size()), kScheme,
                         [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
  if (!bearer)
    return fail(FailureKind::unauthenticated, "bad_authorization",
                "Authorization: expected 'Bearer <token>'");
  if (!hooks.authenticate)
    return fail(FailureKind::unauthenticated, "unknown_token", "no tokens are known here");
  return hooks.authenticate(header.substr(kScheme.size()));
}

Status decode_command(HttpRequest& request, std::string_view name, const HttpOptions& options,
                      const rpc::Registry& registry, Instant now, rpc::Command& out) {
  if (request.repeated)
    return fail(bad("repeated_header", "a header that may stand once stands twice"));
  out.version = 0;
  if (!request.version.empty() && (!number(request.version, out.version) || out.version == 0))
    return fail(bad("unsupported_version",
                    "X-Sluice-Version: expected a number from 1, got " + quoted(request.version)));
  out.name = name;
  auto spec = registry.find(out.name, out.version);
  if (!spec) return fail(std::move(spec).error());
  if (!request.content_type.empty() && !request.content_type.starts_with("application/json"))
    return fail(bad("unsupported_media_type", "Content-Type: expected application/json, got " +
                                                  quoted(request.content_type)));

  bool shadow = false;
  if (request.shadow == "true" || request.shadow == "1")
    shadow = true;
  else if (!request.shadow.empty() && request.shadow != "false" && request.shadow != "0")
    return fail(bad("bad_shadow",
                    "X-Sluice-Shadow: expected true or false, got " + quoted(request.shadow)));
  const std::string_view app = request.app.empty() ? std::string_view((*spec)->app) : request.app;
  auto ns = Namespace::parse(app);
  if (!ns || ns->shadow())
    return fail(
        bad("bad_app", "X-Sluice-App: expected 1–64 of a–z 0–9 - _ . , got " + quoted(app)));
  out.ns = shadow ? Namespace(app, true) : std::move(*ns);

  out.idempotency_key.reset();
  if (request.has_key) {
    auto key = idempotency::parse_key_header(request.key);
    if (!key) return fail(std::move(key).error());
    out.idempotency_key = std::move(*key);
  }
  Duration within = options.default_deadline;
  if (!request.deadline.empty()) {
    std::uint64_t ms = 0;
    if (!number(request.deadline, ms) || ms == 0)
      return fail(bad("bad_deadline", "X-Sluice-Deadline-Ms: expected milliseconds from 1, got " +
                                          quoted(request.deadline)));
    within = options.max_deadline;
    if (ms < static_cast<std::uint64_t>(
                 std::chrono::duration_cast<milliseconds>(options.max_deadline).count()))
      within = milliseconds(ms);
  }
  out.deadline = now + within;
  if (usable_trace(request.trace)) out.trace = request.trace;

  // The bytes that were checked are the bytes that are fingerprinted and handled.
  out.payload.swap(request.body);
  if (out.payload.empty()) out.payload = "{}";
  if (const auto problem = rpc::check_json(out.payload, options.max_json_depth))
    return fail(bad(problem->too_deep ? "json_too_deep" : "bad_json",
                    "the body is not JSON that can be taken: " + problem->to_string()));
  return {};
}

Result<TransactionQuery> decode_query(const Route& route) {
  TransactionQuery query;
  if (route.kind == Route::Kind::transaction) {
    const auto id = id_from_text(route.name);
    if (!id || *id == 0)
      return fail(FailureKind::not_found, "unknown_transaction",
                  "there is no transaction " + quoted(route.name));
    query.exchange = {*id};
    return query;
  }
  if (const auto limit = query_value(route.query, "limit"); !limit.empty())
    if (!number(limit, query.limit) || query.limit == 0 || query.limit > 1000)
      return fail(bad("bad_limit", "limit: expected 1–1000, got " + quoted(limit)));
  if (const auto before = query_value(route.query, "before"); !before.empty()) {
    const auto id = id_from_text(before);
    if (!id) return fail(bad("bad_before", "before: expected a transaction id"));
    query.before = {*id};
  }
  query.state = query_value(route.query, "state");
  if (!query.state.empty() && query.state != "in_doubt" && query.state != "open" && query.state != "paused")
    return fail(bad("bad_state", "state: expected open, in_doubt or paused, got " + quoted(query.state)));
  return query;
}

}  // namespace sluice::transport
