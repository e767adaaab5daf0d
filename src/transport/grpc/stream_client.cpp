#include "sluice/transport/grpc_stream_client.hpp"

#include <grpc/support/time.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <charconv>

#include "sluice/idempotency/key_header.hpp"
#include "sluice/stream/ledger.hpp"
#include "sluice/v1/commands.pb.h"
#include "transport/envelope.hpp"
#include "transport/grpc/status.hpp"
#include "transport/grpc/stream_channel.hpp"

namespace sluice::transport {
namespace {

constexpr Duration kFirstPause = milliseconds(50);
constexpr Duration kLongestPause = seconds(2);
constexpr Duration kTellEvery = milliseconds(100);
// One may begin before the server has marked what the one before came to; the next finds it.
constexpr int kStandstill = 2;

constexpr std::uint64_t kFirstWindow = 256;
constexpr std::uint64_t kGrowth = 4;  // of a window over the one before
// After a refusal, windows of the size that the server took until a larger one is tried: each refusal costs a pause.
constexpr int kWindowsAsTaken = 16;
constexpr std::uint64_t kEpochs = 60'000;  // more, when it is not told which one the stream is at
constexpr Duration kLongestToldPause = seconds(60);  // whatever the server says

using Writer = grpc::ClientWriter<v1::ExecuteStreamRequest>;

std::optional<std::uint64_t> number(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata, const char* key) {
  const auto at = metadata.find(key);
  if (at == metadata.end()) return std::nullopt;
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(at->second.begin(), at->second.end(), value);
  if (error != std::errc() || end != at->second.end()) return std::nullopt;
  return value;
}

// What a refusal as stale says that the stream is at.
std::optional<std::uint64_t> held_epoch(const Failure& why) {
  for (const auto& [key, value] : why.details()) {
    std::uint64_t held = 0;
    if (key == stream::kHeldEpoch && std::from_chars(value.data(), value.data() + value.size(), held).ec == std::errc()) return held;
  }
  return std::nullopt;
}

// One send_stream().
class Sending {
 public:
  Sending(const StreamClientOptions& options, StreamSource& source, Clock& clock,
          const std::function<void(Duration)>& sleep)
      : options_(options), source_(source), clock_(clock), sleep_(sleep) {}

  Result<StreamReport> run() {
    // Higher than any before it, also from another machine: the clocks' difference is waited out.
    epoch_ = static_cast<std::uint64_t>(clock_.wall().time_since_epoch().count());
    moved_at_ = clock_.now();
    Duration pause = kFirstPause;
    std::shared_ptr<grpc::Channel> channel;
    while (true) {
      if (channel == nullptr) {
        SLUICE_ASSIGN(channel, connect_stream(options_.channel));
      }
      const std::uint64_t before = began_at_ = report_.done;
      const Status status = window(channel);
      if (status && (report_.complete || stopped_)) return report_;
      if (report_.done > before) pause = kFirstPause;
      if (status) continue;
      channel.reset();  // gRPC's own would wait before it connects again
      const Failure& why = why_ = status.error();
      const bool stale = why.code() == "stale_epoch";
      const bool again = stale || why.kind() == FailureKind::unavailable || why.kind() == FailureKind::timeout ||
                         why.kind() == FailureKind::cancelled || why.kind() == FailureKind::overloaded ||
                         why.kind() == FailureKind::shutting_down || why.kind() == FailureKind::unknown_outcome;
      if (!again) return fail(why);
      if (why.code() == "grpc_8" && why.detail().find("larger than max") != std::string_view::npos)  // gRPC's words
        return fail(too_long(why));
      if (clock_.now() - std::max(moved_at_, may_have_moved_at_) >= options_.give_up_after) return fail(gave_up(why));
      if (options_.stop && options_.stop()) return report_;
      if (stale) epoch_ = held_epoch(why).value_or(epoch_ + kEpochs);
      ++report_.resumed;
      Duration wait = pause;
      if (why.kind() == FailureKind::overloaded) wait = std::max(wait, refused(why));
      rest(wait);
      pause = std::min(pause * 2, kLongestPause);
    }
  }

 private:
  // The next window has what the server took of this one; how long to stay away when that was nothing.
  Duration refused(const Failure& why) {
    const std::uint64_t taken = report_.done - began_at_;
    size_ = std::max<std::uint64_t>(1, std::min(size_, taken));
    as_taken_ = kWindowsAsTaken;
    const milliseconds told = why.retry_after().value_or(milliseconds(0));
    return taken > 0 ? Duration::zero() : std::min<Duration>(told, kLongestToldPause);
  }
  // In pieces, because it may be stopped meanwhile.
  void rest(Duration left) {
    for (; left > Duration::zero() && !(options_.stop && options_.stop()); left -= kLongestPause)
      sleep_(std::min(left, kLongestPause));
  }
  Failure gave_up(const Failure& why) const {
    return Failure(FailureKind::unavailable, "gave_up",
                   "stream '" + options_.id + "': nothing moved for " +
                       std::to_string(std::chrono::duration_cast<seconds>(options_.give_up_after).count()) + " s (" +
                       why.to_string() + "); at least " + std::to_string(report_.done) +
                       " messages are done, come again with the same id");
  }
  // Which one was refused is not told; if any of the call was, its longest would have been.
  Failure too_long(const Failure& why) const {
    return Failure(FailureKind::too_large, "message_too_large",
                   "stream '" + options_.id + "': message " + std::to_string(longest_) + " has " + std::to_string(longest_bytes_) +
                       " bytes, which is longer than the server takes (its grpc.max_message_bytes): " + std::string(why.detail()))
        .with(std::string(kTooLongMessage), std::to_string(longest_));
  }
  // One call: what is done, the next messages, the answer.
  Status window(const std::shared_ptr<grpc::Channel>& channel) {
    grpc::ClientContext context;
    if (!options_.channel.token.empty()) context.AddMetadata("authorization", "Bearer " + options_.channel.token);
    if (!options_.app.empty()) context.AddMetadata("x-sluice-app", options_.app);
    if (options_.shadow) context.AddMetadata("x-sluice-shadow", "true");
    context.AddMetadata("x-sluice-stream", options_.id);
    context.AddMetadata("x-sluice-stream-epoch", std::to_string(++epoch_));
    context.set_deadline(gpr_time_add(
        gpr_now(GPR_CLOCK_MONOTONIC),
        gpr_time_from_nanos(std::chrono::nanoseconds(options_.call_deadline).count(), GPR_TIMESPAN)));
    v1::ExecuteStreamReply reply;
    const std::unique_ptr<Writer> writer(grpc::internal::ClientWriterFactory<v1::ExecuteStreamRequest>::Create(
        channel.get(),
        grpc::internal::RpcMethod("/sluice.v1.Commands/ExecuteStream", grpc::internal::RpcMethod::CLIENT_STREAMING,
                                  channel),
        &context, &reply));
    writer->WaitForInitialMetadata();
    const auto done = number(context.GetServerInitialMetadata(), "x-sluice-stream-done");
    if (!done) {
      writer->WritesDone();
      const grpc::Status status = writer->Finish();
      return fail(status.ok() ? Failure(FailureKind::unavailable, "no_mark", "the server did not say what is done")
                              : from_grpc_status(status));
    }
    if (!std::exchange(told_before_, true)) report_.done_before = *done;
    moved_to(*done);
    began_at_ = *done;
    if (++still_ > kStandstill && clock_.now() - moved_at_ >= options_.give_up_after) {
      context.TryCancel();
      (void)writer->Finish();
      may_have_moved_at_ = Instant();
      return fail(why_);
    }
    tell(*done, true);
    longest_bytes_ = 0;
    told_at_ = Instant();  // the first message is told too
    const Instant began = clock_.now();
    bool all = false;
    std::optional<Failure> broken;
    std::uint64_t at = *done + 1;
    const std::uint64_t end = *done + size_;
    for (; at <= end; ++at) {
      if (clock_.now() - began >= options_.window_time && at > *done + 1) break;
      if (options_.stop && options_.stop()) {
        stopped_ = true;
        break;
      }
      auto message = source_.at(at);
      if (!message) {
        broken = message.error();
        break;
      }
      if (!*message) {
        all = true;
        break;
      }
      v1::ExecuteStreamRequest request;
      request.set_name(std::move((*message)->name));
      request.set_version((*message)->version);
      request.set_payload(std::move((*message)->payload));
      request.set_idempotency_key(std::move((*message)->idempotency_key));
      request.set_ordering_key(std::move((*message)->ordering_key));
      request.set_sequence(at);
      if (const std::size_t bytes = request.ByteSizeLong(); bytes > longest_bytes_) longest_bytes_ = bytes, longest_ = at;
      if (!writer->Write(request)) break;
      tell(at, false);
    }
    writer->WritesDone();
    const grpc::Status status = writer->Finish();
    if (!status.ok()) {
      if (at > *done + 1) may_have_moved_at_ = clock_.now();
      if (const auto mark = number(context.GetServerTrailingMetadata(), "x-sluice-stream-done")) moved_to(*mark);
      Failure why = from_grpc_status(status);
      // Also of who is in between and tells no details. Source: gRPC proposal A6, "Pushback".
      if (const auto after = number(context.GetServerTrailingMetadata(), "grpc-retry-pushback-ms"); after && !why.retry_after())
        why = why.with_retry_after(milliseconds(std::min<std::uint64_t>(*after, 86'400'000)));
      return fail(std::move(why));
    }
    take(reply);
    resize(at - 1 - *done, clock_.now() - began);
    tell(at - 1, true);
    if (broken) return fail(*std::move(broken));
    report_.complete = all;
    return {};
  }

  // The next window has what is done in window_time.
  void resize(std::uint64_t sent, Duration took) {
    if (sent == 0) return;
    const double fits = took > Duration::zero() ? static_cast<double>(sent) * (static_cast<double>(options_.window_time.count()) / static_cast<double>(took.count()))
                                                : static_cast<double>(options_.window);
    if (as_taken_ > 0) --as_taken_;
    const std::uint64_t most = as_taken_ > 0 ? size_ : std::min(options_.window, size_ * kGrowth);
    size_ = std::max<std::uint64_t>(1, fits >= static_cast<double>(most) ? most : static_cast<std::uint64_t>(fits));
  }

  void moved_to(std::uint64_t done) {
    if (done <= report_.done) return;
    report_.done = done;
    moved_at_ = clock_.now();
    still_ = 0;
  }

  void take(const v1::ExecuteStreamReply& reply) {
    moved_to(reply.done());
    report_.succeeded = reply.succeeded();
    report_.replayed = reply.replayed();
    report_.duplicates += reply.duplicates();
    report_.failed = {reply.failed().begin(), reply.failed().end()};
    report_.unsettled = reply.unsettled();
    for (const auto& one : reply.failures()) learn(one);
    for (const auto& one : reply.first_failures()) learn(one);
  }

  void learn(const v1::StreamFailure& one) {
    auto& all = report_.first_failures;
    const auto at = std::ranges::lower_bound(all, one.sequence(), {}, &StreamReport::Failed::sequence);
    if ((at != all.end() && at->sequence == one.sequence()) || all.size() >= options_.max_failures) return;
    all.insert(at, StreamReport::Failed{one.sequence(), one.class_(),
                    Failure(failure_kind_from_name(one.kind()).value_or(FailureKind::internal), one.code(), one.detail()),
                    one.retryable(), one.transaction()});
  }

  void tell(std::uint64_t sent, bool now) {
    if (!options_.progress) return;
    const Instant at = clock_.now();
    if (!now && at - told_at_ < kTellEvery) return;
    told_at_ = at;
    options_.progress(sent, report_.done);
  }

  const StreamClientOptions& options_;
  StreamSource& source_;
  Clock& clock_;
  const std::function<void(Duration)>& sleep_;
  StreamReport report_;
  std::uint64_t epoch_ = 0;
  std::uint64_t size_ = std::min(kFirstWindow, options_.window);  // of the next window
  std::uint64_t longest_ = 0;  // message of the last call
  std::size_t longest_bytes_ = 0;
  int as_taken_ = 0;           // windows yet that are not larger than the one before
  std::uint64_t began_at_ = 0;  // what was done when the last call began
  Instant moved_at_;
  Instant may_have_moved_at_;  // a call with messages was cut: it could not say what is done
  int still_ = 0;              // calls in a row that began where the one before had begun
  Failure why_{FailureKind::unavailable};  // the last call's
  Instant told_at_;
  bool stopped_ = false;
  bool told_before_ = false;
};

}  // namespace

std::optional<bool> StreamReport::succeeded_at(std::uint64_t sequence) const {
  if (sequence > done) return std::nullopt;
  for (const auto& one : first_failures)
    if (one.sequence == sequence) return false;
  std::uint64_t all = unsettled;
  for (const auto& [what, count] : failed) all += count;
  if (all > first_failures.size()) return std::nullopt;
  return true;
}

Status check_stream_id(std::string_view id) {
  const auto as_key = idempotency::parse_key_header(id);
  if (id.size() <= kMaxStreamId && as_key && *as_key == id) return {};
  return fail(FailureKind::invalid_argument, "bad_stream_id",
              "the stream's id: expected 1 to " + std::to_string(kMaxStreamId) +
                  " printable ASCII characters without blanks, quotes, backslashes, commas or semicolons, got " + quoted(id));
}

Result<StreamReport> send_stream(const StreamClientOptions& options, StreamSource& source, Clock& clock,
                                 const std::function<void(Duration)>& sleep) {
  if (options.window == 0) return fail(FailureKind::invalid_argument, "bad_option", "a stream needs a window of at least 1");
  SLUICE_TRY(check_stream_id(options.id));
  return Sending(options, source, clock, sleep).run();
}

}  // namespace sluice::transport
