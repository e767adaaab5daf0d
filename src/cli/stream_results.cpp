#include "cli/stream_results.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "sluice/base/runtime.hpp"

namespace sluice::cli {
namespace {

using Json = nlohmann::ordered_json;
using transport::StreamReply;
using transport::StreamReport;

constexpr Duration kPause = milliseconds(200);

bool passing(const Failure& failure) {
  switch (failure.kind()) {
    case FailureKind::unavailable:
    case FailureKind::overloaded:
    case FailureKind::rate_limited:
    case FailureKind::timeout:
    case FailureKind::cancelled:
    case FailureKind::shutting_down:
    case FailureKind::unknown_outcome:
      return true;
    default:
      return false;
  }
}

bool unsettled(const Failure& failure) {
  return failure.kind() == FailureKind::pending || failure.kind() == FailureKind::in_doubt || failure.kind() == FailureKind::in_progress;
}

// Comes again until the server answers, or nothing came for `give_up_after`.
Result<StreamReply> ask(transport::StreamReplies& replies, const transport::StreamClientOptions& how, std::uint64_t sequence,
                        const transport::StreamMessage& message, Clock& clock) {
  Parker nobody;
  const Instant began = clock.now();
  while (true) {
    auto reply = replies.of(sequence, message);
    if (reply || !passing(reply.error()) || clock.now() - began >= how.give_up_after || how.stop()) return reply;
    nobody.park(kPause);
  }
}

void put(Json& line, const Failure& failure) {
  line["kind"] = failure.traits().name;
  line["code"] = failure.code();
  line["detail"] = failure.detail();
}

// The reply's own bytes, unless they are several lines.
std::string with_reply(const Json& line, const Bytes& body) {
  std::string text = line.dump(-1, ' ', false, Json::error_handler_t::replace);
  const bool one_line = body.find_first_of("\r\n") == std::string::npos;
  const std::string reply = one_line ? std::string(body) : Json::parse(body, nullptr, false).dump();
  if (reply.empty()) return text;
  text.pop_back();
  return text + ",\"reply\":" + reply + "}";
}

// A message that is done and was not told as failed.
std::string line_of(Json line, const Result<StreamReply>& reply, bool all_failures_known) {
  if (!reply) {
    // No reply is kept, or none any more; when each that failed is known, this one is none of them.
    line["outcome"] = all_failures_known ? "succeeded" : "unknown";
    if (!all_failures_known) put(line, reply.error());
    return with_reply(line, {});
  }
  line["outcome"] = reply->failure ? "failed" : "succeeded";
  if (reply->failure) put(line, *reply->failure);
  if (!reply->transaction.empty()) line["transaction"] = reply->transaction;
  return with_reply(line, reply->body);
}

}  // namespace

Result<StreamResults> StreamResults::create(const std::string& path) {
  StreamResults made;
  made.path_ = path;
  made.part_ = path + "." + std::to_string(getpid()) + ".part";  // two that write the same results have one each
  made.out_.open(made.part_, std::ios::binary | std::ios::trunc);
  if (!made.out_) return fail(FailureKind::invalid_argument, "no_file", "--results: cannot write " + made.part_);
  return made;
}

StreamResults::~StreamResults() {
  std::error_code ignored;
  if (!part_.empty()) std::filesystem::remove(part_, ignored);
}

Status StreamResults::write(const transport::StreamClientOptions& how, const StreamReport& report, JsonLines& lines, Clock& clock,
                            const std::function<void(std::uint64_t)>& progress) {
  SLUICE_ASSIGN(const auto replies, transport::StreamReplies::open(how));
  std::uint64_t failed = report.unsettled;
  for (const auto& [what, count] : report.failed) failed += count;
  const bool all_known = failed == report.first_failures.size() && report.succeeded + failed == report.done;
  auto told = report.first_failures.begin();
  for (std::uint64_t sequence = 1; sequence <= std::min(report.done, lines.count()); ++sequence) {
    progress(sequence - 1);
    if (how.stop()) return fail(FailureKind::cancelled, "stopped", "--results: " + path_ + " was not written");
    SLUICE_ASSIGN(const auto message, lines.at(sequence));
    Json line;
    line["line"] = lines.line();
    line["sequence"] = sequence;
    if (told != report.first_failures.end() && told->sequence == sequence) {
      line["outcome"] = told->what == "unsettled" ? "unsettled" : "failed";
      put(line, told->failure);
      if (!told->transaction.empty()) line["transaction"] = told->transaction;
      out_ << with_reply(line, {}) << '\n';
      ++told;
      continue;
    }
    const auto reply = ask(*replies, how, sequence, *message, clock);
    if (!reply && unsettled(reply.error())) {
      line["outcome"] = "unsettled";
      put(line, reply.error());
      out_ << with_reply(line, {}) << '\n';
      continue;
    }
    const bool about_the_key = !reply && (reply.error().kind() == FailureKind::not_found || reply.error().kind() == FailureKind::invalid_argument);
    if (!reply && !about_the_key) return fail(reply.error().at("line " + std::to_string(lines.line())));
    out_ << line_of(std::move(line), reply, all_known) << '\n';
  }
  progress(std::min(report.done, lines.count()));
  out_.close();
  std::error_code error;
  if (out_) std::filesystem::rename(part_, path_, error);
  if (!out_ || error) return fail(FailureKind::unavailable, "cannot_write", "--results: cannot write " + path_ + "; is the disk full?");
  return {};
}

}  // namespace sluice::cli
