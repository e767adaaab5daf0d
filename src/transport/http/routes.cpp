#include "transport/http/routes.hpp"

#include <algorithm>
#include <charconv>

#include "transport/envelope.hpp"

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

// Digits alone, and more than a number has room for.
bool beyond_64_bits(std::string_view text) noexcept {
  std::uint64_t ignored = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ignored);
  return error == std::errc::result_out_of_range && end == text.data() + text.size();
}

Failure bad(std::string_view code, std::string detail) {
  return Failure(FailureKind::invalid_argument, code, std::move(detail));
}

// Up to its parameters, in any case. Source: RFC 9110, 8.3.1.
bool is_json(std::string_view type) noexcept {
  type = type.substr(0, type.find(';'));
  while (type.ends_with(' ') || type.ends_with('\t')) type.remove_suffix(1);
  return std::ranges::equal(type, std::string_view("application/json"),
                            [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a + 32 : a) == b; });
}

}  // namespace

Route route_of(Method method, std::string_view target) noexcept {
  Route route;
  const auto mark = target.find('?');
  const auto path = route.path = target.substr(0, mark);
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

Result<std::shared_ptr<const rpc::Principal>> authenticate(const HttpRequest& request,
                                                           const HttpHooks& hooks) {
  return authenticate_bearer(request.authorization, hooks.authenticate);
}

Result<Instant> deadline_of(const HttpRequest& request, const HttpOptions& options, Instant now) {
  if (request.deadline.empty()) return now + options.default_deadline;
  std::uint64_t ms = 0;
  if (beyond_64_bits(request.deadline))
    ms = UINT64_MAX;  // bounded like any long one
  else if (!number(request.deadline, ms) || ms == 0)
    return fail(bad("bad_deadline", "X-Sluice-Deadline-Ms: expected milliseconds from 1, got " + quoted(request.deadline)));
  const auto most = static_cast<std::uint64_t>(std::chrono::duration_cast<milliseconds>(options.max_deadline).count());
  return now + (ms < most ? Duration(milliseconds(ms)) : options.max_deadline);
}

Status decode_command(HttpRequest& request, std::string_view name, const HttpOptions& options,
                      const rpc::Registry& registry, Instant now, rpc::Command& out) {
  std::uint32_t version = 0;
  if (!request.repeated && !request.version.empty() &&
      (!number(request.version, version) || version == 0))
    return fail(bad("unsupported_version",
                    "X-Sluice-Version: expected a number from 1, got " + quoted(request.version)));
  const Envelope envelope{request.app,   request.shadow,  request.key,
                          request.trace, request.has_key, request.repeated};
  SLUICE_TRY(decode_envelope(envelope, name, version, registry, out));
  if (!request.content_type.empty() && !is_json(request.content_type))
    return fail(bad("unsupported_media_type", "Content-Type: expected application/json (or none), got " +
                                                  quoted(request.content_type) +
                                                  "; with curl: -H 'Content-Type: application/json'"));
  if (!request.content_encoding.empty() && request.content_encoding != "identity")
    return fail(bad("unsupported_media_type", "Content-Encoding: bodies are taken as they are, not compressed; got " +
                                                  quoted(request.content_encoding)));

  SLUICE_ASSIGN(out.deadline, deadline_of(request, options, now));

  // What was checked is what is fingerprinted and handled.
  out.payload.swap(request.body);
  return check_payload(out, options.max_json_depth, "http.max_json_depth");
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
    if (!id) return fail(bad("bad_before", "before: expected the id of a transaction, 13 characters as lists show it, got " + quoted(before)));
    query.before = {*id};
  }
  query.state = query_value(route.query, "state");
  if (!query.state.empty() && query.state != "in_doubt" && query.state != "open" && query.state != "paused")
    return fail(bad("bad_state", "state: expected open, in_doubt or paused, got " + quoted(query.state)));
  return query;
}

}  // namespace sluice::transport
