// What a stream's messages were answered, asked for one by one under their keys.
#include <grpc/support/time.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>

#include "sluice/stream/failure.hpp"
#include "sluice/transport/grpc_stream_client.hpp"
#include "sluice/v1/commands.pb.h"
#include "transport/grpc/keepalive.hpp"
#include "transport/grpc/metadata.hpp"
#include "transport/grpc/status.hpp"
#include "transport/grpc/stream_channel.hpp"
#include "transport/grpc/tls.hpp"
#include "transport/grpc/whole_process.hpp"

namespace sluice::transport {
namespace {

std::string text_of(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata, const char* key) {
  const auto at = metadata.find(key);
  return at == metadata.end() ? std::string() : std::string(at->second.data(), at->second.size());
}

// A message that is still at work is waited for by the server: not for long, and not for each of many.
constexpr Duration kPatience = seconds(2);
constexpr int kWaitedMax = 5;

bool is_unsettled(const StreamReport::Failed& one) { return one.what == stream::traits(stream::FailureClass::unsettled).name; }

class Replies final : public StreamReplies {
 public:
  Replies(const StreamClientOptions& options, std::shared_ptr<grpc::Channel> channel)
      : options_(options), channel_(std::move(channel)) {}

  Result<StreamReply> of(std::uint64_t sequence, const StreamMessage& message) override {
    const std::string key = message.idempotency_key.empty() ? stream_key(options_.id, sequence) : message.idempotency_key;
    if (!usable_metadata_value(key)) return fail(FailureKind::not_found, "no_reply", "a key that no server takes");
    grpc::ClientContext context;
    if (!options_.channel.token.empty()) context.AddMetadata("authorization", "Bearer " + options_.channel.token);
    if (!options_.app.empty()) context.AddMetadata("x-sluice-app", options_.app);
    if (options_.shadow) context.AddMetadata("x-sluice-shadow", "true");
    // As it was sent: the stream's messages carry their keys as the header's text.
    context.AddMetadata("idempotency-key", key);
    context.AddMetadata("x-sluice-replay-only", "true");
    context.set_deadline(gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC),
        gpr_time_from_nanos(std::chrono::nanoseconds(options_.channel.default_deadline).count(), GPR_TIMESPAN)));
    v1::ExecuteRequest request;
    request.set_name(message.name);
    request.set_version(message.version);
    request.set_payload(message.payload);
    v1::ExecuteReply reply;
    const grpc::internal::RpcMethod method("/sluice.v1.Commands/Execute", grpc::internal::RpcMethod::NORMAL_RPC, channel_);
    const grpc::Status status = grpc::internal::BlockingUnaryCall(channel_.get(), method, &context, request, &reply);
    const auto& trailing = context.GetServerTrailingMetadata();
    StreamReply out;
    out.transaction = text_of(trailing, "x-sluice-transaction");
    if (status.ok()) {
      out.body = std::move(*reply.mutable_body());
      return out;
    }
    Failure failure = from_grpc_status(status);
    if (text_of(trailing, "idempotency-replayed") != "true") return fail(std::move(failure));
    out.failure = std::move(failure);
    return out;
  }

 private:
  const StreamClientOptions& options_;
  const std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace

Result<std::shared_ptr<grpc::Channel>> connect_stream(const GrpcChannelOptions& options) {
  prepare_grpc();
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (options.tls) {
    TlsPaths paths;
    paths.ca = options.tls_ca;
    paths.cert = options.tls_cert;
    paths.key = options.tls_key;
    TlsContent content;
    if (paths.any()) {
      SLUICE_ASSIGN(content, read_tls(paths));
    }
    credentials = client_credentials(content);
  }
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  set_keepalive(arguments, options);
  if (!options.tls_server_name.empty()) arguments.SetSslTargetNameOverride(options.tls_server_name);
  return grpc::CreateCustomChannel(options.target, credentials, arguments);
}

Result<std::unique_ptr<StreamReplies>> StreamReplies::open(const StreamClientOptions& options) {
  SLUICE_ASSIGN(auto channel, connect_stream(options.channel));
  return std::make_unique<Replies>(options, std::move(channel));
}

Status ask_unsettled(const StreamClientOptions& options, StreamSource& source, StreamReport& report) {
  if (report.unsettled == 0) return {};
  StreamClientOptions asking = options;
  asking.channel.default_deadline = std::min(options.channel.default_deadline, kPatience);
  SLUICE_ASSIGN(const auto replies, StreamReplies::open(asking));
  int waited = 0;
  for (auto& one : report.first_failures) {
    if (!is_unsettled(one)) continue;
    if (options.stop && options.stop()) break;
    SLUICE_ASSIGN(const auto message, source.at(one.sequence));
    if (!message) break;
    const auto reply = replies->of(one.sequence, *message);
    if (!reply && reply.error().kind() == FailureKind::unavailable) break;
    if (!reply && reply.error().kind() == FailureKind::timeout && ++waited == kWaitedMax) break;
    if (!reply) continue;
    --report.unsettled;
    if (!reply->failure) {
      ++report.succeeded;
      one.sequence = 0;  // told no more
      continue;
    }
    one.what = stream::traits(stream::classify_failure(*reply->failure)).name;
    one.failure = *reply->failure;
    one.retryable = stream::is_retryable(one.failure);
    ++report.failed[one.what];
  }
  std::erase_if(report.first_failures, [](const auto& one) { return one.sequence == 0; });
  return {};
}

}  // namespace sluice::transport
