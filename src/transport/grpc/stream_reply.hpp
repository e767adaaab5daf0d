// What a stream of commands is answered, and what of it fits where it is sent.
#pragma once
#include "sluice/stream/ledger.hpp"
#include "sluice/v1/commands.pb.h"

namespace sluice::transport {

/// Told of one call; of a stream that can be resumed kFailuresOfStream are kept in its mark.
inline constexpr std::size_t kFailuresOfCall = 1000;
inline constexpr std::size_t kFailuresOfStream = 100;

/// `before_and_now`: null for a stream that cannot be resumed.
v1::ExecuteStreamReply stream_reply(const stream::Summary& now, const stream::Progress* before_and_now, std::uint64_t duplicates);
void fit_answer(v1::ExecuteStreamReply& reply);
/// For the trailing metadata, when the stream ended with a failure.
void fit_trailer(v1::ExecuteStreamReply& reply);

}  // namespace sluice::transport
