// A flow: named groups of ordered stages, and the runtime that takes exchanges through them.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "sluice/base/ids.hpp"
#include "sluice/base/random.hpp"
#include "sluice/flow/stage.hpp"
#include "sluice/idempotency/keys.hpp"
#include "sluice/store/store.hpp"

namespace sluice::flow {

enum class OutcomeKind : std::uint8_t { committed, aborted, in_doubt, pending };

/// How an exchange ended, as its caller is told.
struct Outcome {
  OutcomeKind kind = OutcomeKind::committed;
  ExchangeId exchange;
  std::optional<Reply> reply;     ///< set by a stage, or the refusal of a precondition
  std::optional<Failure> cause;   ///< why it was aborted, or what is unknown
  bool replayed = false;          ///< the stored reply of an earlier request
};

}  // namespace sluice::flow
