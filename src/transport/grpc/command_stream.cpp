#include "transport/grpc/command_stream.hpp"

#include <algorithm>
#include <charconv>

#include "sluice/base/reply.hpp"
#include "sluice/rpc/remembered.hpp"
#include "sluice/transport/grpc_stream_client.hpp"
#include "transport/envelope.hpp"
#include "transport/grpc/metadata.hpp"
#include "transport/grpc/status.hpp"
#include "transport/grpc/stream_reply.hpp"

namespace sluice::transport {
namespace {

constexpr std::uint64_t kMarkEvery = 256;         // messages between two lazy marks
constexpr Duration kAuthenticateEvery = seconds(1);  // a revoked token ends its streams this soon

bool shadow_says(grpc::CallbackServerContext& call) {
  bool repeated = false;  // told by read_metadata()
  return says_shadow(value_of(call, "x-sluice-shadow", repeated));
}

Failure bad(std::string_view code, std::string detail) {
  return Failure(FailureKind::invalid_argument, code, std::move(detail));
}

// Ended before it began.
class Refused final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  explicit Refused(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerReadReactor<grpc::ByteBuffer>* CommandStream::begin(const std::shared_ptr<StreamShared>& shared,
                                                                grpc::CallbackServerContext& context,
                                                                grpc::ByteBuffer& response) {
  GrpcShared& door = *shared->door;
  const bool shadow = shadow_says(context);
  if (door.open_streams[shadow].fetch_add(1, std::memory_order_relaxed) >= door.most(shadow)) {
    door.open_streams[shadow].fetch_sub(1, std::memory_order_relaxed);
    door.refused.fetch_add(1, std::memory_order_relaxed);
    return new Refused(stream_status(door.too_many("streams", shadow), context));
  }
  auto& lane = door.lanes[door.next_lane.fetch_add(1, std::memory_order_relaxed) % door.lanes.size()];
  auto* const stream = new CommandStream(shared, *lane.lane, context, response);
  return static_cast<GrpcStream*>(stream)->begin();
}

CommandStream::CommandStream(std::shared_ptr<StreamShared> shared, Lane& lane, grpc::CallbackServerContext& context,
                             grpc::ByteBuffer& response)
    : GrpcStream(shadow_says(context) ? *shared->shadow : *shared->pipeline, lane, context),
      shared_(std::move(shared)),
      response_(response),
      shadow_(shadow_says(context)) {}

void CommandStream::prepare() {
  if (Status read = read_metadata(); !read) return end_with(told("ExecuteStream", std::move(read).error()));
  if (id_.empty()) return ready();
  mark(take_over(), &CommandStream::taken_over);
}

void CommandStream::taken_over(Status taken) {
  if (concluding_) {
    ledger_.reset();  // the stream ended meanwhile: nothing was done under this epoch
    return answer_call();
  }
  if (!taken) {
    ledger_.reset();
    return end_with(taken.error());
  }
  const std::uint64_t done = ledger_->progress().done;
  resume_after(done);
  expected_ = done + 1;
  call().AddInitialMetadata("x-sluice-stream-done", std::to_string(done));
  StartSendInitialMetadata();
  ready();
}

// One task on the store at a time. What follows is a turn of its own: the task's frame is still on the
// stack when it is done.
void CommandStream::mark(Task<Status> task, void (CommandStream::*then)(Status)) {
  marking_now_ = true;
  marked_ = then;
  marking_context_ = {&this->lane(), nullptr, kNever};
  marking_ = std::move(task);
  hold();
  turn_.self = this;
  turn_.run = [](Job* job) noexcept {
    auto& stream = *static_cast<Turn*>(job)->self;
    stream.marking_now_ = false;
    (stream.*stream.marked_)(stream.marking_.take());
    stream.let_go();
  };
  const auto done = [](void* self) noexcept {
    auto& stream = *static_cast<CommandStream*>(self);
    stream.lane().post(stream.turn_);
  };
  if (marking_.start(marking_context_, done, this)) done(this);
}

Status CommandStream::read_metadata() {
  GrpcShared& door = *shared_->door;
  const gpr_timespec at = call().raw_deadline();
  if (gpr_time_cmp(at, gpr_inf_future(at.clock_type)) != 0)
    deadline_ = door.clock.now() + milliseconds(gpr_time_to_millis(gpr_time_sub(at, gpr_now(at.clock_type))));
  bool repeated = false, ignored = false;
  const auto correlation = value_of(call(), "x-correlation-id", ignored);
  correlation_ = usable_correlation(correlation) ? std::string(correlation) : id_to_text(door.registry.ids().next());
  SLUICE_TRY(authenticate());
  app_ = value_of(call(), "x-sluice-app", repeated);
  (void)value_of(call(), "x-sluice-shadow", repeated);
  order_space_ = space_of(app_);
  own_order_ = order_space_ + '#' + id_to_text(door.registry.ids().next());
  id_ = value_of(call(), "x-sluice-stream", repeated);
  const auto epoch = value_of(call(), "x-sluice-stream-epoch", repeated);
  if (repeated) return fail(bad("repeated_header", "x-sluice-stream and x-sluice-stream-epoch may stand once each"));
  if (id_.empty() && epoch.empty()) return {};
  SLUICE_TRY(check_stream_id(id_));
  const auto [end, error] = std::from_chars(epoch.data(), epoch.data() + epoch.size(), epoch_);
  if (error != std::errc() || end != epoch.data() + epoch.size() || epoch_ == 0)
    return fail(bad("bad_stream", "x-sluice-stream: expected an id together with x-sluice-stream-epoch, a number from 1; got id " + quoted(id_) +
                                      ", epoch " + quoted(epoch)));
  if (shared_->marks == nullptr)
    return fail(FailureKind::precondition_failed, "not_durable",
                "this server has no durable store, so streams cannot be resumed: leave x-sluice-stream out");
  if (!principal_)
    return fail(FailureKind::unauthenticated, "anonymous_stream", "a stream that can be resumed needs a token");
  own_order_ = order_space_ + '@' + id_;
  return {};
}

// Length-prefixed, so that no two join to the same text. Live and shadow never wait for each other.
// Text, for it is a row's key too.
std::string CommandStream::space_of(std::string_view app) const {
  std::string space;
  for (const std::string_view part : {principal_ ? std::string_view(principal_->id) : std::string_view(), app,
                                      std::string_view(shadow_ ? "shadow" : "live")})
    space.append(std::to_string(part.size())).append(":").append(part);
  return space;
}

Status CommandStream::authenticate() {
  bool repeated = false;
  const auto authorization = value_of(call(), "authorization", repeated);
  if (repeated) return fail(bad("repeated_header", "authorization may stand once"));
  SLUICE_ASSIGN(principal_, authenticate_bearer(authorization, shared_->door->hooks.authenticate));
  authenticated_at_ = this->lane().turn_time();
  return {};
}

// What the caller is told of what is refused, with its audit row.
Failure CommandStream::told(std::string_view command, Failure failure) {
  GrpcShared& door = *shared_->door;
  bool ignored = false;
  const std::string peer = call().peer();
  const Asked asked{value_of(call(), "authorization", ignored), command, correlation_, peer, principal_.get(), door.clock.now(), shadow_};
  return transport::refuse(door.registry, door.hooks.name_of, asked, std::move(failure));
}

Task<Status> CommandStream::take_over() {
  ledger_ = std::make_unique<stream::Ledger>(*shared_->marks, store::KvKey{std::string(stream::kMarksApp), std::string(stream::kMarks), order_space_ + id_});
  auto opening = ledger_->open(epoch_);
  Status opened = co_await opening;
  co_return opened;
}

bool CommandStream::accept(Item& item) {
  auto& request = item.extra.request;
  const auto bytes = from_buffer(item.message);
  item.message.Clear();
  if (!bytes || !request.ParseFromString(*bytes)) {
    end_with(bad("bad_message", "message " + std::to_string(expected_) + " is no sluice.v1.ExecuteStreamRequest"), expected_);
    return false;
  }
  if (ledger_ == nullptr) {
    ++expected_;
    return true;
  }
  if (request.sequence() == expected_) {
    ++expected_;
    return true;
  }
  if (request.sequence() != 0 && request.sequence() < expected_) {
    ++duplicates_;
    return false;
  }
  end_with(Failure(FailureKind::ordering, "gap",
                   "expected message " + std::to_string(expected_) + ", got " +
                       (request.sequence() == 0 ? "one without a sequence" : std::to_string(request.sequence()))),
           expected_);
  return false;
}

void CommandStream::order_by(const Item& item, std::string& out) {
  const auto& request = item.extra.request;
  if (request.ordering_key().empty()) {
    out += own_order_;
    return;
  }
  // A call that names no app runs each command in the command's own, and there the key is one with that
  // of calls that name it.
  const auto spec = app_.empty() ? shared_->door->registry.find(request.name(), request.version())
                                 : Result<std::shared_ptr<const rpc::CommandSpec>>(nullptr);
  out += app_.empty() && spec ? space_of((*spec)->app) : order_space_;
  out += '=';
  out += request.ordering_key();
}

Status CommandStream::decode(Item& item) {
  const auto& request = item.extra.request;
  GrpcShared& door = *shared_->door;
  auto& command = item.extra.invocation.command;
  bool repeated = false, ignored = false;
  command.principal = principal_;
  command.correlation = correlation_;
  command.client = call().peer();
  command.payload = request.payload();
  command.deadline = std::min(item.context().deadline, deadline_);
  std::string derived;
  Envelope envelope;
  envelope.app = value_of(call(), "x-sluice-app", repeated);
  envelope.shadow = value_of(call(), "x-sluice-shadow", repeated);
  envelope.trace = value_of(call(), "traceparent", ignored);
  envelope.key = request.idempotency_key();
  envelope.has_key = !request.idempotency_key().empty();
  envelope.repeated = repeated;
  if (!envelope.has_key && ledger_ != nullptr) {
    const auto spec = door.registry.find(request.name(), request.version());
    if (spec && (*spec)->idempotency != rpc::KeyUse::none) {
      derived = stream_key(id_, item.sequence());
      envelope.key = derived;
      envelope.has_key = true;
    }
  }
  SLUICE_TRY(decode_envelope(envelope, request.name(), request.version(), door.registry, command));
  return check_payload(command, door.options.max_json_depth, "grpc.max_json_depth");
}

void CommandStream::handle_message(Item& item) {
  auto& extra = item.extra;
  rpc::Invocation& invocation = extra.invocation;
  if (invocation.lane != nullptr) invocation.reset();
  extra.stream = this;
  extra.stored = true;
  // It failed under a connection before; later ones of its key may have had their effect since.
  if (ledger_ != nullptr)
    if (const stream::Fallen* before = ledger_->failed_ahead(item.sequence()))
      return settle(item, fail(before->failure), true);
  if (this->lane().turn_time() - authenticated_at_ >= kAuthenticateEvery)
    if (const Status known = authenticate(); !known) {
      // Not its failure: it did not run, and who comes again with a good token sends it again.
      end_with(told("ExecuteStream", known.error()), item.sequence());
      return settle(item, fail(FailureKind::ordering, "stream_ended",
                               "message " + std::to_string(item.sequence()) + " was not run: the token is no longer good"));
    }
  if (Status decoded = decode(item); !decoded) return settle(item, fail(told(extra.request.name(), std::move(decoded).error())));
  invocation.lane = &this->lane();
  invocation.owner = &item;
  if (ledger_ != nullptr) invocation.keep_key_for = stream::kKeysKept;
  invocation.done = [](rpc::Invocation& one, rpc::Answer answer) noexcept {
    auto& of = *static_cast<Item*>(one.owner);
    of.extra.gone.unlink();
    of.extra.stream->answered(of, answer);
  };
  extra.gone.link(
      this->scope(),
      [](void* owner) noexcept {
        auto& of = *static_cast<Item*>(owner);
        of.extra.invocation.scope.cancel(of.extra.stream->scope().reason());
      },
      &item);
  shared_->door->registry.dispatch(invocation);
}

void CommandStream::answered(Item& item, const rpc::Answer& answer) {
  using Kind = rpc::Answer::Kind;
  if (answer.kind == Kind::failure)  // a transaction that the store never told of has left nothing that is known of
    item.extra.stored = rpc::remembered(*answer.failure) && !answer.exchange;
  const auto named = [&](Failure failure) {
    return answer.exchange ? failure.with("transaction", to_string(answer.exchange)) : failure;
  };
  // The call's deadline is also each command's, and mostly comes here first. What it cut is not done: who
  // comes again sends it again, under the same key.
  const bool late = answer.kind == Kind::pending ||
                    (answer.kind == Kind::failure && answer.failure->kind() == FailureKind::timeout);
  if (late && shared_->door->clock.now() >= deadline_)
    return settle(item, fail(named(Failure(FailureKind::timeout, "cancelled", "the stream's deadline passed"))));
  switch (answer.kind) {
    case Kind::reply: {
      const auto reply = Reply::decode(*answer.reply);
      if (!reply) return settle(item, fail(reply.error()));
      if (reply->kind == FailureKind::none) return settle(item, {}, answer.replayed);
      return settle(item, fail(named(reply->to_failure())), answer.replayed);
    }
    case Kind::failure:
      return settle(item, fail(named(*answer.failure)));
    case Kind::pending:
      return settle(item, fail(named(Failure(FailureKind::pending, {}, "the transaction is not settled yet"))));
    case Kind::in_doubt:
      return settle(item, fail(named(Failure(FailureKind::in_doubt, {}, "decided, but not settled everywhere"))));
  }
}

void CommandStream::advanced(std::uint64_t sequence, stream::FailureClass what, bool replayed) noexcept {
  if (ledger_ == nullptr) return;
  const Failure* failure = nullptr;
  if (what != stream::FailureClass::none) {
    const auto& told = this->summary().first_failures;
    const auto at = std::ranges::lower_bound(told, sequence, {}, &stream::Fallen::sequence);
    if (at != told.end() && at->sequence == sequence) failure = &at->failure;
  }
  ledger_->advance(sequence, what, replayed, failure, kFailuresOfStream);
  if (!marking_now_ && !not_marked_ && ledger_->unsaved() >= kMarkEvery) save_mark();
}

// What released its key would run again at a resume, then after later messages of its ordering key.
bool CommandStream::keep_failure(stream::Delivery& delivery, const Failure& failure) {
  auto& item = static_cast<Item&>(delivery);
  if (ledger_ == nullptr || item.extra.stored || not_marked_) return true;
  ledger_->fail_ahead({item.sequence(), stream::classify_failure(failure), failure}, kFailuresOfStream);
  keeping_.push_back(&item);
  if (!marking_now_) save_mark();
  return false;
}

void CommandStream::save_mark() {
  saving_ = std::exchange(keeping_, {});
  mark(ledger_->save(), &CommandStream::saved);
}

void CommandStream::saved(Status status) {
  if (!status) not_marked_ = status.error();
  if (concluding_) return conclude();  // nothing is in flight: nobody waits
  std::vector<Item*> told = std::exchange(saving_, {});
  if (!status) told.insert(told.end(), keeping_.begin(), keeping_.end()), keeping_.clear();
  for (Item* item : told) kept(*item, status);  // the last one may conclude
  if (!status) end_with(status.error());        // concludes, at once or when what runs has ended
  if (!concluding_ && !marking_now_ && !keeping_.empty()) save_mark();
}

void CommandStream::conclude() {
  concluding_ = true;
  if (marking_now_) return;  // its end concludes
  // The last mark is written before the answer, so that a resume finds all of it.
  if (ledger_ != nullptr && !not_marked_) {
    ledger_->close(expected_ - 1);
    if (ledger_->changed()) return save_mark();
  }
  answer_call();
}

void CommandStream::answer_call() {
  if (finished()) return let_go();
  const stream::Summary& sum = this->summary();
  call().AddTrailingMetadata("x-correlation-id", correlation_);
  if (ledger_ != nullptr) call().AddTrailingMetadata("x-sluice-stream-done", std::to_string(ledger_->progress().done));
  if (sum.pressure) call().AddTrailingMetadata("x-sluice-pressure", "true");
  // Without the mark a resume would not find what this answer tells.
  const std::optional<Failure> ended_by = sum.ended_by ? sum.ended_by : not_marked_;
  auto reply = stream_reply(sum, ledger_ == nullptr ? nullptr : &ledger_->progress(), duplicates_);
  if (!ended_by) {
    fit_answer(reply);
    response_ = to_buffer(reply.SerializeAsString());
    return finish(grpc::Status::OK);
  }
  fit_trailer(reply);
  call().AddTrailingMetadata("x-sluice-stream-summary-bin", reply.SerializeAsString());
  if (const auto after = ended_by->retry_after())
    call().AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(after->count()));
  grpc::Status status = to_grpc_status(*ended_by, {correlation_, {}, {}});
  if (const int code = stream::grpc_code(*ended_by); code != status.error_code())
    status = {static_cast<grpc::StatusCode>(code), status.error_message(), status.error_details()};
  finish(status);
}

}  // namespace sluice::transport
