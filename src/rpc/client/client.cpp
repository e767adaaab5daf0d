#include "sluice/rpc/client.hpp"

#include <algorithm>

#include "sluice/rpc/json_check.hpp"

namespace sluice::rpc {

namespace {

Failure unreadable(const RemoteCommand& command) {
  const std::string what = "the answer of '" + command.name + "' is no " +
                           (command.response_type.empty() ? "JSON text" : command.response_type);
  // It was answered, so it ran: what it did is all that is unknown.
  return command.read_only ? Failure(FailureKind::unavailable, "bad_response", what)
                           : Failure(FailureKind::unknown_outcome, "bad_response", what);
}

bool same(const RemoteCommand& a, const RemoteCommand& b) noexcept {
  return a.callee == b.callee && a.method == b.method && a.read_only == b.read_only && a.idempotent == b.idempotent &&
         a.request_type == b.request_type && a.response_type == b.response_type;
}

}  // namespace

Client::Client(std::shared_ptr<Channel> channel, std::vector<std::shared_ptr<Interceptor>> chain)
    : channel_(std::move(channel)), chain_(std::move(chain)) {
  SLUICE_ASSERT(channel_ != nullptr, "a client needs a channel");
}

const RemoteCommand& Client::add(RemoteCommand command) {
  const std::lock_guard lock(mutex_);
  for (const auto& known : commands_)
    if (known.name == command.name) {
      SLUICE_ASSERT(same(known, command), "a remote command is declared twice, differently");
      return known;
    }
  return commands_.emplace_back(std::move(command));
}

Task<Result<Response>> Client::call(const RemoteCommand& command, CallContext context, Bytes body) {
  const TaskContext& task = co_await current_context();
  if (command.read_only) context.idempotency_key.clear();  // nothing that could happen twice; callees refuse idle keys
  if (!command.read_only && !task.outside) {
    Failure refused(FailureKind::forbidden, "call_from_pure_stage",
                    "'" + command.name +
                        "' is not read-only: call it from a stage declared Effect::external, so "
                        "that an intent is durable before");
    co_return fail(std::move(refused));
  }
  Request request{std::make_shared<const Bytes>(std::move(body))};
  std::string what = "an interceptor or the channel threw something that is no std::exception";
  try {
    Next next(*this, command, 0);
    Task<Result<Response>> chain = next(context, request);
    Result<Response> response = co_await chain;
    co_return response;
  } catch (const std::exception& error) {
    what = error.what();
  } catch (...) {
  }
  Failure thrown(FailureKind::internal, "call_threw", "calling '" + command.name + "': " + what);
  co_return fail(std::move(thrown));
}

Task<Result<Response>> Client::invoke(const RemoteCommand& command, const CallContext& context,
                                      const Request& request) {
  Channel& channel = context.channel != nullptr ? *context.channel : *channel_;
  Task<Result<Response>> sent = channel.invoke(command, context, request);
  Result<Response> response = co_await sent;
  if (!response) co_return response;
  if (command.decode != nullptr)
    response->message = command.decode(*response->body);
  const bool good = command.decode != nullptr ? response->message != nullptr
                                              : !check_json(*response->body).has_value();
  if (!good) co_return fail(unreadable(command));
  co_return response;
}

Task<Result<Response>> Next::operator()(const CallContext& context, const Request& request) const {
  if (index_ == client_->chain_.size()) return client_->invoke(*command_, context, request);
  return client_->chain_[index_]->intercept(*command_, context, request,
                                            Next(*client_, *command_, index_ + 1));
}

}  // namespace sluice::rpc
