// Calls to other services: an invoker (Channel) behind an ordered chain of interceptors. Knows no
// wire: src/transport/grpc has the gRPC channel, tests have their own. docs/how-to/call-services.md
// shows it whole.
#pragma once
#include <array>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sluice/base/bytes.hpp"
#include "sluice/base/namespace.hpp"
#include "sluice/base/task.hpp"
#include "sluice/resilience/protector.hpp"

namespace sluice::rpc {

/// What is known of a command of another service before any call of it. Kept by its Client.
struct RemoteCommand {
  std::string name;  ///< in rules, logs and metrics: "code.reserve"
  /// The callee's name for it, where that differs: several commands of ours, each with a protector of its
  /// own, may be one of the callee's. Empty: the same.
  std::string callee;
  /// What the wire calls it; gRPC: "package.Service/Method". Empty: the callee is a Sluice server
  /// that knows the command by its name, and bodies are JSON text.
  std::string method;
  bool read_only = false;   ///< changes nothing: may be called from any stage, repeated and cached
  bool idempotent = false;  ///< a repetition without a key changes nothing more: may be repeated
  /// Makes the message of an answer's bytes; null when they are none, which is a failure of the
  /// callee. Empty: the answer must be JSON text.
  std::shared_ptr<const void> (*decode)(ByteView body) = nullptr;
  /// Names of the messages, for who shows them ("shop.v1.ReserveRequest"). Empty: JSON text.
  std::string request_type, response_type;
};

class Channel;

/// One call, as the interceptors see and change it. Copied for each attempt.
struct CallContext {
  Namespace ns;
  std::string idempotency_key;  ///< the same for every repetition of what is meant once; or empty
  std::string trace;            ///< W3C traceparent of the caller
  std::string correlation;      ///< the same in the logs of both sides
  std::string hot_key;          ///< for hot-key quotas of the rules
  resilience::Priority priority = resilience::Priority::normal;
  std::uint32_t weight = 1;    ///< calls that it counts for, in limits on calls per time
  std::uint8_t partition = 0;  ///< of the places, below resilience::kPartitions
  Channel* channel = nullptr;  ///< instead of the client's; outlives the call
  std::uint32_t attempt = 1;  ///< set by the resilience interceptor
  /// Further headers, lower-case names.
  std::vector<std::pair<std::string, std::string>> headers;
  bool shadow() const noexcept { return ns.shadow(); }
};

struct Request {
  std::shared_ptr<const Bytes> body;
};

struct Response {
  std::shared_ptr<const Bytes> body;
  std::shared_ptr<const void> message;  ///< made by RemoteCommand::decode
  bool replayed = false;                ///< the callee had answered under this key before
};

/// The invoker at the end of a chain. Thread-safe.
class Channel {
 public:
  virtual ~Channel() = default;
  /// One exchange with the callee, on the caller's lane, until the deadline or cancellation of the
  /// task. Fails unknown_outcome when a command that is not read-only was sent and it is not known
  /// whether it ran; other kinds mean that nothing took effect. What the arguments refer to outlives
  /// the task.
  virtual Task<Result<Response>> invoke(const RemoteCommand& command, const CallContext& context,
                                        const Request& request) = 0;
};

class Client;

/// The rest of the chain. Cheap to copy; lives as long as its client. May be called more than once,
/// also side by side; what its arguments refer to must outlive the task it gives.
class Next {
 public:
  Task<Result<Response>> operator()(const CallContext& context, const Request& request) const;
  const RemoteCommand& command() const noexcept { return *command_; }

 private:
  friend class Client;
  Next(Client& client, const RemoteCommand& command, std::size_t index) noexcept
      : client_(&client), command_(&command), index_(index) {}
  Client* client_;
  const RemoteCommand* command_;
  std::size_t index_;
};

/// One station of the chain. Thread-safe: shared by all calls of all lanes. What the references
/// name outlives the task. Change a copy of the context to change what comes after.
class Interceptor {
 public:
  virtual ~Interceptor() = default;
  virtual std::string_view name() const noexcept = 0;
  virtual Task<Result<Response>> intercept(const RemoteCommand& command, const CallContext& context,
                                           const Request& request, Next next) = 0;
};

/// Thread-safe. Channel and interceptors are used until the last call has ended; calls end before
/// the client does.
class Client {
 public:
  /// `chain` from the outermost to the innermost. The order that is meant for the stock ones: log,
  /// trace, metrics, shadow, cache, resilience.
  Client(std::shared_ptr<Channel> channel, std::vector<std::shared_ptr<Interceptor>> chain);
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  /// Makes a command known; the reference is what calls are made with and lives as long as this.
  /// The same name again gives the same command if all else is the same; else it is a defect.
  const RemoteCommand& add(RemoteCommand command);

  /// Through the chain, on the caller's lane, until the deadline of the task. A command that is not
  /// read_only fails forbidden (call_from_pure_stage) from a stage of a flow that is not declared
  /// Effect::external. Nothing throws.
  Task<Result<Response>> call(const RemoteCommand& command, CallContext context, Bytes body);

  const std::vector<std::shared_ptr<Interceptor>>& chain() const noexcept { return chain_; }

 private:
  friend class Next;
  Task<Result<Response>> invoke(const RemoteCommand& command, const CallContext& context,
                                const Request& request);
  const std::shared_ptr<Channel> channel_;
  const std::vector<std::shared_ptr<Interceptor>> chain_;
  std::mutex mutex_;
  std::deque<RemoteCommand> commands_;  // stable addresses
};

/// Typed by the messages of the wire, which are known by their member functions
/// alone:
///   const auto reserve = rpc::remote<ReserveRequest, ReserveResponse>(client, {.name = "code.reserve",
///                                          .method = "shop.v1.Codes/Reserve", .idempotent = true});
///   Result<std::shared_ptr<const ReserveResponse>> r = co_await task;   // task = reserve(context, request)
template <class RequestMessage, class ResponseMessage>
class Remote {
 public:
  using Answer = Result<std::shared_ptr<const ResponseMessage>>;
  Remote(Client& client, const RemoteCommand& command) noexcept
      : client_(&client), command_(&command) {}

  Task<Answer> operator()(CallContext context, const RequestMessage& request) const {
    return send(*client_, *command_, std::move(context), request.SerializeAsString());
  }
  const RemoteCommand& command() const noexcept { return *command_; }

 private:
  static Task<Answer> send(Client& client, const RemoteCommand& command, CallContext context,
                           Bytes body) {
    Task<Result<Response>> task = client.call(command, std::move(context), std::move(body));
    Result<Response> response = co_await task;
    if (!response) co_return fail(std::move(response).error());
    co_return std::static_pointer_cast<const ResponseMessage>(response->message);
  }
  Client* client_;
  const RemoteCommand* command_;
};

template <class RequestMessage, class ResponseMessage>
Remote<RequestMessage, ResponseMessage> remote(Client& client, RemoteCommand command) {
  command.decode = [](ByteView body) -> std::shared_ptr<const void> {
    auto message = std::make_shared<ResponseMessage>();
    if (!message->ParseFromArray(body.data(), static_cast<int>(body.size()))) return nullptr;
    return message;
  };
  command.request_type = RequestMessage().GetTypeName();
  command.response_type = ResponseMessage().GetTypeName();
  return {client, client.add(std::move(command))};
}

}  // namespace sluice::rpc
