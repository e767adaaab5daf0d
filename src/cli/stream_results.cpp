#include "cli/stream_results.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
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

bool unsettled(const Failure& failure) {
  return failure.kind() == FailureKind::pending || failure.kind() == FailureKind::in_doubt || failure.kind() == FailureKind::in_progress;
}

// No reply is kept, or none yet: an answer of its own. Else the server could not answer.
bool about_the_message(const Failure& failure) {
  return unsettled(failure) || failure.kind() == FailureKind::not_found || failure.kind() == FailureKind::invalid_argument;
}

// A message that is done and was not told as failed.
void fill(Json& line, const Result<StreamReply>& reply, bool all_failures_known) {
  if (!reply && unsettled(reply.error())) {
    line["outcome"] = "unsettled";
    return put(line, reply.error());
  }
  if (!reply) {
    // No reply is kept, or none any more; when each that failed is known, this one is none of them.
    line["outcome"] = all_failures_known ? "succeeded" : "unknown";
    if (!all_failures_known) put(line, reply.error());
    return;
  }
  line["outcome"] = reply->failure ? "failed" : "succeeded";
  if (reply->failure) put(line, *reply->failure);
  if (!reply->transaction.empty()) line["transaction"] = reply->transaction;
}

// The server tells the first of those that were not settled; of the others the lines know by now what they became.
void agree(StreamReport& report, std::map<std::string, std::uint64_t>& seen) {
  if (seen["unknown"] != 0 || seen["unsettled"] >= report.unsettled) return;
  const std::uint64_t over = report.unsettled - seen["unsettled"];
  const std::uint64_t good = std::min(over, seen["succeeded"] - std::min(seen["succeeded"], report.succeeded));
  report.unsettled -= over;
  report.succeeded += good;
  if (over != good) report.failed["handler_error"] += over - good;
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

Status StreamResults::write(const transport::StreamClientOptions& how, StreamReport& report, JsonLines& lines, Clock& clock,
                            const std::function<void(std::uint64_t)>& progress) {
  SLUICE_ASSIGN(const auto replies, transport::StreamReplies::open(how));
  std::uint64_t failed = report.unsettled;
  for (const auto& [what, count] : report.failed) failed += count;
  const bool all_known = failed == report.first_failures.size() && report.succeeded + failed == report.done;
  auto told = report.first_failures.begin();
  std::map<std::string, std::uint64_t> seen;  // how many lines, by outcome
  for (std::uint64_t sequence = 1; sequence <= std::min(report.done, lines.count()); ++sequence) {
    progress(sequence - 1);
    if (how.stop()) return fail(FailureKind::cancelled, "stopped", "--results: " + path_ + " was not written");
    SLUICE_ASSIGN(const auto message, lines.at(sequence));
    Json line;
    line["line"] = lines.line();
    line["sequence"] = sequence;
    Bytes body;
    if (told != report.first_failures.end() && told->sequence == sequence) {
      line["outcome"] = told->what == "unsettled" ? "unsettled" : "failed";
      put(line, told->failure);
      if (!told->transaction.empty()) line["transaction"] = told->transaction;
      ++told;
    } else {
      auto reply = ask(*replies, how, sequence, *message, clock);
      if (!reply && !about_the_message(reply.error())) return fail(reply.error().at("line " + std::to_string(lines.line())));
      fill(line, reply, all_known);
      if (reply) body = std::move(reply->body);
    }
    ++seen[line["outcome"].get<std::string>()];
    out_ << with_reply(line, body) << '\n';
  }
  agree(report, seen);
  progress(std::min(report.done, lines.count()));
  out_.close();
  std::error_code error;
  if (out_) std::filesystem::rename(part_, path_, error);
  if (!out_ || error) return fail(FailureKind::unavailable, "cannot_write", "--results: cannot write " + path_ + "; is the disk full?");
  return {};
}

}  // namespace sluice::cli
