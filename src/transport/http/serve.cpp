// What a connection does with a whole request: the routes.
#include "transport/http/connection.hpp"
#include "transport/http/openapi.hpp"
#include "sluice/base/text.hpp"

namespace sluice::transport {

namespace {
Failure not_allowed(const char* detail, const char* allow) {
  return Failure(FailureKind::invalid_argument, kMethodNotAllowed, detail).with(std::string(kAllow), allow);
}
}  // namespace

void Connection::dispatch() {
  began_ = shared_.clock.now();
  shared_.requests.fetch_add(1, std::memory_order_relaxed);
  head_ = request_.method == Method::head;
  const Route route = route_of(request_.method, request_.target);
  const auto& hooks = shared_.hooks;
  // Source: RFC 9112, 3.2.
  if (request_.bad_host)
    return refuse_unnamed(Failure(FailureKind::invalid_argument, "bad_host",
                                  "HTTP/1.1 asks for one Host header: send it, and once"));
  if (route.kind == Route::Kind::none)
    return refuse_unnamed(Failure(FailureKind::not_found, "unknown_route",
                                  "nothing is served here; commands are at /v1/commands"));
  if (!route.method_matches)
    return refuse_unnamed(route.kind == Route::Kind::command
                              ? not_allowed("commands are sent with POST", "POST")
                              : not_allowed("this is read with GET", "GET, HEAD"));
  const auto health = [&](const std::function<Status()>& check, const std::function<std::string()>& body = {}) {
    const Status status = check ? check() : Status{};
    if (!status) return respond_problem(status.error());
    respond(200, "application/json", body ? body() : "{\"status\":\"ok\"}");
  };
  switch (route.kind) {
    case Route::Kind::none:
      return;
    case Route::Kind::command:
      return run_command(route.name);
    case Route::Kind::commands:
      if (may_read(route.path)) respond_json(shared_.registry.describe());
      return;
    case Route::Kind::openapi:
      if (may_read(route.path)) respond_json(openapi_document(shared_.registry));
      return;
    case Route::Kind::transaction:
    case Route::Kind::transactions:
      return run_query(route);
    case Route::Kind::healthz:
      return health(hooks.healthy);
    case Route::Kind::readyz:
      if (draining())
        return respond_problem(Failure(FailureKind::shutting_down, "the server is stopping"));
      return health(hooks.ready, hooks.ready_body);
    case Route::Kind::metrics:
      return respond(200, "text/plain; version=0.0.4", hooks.metrics ? hooks.metrics() : "");
    case Route::Kind::home:
      return respond(200, "text/html; charset=utf-8", hooks.home,
                     "Content-Security-Policy: default-src 'self'; frame-ancestors 'none'\r\n");
  }
}

void Connection::run_command(std::string_view name) {
  settle_correlation();
  invocation_.reset();
  auto& command = invocation_.command;
  // Who asks comes before what: a stranger is not told which commands there are, nor how to ask.
  auto principal = authenticate(request_, shared_.hooks);
  if (!principal) return refuse_request(name, std::move(principal).error());
  command.principal = std::move(*principal);
  auto decoded = decode_command(request_, name, shared_.options, shared_.registry, began_, command);
  if (!decoded) return refuse_request(name, std::move(decoded).error());
  command.correlation = correlation_;
  command.client = client_;
  invocation_.lane = &loop_.lane();
  invocation_.owner = this;
  invocation_.done = [](rpc::Invocation& invocation, rpc::Answer answer) noexcept {
    auto* self = static_cast<Connection*>(invocation.owner);
    self->shared_.running.fetch_sub(1, std::memory_order_relaxed);
    self->answer(answer);
    self->unref();  // the invocation's
  };
  ref();
  shared_.running.fetch_add(1, std::memory_order_relaxed);
  shared_.registry.dispatch(invocation_);
}

// With its audit row.
void Connection::refuse_request(std::string_view what, Failure failure) {
  settle_correlation();
  const Asked asked{request_.authorization, what, correlation_, client_, invocation_.command.principal.get(), shared_.clock.now(),
                    says_shadow(request_.shadow)};
  respond_problem(transport::refuse(shared_.registry, shared_.hooks.name_of, asked, std::move(failure)));
}

// What names no command that could have run counts, and has no row.
void Connection::refuse_unnamed(const Failure& failure) {
  shared_.registry.count_refused(failure, says_shadow(request_.shadow));
  respond_problem(failure);
}

// A request that ended before it was whole. One that was for a command and is too long is a refused command.
void Connection::refuse_broken(const Failure& failure) {
  const Route route = route_of(request_.method, request_.target);
  if (failure.code() != kBodyTooLarge || route.kind != Route::Kind::command || !route.method_matches) return refuse_unnamed(failure);
  invocation_.reset();
  auto principal = authenticate(request_, shared_.hooks);
  if (!principal) return refuse_request(route.name, std::move(principal).error());
  invocation_.command.principal = *std::move(principal);
  refuse_request(route.name, failure);
}

// False: refused, and answered.
bool Connection::may_read(std::string_view path, std::string_view permission) {
  invocation_.reset();
  const std::string what = "GET " + std::string(path);
  const auto no = [&](Failure failure) {
    refuse_request(what, std::move(failure));
    return false;
  };
  auto principal = authenticate(request_, shared_.hooks);
  if (!principal) return no(std::move(principal).error());
  if (*principal == nullptr) return no(needs_token());
  invocation_.command.principal = *std::move(principal);
  if (request_.repeated)
    return no(Failure(FailureKind::invalid_argument, "repeated_header", "a header that may stand once stands twice"));
  const std::string_view app = request_.app.empty() ? std::string_view("default") : request_.app;
  if (permission.empty() || invocation_.command.principal->may(app, permission)) return true;
  return no(Failure(FailureKind::forbidden, "forbidden",
                    "this token does not grant '" + std::string(beginning_of(app, 64)) + ":" + std::string(permission) + "'"));
}

void Connection::run_query(const Route& route) {
  // One transaction is its own app's, which who keeps it looks at; a list is asked for by app.
  const bool one = route.kind == Route::Kind::transaction;
  if (!may_read(route.path, one ? std::string_view() : "transactions.read")) return;
  const std::string_view app = request_.app.empty() ? std::string_view("default") : request_.app;
  auto query = decode_query(route);
  if (!query) return refuse_request("GET " + std::string(route.path), std::move(query).error());
  const auto deadline = deadline_of(request_, shared_.options, began_);
  if (!deadline) return refuse_request("GET " + std::string(route.path), deadline.error());
  query->deadline = *deadline;
  const bool named = invocation_.command.principal->may(app, "transactions.read");
  if (!shared_.hooks.transactions)
    return respond_problem(
        Failure(FailureKind::not_found, "unknown_route", "no transactions are kept here"));
  query->principal = invocation_.command.principal;
  query->lane = &loop_.lane();
  ref();
  shared_.running.fetch_add(1, std::memory_order_relaxed);
  shared_.hooks.transactions(std::move(*query), [this, named, what = "GET " + std::string(route.path)](Result<std::string> json) {
    shared_.running.fetch_sub(1, std::memory_order_relaxed);
    // What is not there has no app: only who may read the app that is named is told so, and others as of one they may not.
    if (!json && !named && json.error().kind() == FailureKind::not_found)
      json = fail(FailureKind::forbidden, "forbidden", "this token grants transactions.read for no app that has this transaction");
    if (!json && json.error().kind() == FailureKind::forbidden)
      refuse_request(what, std::move(json).error());
    else
      respond_json(std::move(json));
    unref();
  });
}

}  // namespace sluice::transport
