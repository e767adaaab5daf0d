// A transaction that a handler left unsettled: what is stored under the key, and what retries are told.
#pragma once
#include "sluice/rpc/registry.hpp"

namespace sluice::rpc {

// Of this server: "transaction" in a failure may be another service's.
inline constexpr const char* kUnsettledDetail = "unsettled";

inline Reply unsettled_reply(const Answer& answer) {
  const bool pending = answer.kind == Answer::Kind::pending;
  const std::string id = to_string(answer.exchange);
  return Reply::from(Failure(pending ? FailureKind::pending : FailureKind::in_doubt, "",
                             "transaction " + id + " is not settled; ask for it")
                         .with(kUnsettledDetail, id));
}

/// Its status, when the stored reply is no more than that: it is told, and is no replay.
inline std::optional<Answer> unsettled_in(ByteView stored) {
  const auto reply = Reply::decode(stored);
  if (!reply || (reply->kind != FailureKind::pending && reply->kind != FailureKind::in_doubt)) return std::nullopt;
  const Failure failure = reply->to_failure();
  for (const auto& [name, value] : failure.details()) {
    if (name != kUnsettledDetail) continue;
    const auto id = id_from_text(value);
    if (!id) return std::nullopt;
    return reply->kind == FailureKind::pending ? Answer::pending({*id}) : Answer::in_doubt({*id});
  }
  return std::nullopt;
}

}  // namespace sluice::rpc
