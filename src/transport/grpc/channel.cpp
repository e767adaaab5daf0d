#include <grpc/support/time.h>
#include <grpcpp/create_channel.h>

#include <algorithm>
#include <charconv>
#include <mutex>

#include "sluice/transport/grpc_channel.hpp"
#include "sluice/v1/commands.pb.h"
#include "transport/envelope.hpp"
#include "transport/grpc/codec.hpp"
#include "transport/grpc/metadata.hpp"
#include "transport/grpc/keepalive.hpp"
#include "transport/grpc/silence.hpp"
#include "transport/grpc/whole_process.hpp"
#include "transport/grpc/status.hpp"
#include "transport/grpc/tls.hpp"
#include "transport/grpc/wire.hpp"

namespace sluice::transport {

namespace {

constexpr const char* kExecute = "/sluice.v1.Commands/Execute";

Failure bad_header(std::string_view name) {
  return Failure(FailureKind::invalid_argument, "bad_header",
                 "header " + quoted(name) +
                     " cannot be sent: expected a lower-case name and a value of visible ASCII");
}

// As the header wants it: quoted when it is more than a plain word.
std::string key_text(const std::string& key) {
  std::string text = "\"";
  for (const char c : key) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + "\"";
}

// A gRPC channel; calls on it keep it alive.
struct Line {
  explicit Line(std::shared_ptr<grpc::Channel> c) : channel(std::move(c)), stub(channel) {}
  std::shared_ptr<grpc::Channel> channel;
  grpc::GenericStub stub;
  Silence silence;
};

// gRPC's own verdict; a callee that says so has something to say beside it.
bool out_of_time_here(const Wire& wire) {
  return wire.status.error_code() == grpc::DEADLINE_EXCEEDED && wire.status.error_details().empty() &&
         wire.context.GetServerTrailingMetadata().empty();
}

class GrpcChannel final : public rpc::Channel {
 public:
  /// `files`: null without files to watch.
  GrpcChannel(GrpcChannelOptions options, std::shared_ptr<TlsFiles> files)
      : options_(std::move(options)), files_(std::move(files)) {
    if (files_ == nullptr) line_ = open(credentials());
  }
  ~GrpcChannel() override { in_flight_->end_all(); }

  Task<Result<rpc::Response>> invoke(const rpc::RemoteCommand& command,
                                     const rpc::CallContext& context,
                                     const rpc::Request& request) override;

 private:
  Status prepare(Wire& wire, const rpc::RemoteCommand& command, const rpc::CallContext& context,
                 const rpc::Request& request, Duration within) const;
  Failure failure_of(const Wire& wire, const rpc::RemoteCommand& command) const;
  std::shared_ptr<Line> open(const std::shared_ptr<grpc::ChannelCredentials>& credentials) const;
  std::shared_ptr<Line> line(Instant now);
  /// Without files to watch.
  std::shared_ptr<grpc::ChannelCredentials> credentials() const {
    return options_.tls ? client_credentials({}) : grpc::InsecureChannelCredentials();
  }
  void unanswered(const std::shared_ptr<Line>& over, const Wire& wire, Instant now);

  const GrpcChannelOptions options_;
  const std::shared_ptr<TlsFiles> files_;
  std::mutex mutex_;
  std::shared_ptr<Line> line_;  // to the certificates of version_
  std::uint64_t version_ = 0;
  const std::shared_ptr<InFlight> in_flight_ = std::make_shared<InFlight>();
};

// With other certificates calls go over new connections; those under way end on theirs.
std::shared_ptr<Line> GrpcChannel::line(Instant now) {
  const auto content = files_ != nullptr ? files_->current(now) : nullptr;
  const std::lock_guard lock(mutex_);
  if (content != nullptr && content->version > version_) {
    version_ = content->version;
    line_ = open(client_credentials(*content));
  }
  return line_;
}

// A connection may be dead though its bytes are taken: by a proxy that lost the other side, by a process that
// hangs. Keepalive finds that late, so it is left for a new one. Of several addresses one that answers speaks for all.
void GrpcChannel::unanswered(const std::shared_ptr<Line>& over, const Wire& wire, Instant now) {
  const bool connected = wire.sent || over->channel->GetState(false) == GRPC_CHANNEL_READY;
  if (!connected || !over->silence.unanswered(now, options_.silence)) return;
  const auto content = files_ != nullptr ? files_->current(now) : nullptr;
  const auto fresh = open(content != nullptr ? client_credentials(*content) : credentials());
  {
    const std::lock_guard lock(mutex_);
    if (line_ != over) return;  // somebody else was first
    line_ = fresh;
  }
  if (options_.logger != nullptr)
    options_.logger->warn("nothing is answered on a connection: the next calls go over a new one",
                          {{"target", options_.target}});
}

Status GrpcChannel::prepare(Wire& wire, const rpc::RemoteCommand& command,
                            const rpc::CallContext& context, const rpc::Request& request,
                            Duration within) const {
  std::vector<std::pair<std::string, std::string>> metadata = context.headers;
  const auto put = [&](const char* name, std::string value) {
    if (!value.empty()) metadata.emplace_back(name, std::move(value));
  };
  if (!options_.token.empty()) put("authorization", "Bearer " + options_.token);
  if (!context.idempotency_key.empty()) put("idempotency-key", key_text(context.idempotency_key));
  put("traceparent", context.trace);
  put("x-correlation-id", context.correlation);
  // Shadow traffic never goes out unmarked, with or without the interceptor.
  const bool marked = std::ranges::any_of(
      metadata, [](const auto& pair) { return pair.first == "x-sluice-shadow"; });
  if (context.shadow() && !marked) put("x-sluice-shadow", "true");
  for (const auto& [name, value] : metadata) {
    if (!usable_metadata_name(name) || !usable_metadata_value(value)) return fail(bad_header(name));
    wire.context.AddMetadata(name, value);
  }
  wire.context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                         gpr_time_from_nanos(within.count(), GPR_TIMESPAN)));
  if (!command.method.empty()) {
    wire.request = to_buffer(*request.body);
    return {};
  }
  v1::ExecuteRequest message;
  message.set_name(command.callee.empty() ? command.name : command.callee);
  message.set_payload(*request.body);
  wire.request = to_buffer(message.SerializeAsString());
  return {};
}

Failure GrpcChannel::failure_of(const Wire& wire, const rpc::RemoteCommand& command) const {
  Failure failure = from_grpc_status(wire.status);
  const auto code = wire.status.error_code();
  // Source: gRPC proposal A6, "Pushback".
  const auto& trailing = wire.context.GetServerTrailingMetadata();
  if (const auto found = trailing.find("grpc-retry-pushback-ms"); found != trailing.end()) {
    const std::string_view text(found->second.data(), found->second.size());
    std::int64_t ms = -1;  // unreadable means: do not retry
    const auto [at, error] = std::from_chars(text.data(), text.data() + text.size(), ms);
    if (error != std::errc() || at != text.data() + text.size()) ms = -1;
    failure = failure.with_retry_after(milliseconds(ms));
  }
  if (!wire.status.error_details().empty()) return failure;  // the callee's own words

  std::string_view word;
  switch (code) {
    case grpc::DEADLINE_EXCEEDED:
      word = "deadline_exceeded";
      break;
    case grpc::UNAVAILABLE:
      word = wire.sent ? "connection_lost" : "cannot_connect";
      break;
    case grpc::CANCELLED:
      word = "cancelled_by_peer";
      break;
    case grpc::RESOURCE_EXHAUSTED:
      // gRPC's own words for an answer that it will not take; the command has run.
      if (!failure.detail().starts_with("Received message larger")) return failure;
      word = "answer_too_large";
      break;
    case grpc::UNKNOWN:
    case grpc::INTERNAL:
    case grpc::DATA_LOSS:
      word = "peer_failed";
      break;
    default:
      return failure;  // refused before it ran
  }
  FailureKind kind = failure.kind();
  if (!command.read_only && wire.sent)
    kind = FailureKind::unknown_outcome;
  else if (word != "deadline_exceeded")
    kind = FailureKind::unavailable;
  Failure told(kind, word,
               "'" + command.name + "' at " + options_.target + ": " + wire.status.error_message());
  if (const auto after = failure.retry_after()) told = told.with_retry_after(*after);
  return told;
}

Task<Result<rpc::Response>> GrpcChannel::invoke(const rpc::RemoteCommand& command,
                                                const rpc::CallContext& context,
                                                const rpc::Request& request) {
  const TaskContext& task = co_await current_context();
  const Instant now = task.lane->clock().now();
  const Duration within =
      task.deadline == kNever ? options_.default_deadline : task.deadline - now;
  if (within <= Duration::zero()) {
    Failure late(FailureKind::timeout, "deadline_exceeded", "no time is left to call " + options_.target);
    co_return fail(std::move(late));
  }
  const auto wire = std::make_shared<Wire>();
  if (const Status prepared = prepare(*wire, command, context, request, within); !prepared)
    co_return fail(prepared.error());
  if (!in_flight_->add(wire, options_.max_calls)) {
    Failure full(FailureKind::overloaded, "too_many_calls",
                 "as many calls of " + options_.target + " run as may run at once (" +
                     std::to_string(options_.max_calls) + ")");
    co_return fail(std::move(full));
  }
  const std::string method = command.method.empty() ? kExecute : "/" + command.method;
  wire->flights = in_flight_;
  const std::shared_ptr<Line> over = line(now);
  Answer answer(wire, over->stub, method);
  const FailureKind cut = co_await answer;
  if (!answer.begun()) in_flight_->remove(wire);
  if (cut == FailureKind::timeout && answer.begun()) unanswered(over, *wire, task.lane->clock().now());
  if (cut != FailureKind::none) {
    // gRPC may have sent it a moment ago without having said so.
    const bool maybe =
        answer.begun() && !command.read_only &&
        (wire->sent || over->channel->GetState(false) == GRPC_CHANNEL_READY);
    Failure why(maybe ? FailureKind::unknown_outcome : cut,
                !maybe                          ? "cancelled"
                : cut == FailureKind::timeout ? "deadline_exceeded"
                                                : "cancelled_after_sending",
                "'" + command.name + "' at " + options_.target + " was given up before its answer");
    co_return fail(std::move(why));
  }
  if (out_of_time_here(*wire))
    unanswered(over, *wire, task.lane->clock().now());
  else
    over->silence.heard();
  if (!wire->status.ok()) {
    Failure told = failure_of(*wire, command);
    co_return fail(std::move(told));
  }
  rpc::Response response;
  response.replayed = wire->context.GetServerTrailingMetadata().contains("idempotency-replayed");
  Result<std::string> bytes = from_buffer(wire->response);
  v1::ExecuteReply reply;
  bool good = bytes.has_value() && wire->answered_with_message;
  if (good && command.method.empty()) {
    good = reply.ParseFromString(*bytes);
    if (good) *bytes = std::move(*reply.mutable_body());
  }
  if (!good) {
    Failure unreadable(
        command.read_only ? FailureKind::unavailable : FailureKind::unknown_outcome, "bad_response",
        "the answer of '" + command.name + "' at " + options_.target + " is no message");
    co_return fail(std::move(unreadable));
  }
  response.body = std::make_shared<const Bytes>(*std::move(bytes));
  co_return response;
}

int as_ms(Duration duration) {
  return static_cast<int>(std::chrono::duration_cast<milliseconds>(duration).count());
}

std::shared_ptr<Line> GrpcChannel::open(const std::shared_ptr<grpc::ChannelCredentials>& credentials) const {
  const GrpcChannelOptions& options = options_;
  grpc::ChannelArguments arguments;
  arguments.SetLoadBalancingPolicyName(options.balancing);
  arguments.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  set_keepalive(arguments, options);
  // The first is also how long one attempt to connect may take.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, as_ms(options.connect_timeout));
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS,
                   std::min(100, as_ms(options.max_backoff)));
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, as_ms(options.max_backoff));
  // Retries are the resilience room's, under its budget.
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (!options.tls_server_name.empty())
    arguments.SetSslTargetNameOverride(options.tls_server_name);
  return std::make_shared<Line>(grpc::CreateCustomChannel(options.target, credentials, arguments));
}

}  // namespace

Result<std::shared_ptr<rpc::Channel>> make_grpc_channel(GrpcChannelOptions options) {
  if (options.target.empty())
    return fail(FailureKind::invalid_argument, "bad_target",
                "a gRPC channel needs a target: host:port or dns:///host:port");
  prepare_grpc();
  std::shared_ptr<TlsFiles> files;
  TlsPaths paths;
  paths.cert = options.tls_cert;
  paths.key = options.tls_key;
  paths.ca = options.tls_ca;
  if (options.tls && paths.any()) {
    Logger& logger = options.logger != nullptr ? *options.logger : null_logger();
    SLUICE_ASSIGN(files, TlsFiles::open(std::move(paths), options.tls_watch, logger));
  }
  return std::make_shared<GrpcChannel>(std::move(options), std::move(files));
}

}  // namespace sluice::transport
