// Stages made of stages: repeated, or side by side.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "sluice/base/random.hpp"
#include "sluice/flow/stage.hpp"
#include "sluice/resilience/retry.hpp"

namespace sluice::flow {

/// Repeats the prepare of `stage` while `policy` says so: three attempts, 50 ms, retryable kinds by
/// default; never an unknown outcome, unless the policy says that the stage's call carries a key (it
/// does when it uses exchange.token()). PREPARE MUST BE SAFE TO REPEAT. What a failed attempt drafted
/// is taken back. Not repeated once the exchange voted abort or was cancelled; the failure is then
/// still the stage's own. Commit and abort are forwarded; their retries are the flow's own policy.
/// All attempts count as one prepare, and a time limit of the stage is for all of them together.
/// What a guarded call below has given up on is not repeated, so that retries do not multiply: what was refused without a
/// time to come back at, and what a rule's retry has tried already. And no more is repeated than the `budget` allows,
/// which may be shared (Protector::budget(), other stages); null: one of its own for all exchanges of the stage.
/// `random` and `budget` must outlive the stage.
StagePtr retry(StagePtr stage, Random& random, resilience::RetryPolicy policy = {}, resilience::RetryBudget* budget = nullptr);

/// Prepares the stages concurrently, each on its own view of the exchange: own draft and bag (copied
/// when it begins) and own token(). They are merged in declaration order, which is also the order of
/// commit. The first failure or abort cancels the others, and all are aborted. A child may vote
/// continue, skip or route (groups are visited in declaration order); done fails
/// `done_in_parallel`. It is external, store or none as its strongest child is.
StagePtr parallel(std::string name, std::vector<StagePtr> stages);

}  // namespace sluice::flow
