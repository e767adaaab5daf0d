#include "transport/grpc/stream_reply.hpp"

#include <algorithm>

#include "sluice/base/text.hpp"

namespace sluice::transport {
namespace {

constexpr int kFailuresInTrailer = 10;  // headers are small
constexpr std::size_t kTextInTrailer = 200;
constexpr std::size_t kTextInAnswer = 4096;  // of each of the stream's first failures
constexpr std::size_t kTextOfCall = 1024;    // of each failure of the call; all of it is far below gRPC's 4 MB

void cut(std::string& text, std::size_t limit) { text.resize(beginning_of(text, limit).size()); }

void tell(const stream::Fallen& one, v1::StreamFailure& f) {
  f.set_sequence(one.sequence);
  f.set_class_(std::string(stream::traits(one.what).name));
  f.set_kind(std::string(one.failure.traits().name));
  f.set_code(std::string(one.failure.code()));
  f.set_detail(std::string(one.failure.detail()));
  f.set_retryable(stream::is_retryable(one.failure));
  f.set_transaction(std::string(stream::transaction_of(one.failure)));
}

}  // namespace

v1::ExecuteStreamReply stream_reply(const stream::Summary& now, const stream::Progress* before_and_now,
                                    std::uint64_t duplicates) {
  v1::ExecuteStreamReply out;
  out.set_accepted(now.accepted);
  out.set_succeeded(now.succeeded);
  out.set_replayed(now.replayed);
  out.set_duplicates(duplicates);
  out.set_retries(now.retries);
  out.set_done(now.done);
  out.set_pressure(now.pressure);
  auto failed = now.failed;
  const std::vector<stream::Fallen>* told = &now.first_failures;
  if (before_and_now != nullptr && !now.ended_by) {  // all of it is in the mark
    out.set_accepted(before_and_now->done);
    out.set_succeeded(before_and_now->succeeded);
    out.set_replayed(before_and_now->replayed);
    failed = before_and_now->failed;
    told = &before_and_now->first_failures;
  }
  for (const auto& row : stream::failure_classes()) {
    const auto count = failed[static_cast<std::size_t>(row.what)];
    if (row.what == stream::FailureClass::unsettled)
      out.set_unsettled(count);
    else if (count != 0)
      (*out.mutable_failed())[std::string(row.name)] = count;
  }
  for (std::size_t i = 0; i < std::min(told->size(), kFailuresOfStream); ++i) tell((*told)[i], *out.add_first_failures());
  for (const auto& one : now.first_failures) tell(one, *out.add_failures());
  return out;
}

// A command may say as much as it likes of its failure; all of them still fit what gRPC receives.
void fit_answer(v1::ExecuteStreamReply& reply) {
  for (auto& one : *reply.mutable_first_failures()) cut(*one.mutable_detail(), kTextInAnswer);
  for (auto& one : *reply.mutable_failures()) cut(*one.mutable_detail(), kTextOfCall);
}

void fit_trailer(v1::ExecuteStreamReply& reply) {
  reply.clear_failures();
  if (reply.first_failures_size() > kFailuresInTrailer)
    reply.mutable_first_failures()->DeleteSubrange(kFailuresInTrailer, reply.first_failures_size() - kFailuresInTrailer);
  for (auto& one : *reply.mutable_first_failures())
    cut(*one.mutable_detail(), kTextInTrailer);
}

}  // namespace sluice::transport
