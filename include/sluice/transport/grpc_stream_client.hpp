// The other half of Commands/ExecuteStream: sends many commands, comes again after a cut, and knows
// what became of each.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sluice/transport/grpc_channel.hpp"

namespace sluice::transport {

struct StreamMessage {
  std::string name;           ///< of the command
  std::uint32_t version = 0;  ///< 0: the newest
  Bytes payload;              ///< JSON text
  std::string idempotency_key;  ///< empty: made of the stream's id and the sequence
  std::string ordering_key;     ///< empty: in order with all others that have none
};

/// Gives messages by their sequence, from 1. It is asked in order, and again from an earlier one
/// after a cut: what was not done must still be there.
class StreamSource {
 public:
  virtual ~StreamSource() = default;
  /// Nothing: the stream ends before this sequence. Fails: the stream ends with the failure.
  virtual Result<std::optional<StreamMessage>> at(std::uint64_t sequence) = 0;
};

struct StreamClientOptions {
  GrpcChannelOptions channel;
  std::string id;           ///< of the stream, with the token's principal; required
  std::string app;          ///< namespace; empty: each command's own
  bool shadow = false;
  /// Messages of one call; then the server is asked for what is done and a new call begins, so that
  /// no more than this is ever sent again. At least 1.
  std::uint64_t window = 10'000;
  /// The first windows have 256 messages, each next as many as are done in about this time: so often what
  /// is done is known, and a stop takes effect.
  Duration window_time = seconds(1);
  std::size_t max_failures = 10'000;  ///< in the report, the first that are learnt
  /// Without any progress, over all attempts; looked at between calls, so a server that is connected
  /// and says nothing is waited for up to three call_deadlines.
  Duration give_up_after = seconds(60);
  Duration call_deadline = seconds(300);  ///< of one window
  /// Called from the sending thread, at most some ten times a second and at each end of a window.
  std::function<void(std::uint64_t sent, std::uint64_t done)> progress;
  std::function<bool()> stop;  ///< true: end at the next message; it can be resumed
};

struct StreamReport {
  struct Failed {
    std::uint64_t sequence = 0;
    std::string what;  ///< class: handler_error, ordering …
    Failure failure{FailureKind::none};
    bool retryable = false;
    std::string transaction;  ///< empty: none was begun
  };
  std::uint64_t done = 0;       ///< every message up to this one ran to its end
  std::uint64_t done_before = 0;  ///< of those, before this call of send_stream(): they were not sent again
  std::uint64_t succeeded = 0, replayed = 0, duplicates = 0;
  std::map<std::string, std::uint64_t> failed;  ///< by class
  /// Begun or decided, and not settled yet: told in first_failures, with the transaction that tells the rest.
  std::uint64_t unsettled = 0;
  /// By sequence; of each window the server tells 1,000, so windows up to that size miss none. After a cut
  /// some may be missing.
  std::vector<Failed> first_failures;
  std::uint64_t resumed = 0;  ///< connections after the first
  bool complete = false;      ///< false: stopped; come again with the same id
  /// Nothing: unknown, because more failed than are told. Of sequences up to `done`.
  std::optional<bool> succeeded_at(std::uint64_t sequence) const;
};

/// The idempotency key of a message of a stream that can be resumed, where it has none of its own.
inline std::string stream_key(std::string_view id, std::uint64_t sequence) {
  return "stream:" + std::string(id) + ":" + std::to_string(sequence);
}

/// What is stored under one message's key.
struct StreamReply {
  Bytes body;                      ///< JSON text; of a success
  std::optional<Failure> failure;  ///< the command's refusal
  std::string transaction;         ///< empty: none is known
};
/// Asks for the replies of messages that are done: nothing runs again. One thread; blocks.
class StreamReplies {
 public:
  /// `options` as they were sent with; must outlive it. Fails invalid_argument for certificates that
  /// cannot be used.
  static Result<std::unique_ptr<StreamReplies>> open(const StreamClientOptions& options);
  virtual ~StreamReplies() = default;
  /// `message` as it was sent. Fails not_found (`no_reply`: it failed and left nothing, or never ran),
  /// invalid_argument (`key_not_used`: the command keeps no replies; or the key is too old), or
  /// what kept the server from answering.
  virtual Result<StreamReply> of(std::uint64_t sequence, const StreamMessage& message) = 0;
};

/// Asks once for the reply of each message that `report` tells as unsettled, and counts and tells those that are over
/// by now as what they became; the others stay. Blocks; ends early when the server is away or at options.stop.
/// Fails as `source` and StreamReplies::open do.
Status ask_unsettled(const StreamClientOptions& options, StreamSource& source, StreamReport& report);

/// Detail of the failure `message_too_large`: the sequence of the message.
inline constexpr std::string_view kTooLongMessage = "sequence";

inline constexpr std::size_t kMaxStreamId = 100;
/// What may name a stream: it becomes part of its messages' idempotency keys. Fails invalid_argument,
/// bad_stream_id.
Status check_stream_id(std::string_view id);

/// Blocks until everything is done, stopped or given up: for threads, never on a lane. Goes on where
/// an earlier call with this id ended, here or elsewhere. `clock` and `sleep` are asked for the time
/// and to wait between attempts. Fails unavailable (nothing moved for give_up_after), unauthenticated,
/// precondition_failed (the server cannot resume), or what the server ended the stream with; come
/// again with the same id in any case.
Result<StreamReport> send_stream(const StreamClientOptions& options, StreamSource& source, Clock& clock,
                                 const std::function<void(Duration)>& sleep);

}  // namespace sluice::transport
