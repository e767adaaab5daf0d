#include "transport/grpc/call.hpp"

#include <grpc/support/time.h>
#include <grpcpp/server_context.h>

#include <algorithm>

#include "sluice/base/reply.hpp"
#include "transport/envelope.hpp"
#include "transport/grpc/metadata.hpp"
#include "transport/grpc/status.hpp"

namespace sluice::transport {

namespace {

Failure stopping() { return Failure(FailureKind::shutting_down, "the server is stopping"); }

// Answers a call that never gets a lane.
grpc::ServerUnaryReactor* refused(grpc::CallbackServerContext& context, const Failure& failure) {
  auto* reactor = context.DefaultReactor();
  reactor->Finish(to_grpc_status(failure));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* Call::begin(const std::shared_ptr<GrpcShared>& door, const Codec& codec,
                                      grpc::CallbackServerContext& context,
                                      const grpc::ByteBuffer& request,
                                      grpc::ByteBuffer& response) {
  GrpcShared& shared = *door;
  shared.calls.fetch_add(1, std::memory_order_relaxed);
  // Counted before draining is looked at: who drains sees the call, or the call sees the drain.
  bool ignored = false;
  const bool shadow = says_shadow(value_of(context, "x-sluice-shadow", ignored));
  shared.running.fetch_add(1);
  const bool full = shared.running_of[shadow].fetch_add(1) >= shared.most(shadow);
  if (full || shared.draining.load()) {
    shared.running_of[shadow].fetch_sub(1);
    shared.running.fetch_sub(1);
    shared.refused.fetch_add(1, std::memory_order_relaxed);
    if (!full) return refused(context, stopping());
    return refused(context, shared.too_many("calls", shadow));
  }
  auto& lane = shared.lanes[shared.next_lane.fetch_add(1, std::memory_order_relaxed) %
                            shared.lanes.size()];
  auto* call = new Call(door, lane, codec, context, request, response, shadow);
  lane.lane->post(call->start_job_);
  return call;
}

Call::Call(std::shared_ptr<GrpcShared> shared, CallLane& lane, const Codec& codec,
           grpc::CallbackServerContext& context, const grpc::ByteBuffer& request,
           grpc::ByteBuffer& response, bool shadow)
    : shared_(std::move(shared)),
      lane_(lane),
      codec_(codec),
      context_(context),
      request_(request),
      response_(response),
      shadow_(shadow),
      began_(shared_->clock.now()) {
  start_job_.self = cancel_job_.self = this;
  start_job_.run = [](Job* job) noexcept { static_cast<CallJob*>(job)->self->start(); };
  cancel_job_.run = [](Job* job) noexcept {
    auto* self = static_cast<CallJob*>(job)->self;
    const bool late = self->shared_->clock.now() >= self->invocation_.command.deadline;
    self->cancel(late ? FailureKind::timeout : FailureKind::cancelled);
    self->unref();
  };
}

void Call::OnCancel() {
  shared_->cancelled.fetch_add(1, std::memory_order_relaxed);
  ref();
  lane_.lane->post(cancel_job_);
}

void Call::start() {
  next_ = lane_.head;
  link_ = &lane_.head;
  if (next_ != nullptr) next_->link_ = &next_;
  lane_.head = this;
  ref();  // kept until this returns: the job's own becomes the invocation's
  if (auto decoded = decode(); !decoded) {
    shared_->bad_requests.fetch_add(1, std::memory_order_relaxed);
    refuse(told(std::move(decoded).error()));
    unref();
  } else {
    invocation_.lane = lane_.lane;
    invocation_.owner = this;
    invocation_.done = [](rpc::Invocation& invocation, rpc::Answer answer) noexcept {
      auto* self = static_cast<Call*>(invocation.owner);
      self->answer(answer);
      self->unref();
    };
    shared_->registry.dispatch(invocation_);
  }
  unref();
}

Status Call::decode() {
  auto& command = invocation_.command;
  Envelope envelope;
  bool* repeated = &envelope.repeated;
  bool ignored = false;
  const auto correlation = value_of(context_, "x-correlation-id", ignored);
  command.correlation = usable_correlation(correlation) ? std::string(correlation)
                                                        : id_to_text(shared_->registry.ids().next());
  envelope.app = value_of(context_, "x-sluice-app", *repeated);
  envelope.shadow = value_of(context_, "x-sluice-shadow", *repeated);
  envelope.key = value_of(context_, "idempotency-key", *repeated, &envelope.has_key);
  envelope.trace = value_of(context_, "traceparent", ignored);
  invocation_.replay_only = value_of(context_, "x-sluice-replay-only", *repeated) == "true";
  const auto authorization = value_of(context_, "authorization", *repeated);
  command.deadline = deadline();
  command.client = context_.peer();
  const Status read = codec_.decode(request_, command);
  // Who asks comes before what: a stranger is not told which commands there are, nor how to ask.
  SLUICE_ASSIGN(command.principal, authenticate_bearer(authorization, shared_->hooks.authenticate));
  SLUICE_TRY(read);
  const std::string name = command.name;  // the envelope's decoder writes to the command
  SLUICE_TRY(decode_envelope(envelope, name, command.version, shared_->registry, command));
  if (invocation_.replay_only && !command.idempotency_key)
    return fail(FailureKind::invalid_argument, "idempotency_key_required",
                "x-sluice-replay-only asks for the reply stored under an idempotency-key: send the key with it");
  return check_payload(command, shared_->options.max_json_depth, "grpc.max_json_depth");
}

// What the caller of a refused call is told, with its audit row.
Failure Call::told(Failure failure) {
  const auto& command = invocation_.command;
  bool ignored = false;
  const auto authorization = value_of(context_, "authorization", ignored);
  const std::string_view name = command.name.empty() ? std::string_view("gRPC") : command.name;
  const Asked asked{authorization, name, command.correlation, command.client, command.principal.get(), shared_->clock.now(), shadow_};
  return transport::refuse(shared_->registry, shared_->hooks.name_of, asked, std::move(failure));
}

Instant Call::deadline() const {
  // gRPC keeps deadlines on clocks of its own: only what remains is carried over to ours.
  const gpr_timespec at = context_.raw_deadline();
  Duration within = shared_->options.default_deadline;
  if (gpr_time_cmp(at, gpr_inf_future(at.clock_type)) != 0) {
    const auto remains = gpr_time_sub(at, gpr_now(at.clock_type));
    within = std::min<Duration>(milliseconds(gpr_time_to_millis(remains)),
                                shared_->options.max_deadline);
  }
  return shared_->clock.now() + within;
}

void Call::note(const char* key, const std::string& value) {
  if (usable_metadata_name(key) && usable_metadata_value(value))
    context_.AddTrailingMetadata(key, value);
}

void Call::answer(const rpc::Answer& answer) {
  if (finished_) return;  // abandoned; the outcome is stored all the same
  using Kind = rpc::Answer::Kind;
  if (answer.replayed) note("idempotency-replayed", "true");
  if (answer.exchange) note("x-sluice-transaction", to_string(answer.exchange));
  switch (answer.kind) {
    case Kind::reply:
      return answer_reply(answer);
    case Kind::failure:
      if (answer.failure->kind() == FailureKind::internal)
        shared_->logger.error("a command failed inside",
                             {{"command", invocation_.command.name},
                              {"failure", answer.failure->to_string()}},
                             invocation_.command.correlation);
      return refuse(*answer.failure, answer.exchange);
    case Kind::pending:
      return refuse(Failure(FailureKind::pending, {},
                            "the transaction is not settled yet: ask its status, or repeat the "
                            "call with the same idempotency-key"),
                    answer.exchange);
    case Kind::in_doubt:
      return refuse(Failure(FailureKind::in_doubt, {},
                            "the transaction is decided, but not settled everywhere: ask its "
                            "status, or repeat the call with the same idempotency-key"),
                    answer.exchange);
  }
}

void Call::answer_reply(const rpc::Answer& answer) {
  const auto reply = Reply::decode(*answer.reply);
  if (!reply) return refuse(reply.error(), answer.exchange);
  for (const auto& [name, value] : reply->headers) note(name.c_str(), value);
  // Nothing of this one call in it: a replay says the same, byte for byte.
  if (reply->kind != FailureKind::none)
    return finish(to_grpc_status(reply->to_failure(), {{}, answer.exchange, reply->body}));
  auto encoded = codec_.encode(reply->body);
  if (!encoded) return refuse(encoded.error(), answer.exchange);
  response_.Swap(&*encoded);
  finish(grpc::Status::OK);
}

void Call::refuse(const Failure& failure, ExchangeId exchange) {
  finish(to_grpc_status(failure, {invocation_.command.correlation, exchange, {}}));
}

void Call::abandon() {
  if (!finished_) refuse(stopping());
}

void Call::finish(const grpc::Status& status) {
  note("x-correlation-id", invocation_.command.correlation);
  if (Histogram* latency = shared_->latency[shadow_]) latency->observe(shared_->clock.now() - began_);
  finished_ = true;
  *link_ = next_;
  if (next_ != nullptr) next_->link_ = link_;
  Finish(status);
  shared_->running_of[shadow_].fetch_sub(1);
  shared_->running.fetch_sub(1);
}

}  // namespace sluice::transport
