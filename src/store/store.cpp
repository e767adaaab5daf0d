// The blocking forms, for threads that are not lanes.
#include "sluice/store/store.hpp"

#include "sluice/base/runtime.hpp"

namespace sluice::store {

Result<CommitOutcome> commit_and_wait(Store& store, Commit commit) {
  struct Waiting : PendingCommit {
    Parker done;
  } waiting;
  waiting.commit = std::move(commit);
  waiting.run = [](Job* job) noexcept {
    static_cast<Waiting*>(static_cast<PendingCommit*>(job))->done.wake();
  };
  store.submit(waiting);
  waiting.done.park();
  return std::move(waiting.outcome);
}

Result<Answer> ask_and_wait(Store& store, Query query) {
  struct Waiting : PendingQuery {
    Parker done;
  } waiting;
  waiting.query = std::move(query);
  waiting.run = [](Job* job) noexcept {
    static_cast<Waiting*>(static_cast<PendingQuery*>(job))->done.wake();
  };
  if (!store.ask(waiting)) waiting.done.park();
  return std::move(waiting.answer);
}

}  // namespace sluice::store
