// A run whose key the flow takes itself (FlowOptions::key): claim first, then run, replay or refuse.
#pragma once
#include <memory>

#include "sluice/flow/flow.hpp"

namespace sluice::flow {

/// Owned by itself until the claim is answered; lane-only.
class KeyedRun final : public idempotency::PendingClaim {
 public:
  static void start(Flow& flow, std::string key, ExchangePtr exchange, RunOptions options,
                    Flow::Done done, void* owner);

 private:
  KeyedRun(Flow& flow, ExchangePtr exchange, RunOptions options, Flow::Done done, void* owner);
  static void still_runs(std::unique_ptr<KeyedRun> self, bool doubtful) noexcept;
  static void answered(std::unique_ptr<KeyedRun> self);
  static void cancelled(void* owner) noexcept;
  Outcome replay(const idempotency::Cached& cached);

  Flow& flow_;
  ExchangePtr exchange_;
  RunOptions options_;
  Flow::Done done_;
  void* owner_;
  CancelListener caller_gone_;
};

}  // namespace sluice::flow
