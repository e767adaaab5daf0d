// The blocking forms, for threads that are not lanes; and a query that need not be waited for.
#include "sluice/store/store.hpp"

#include <algorithm>
#include <utility>

#include "sluice/base/runtime.hpp"

namespace sluice::store {

namespace {
Failure store_silent() {
  return {FailureKind::timeout, "store_silent", "the store did not answer within the deadline; this question changed nothing"};
}
}  // namespace

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

Result<Answer> ask_and_wait(Store& store, Query query, Duration most) {
  struct Waiting : PendingQuery {
    Parker done;
    std::shared_ptr<Waiting> until_answered;
  };
  const auto waiting = std::make_shared<Waiting>();
  waiting->query = std::move(query);
  waiting->until_answered = waiting;
  waiting->run = [](Job* job) noexcept {
    const auto self = std::move(static_cast<Waiting*>(static_cast<PendingQuery*>(job))->until_answered);
    self->done.wake();
  };
  if (store.ask(*waiting))
    waiting->until_answered.reset();
  else if (!waiting->done.park(std::max(Duration(0), most)))
    return fail(store_silent());
  return std::move(waiting->answer);
}

struct AskedUntil::Asked : PendingQuery {
  static void* operator new(std::size_t size) { return allocate_frame(size); }
  static void operator delete(void* at, std::size_t size) noexcept { free_frame(at, size); }
  AskedUntil* by = nullptr;  // null: left alone

  static void answered(Job* job) noexcept {
    const std::unique_ptr<Asked> self(static_cast<Asked*>(static_cast<PendingQuery*>(job)));
    if (self->by == nullptr) return;
    AskedUntil& by = *self->by;
    by.asked_ = nullptr;
    by.patience_.cancel();
    by.answer = std::move(self->answer);
    by.done_(by.owner_);
  }
};

bool AskedUntil::ask(Store& store, Query query, Lane* lane, Instant deadline, void (*done)(void*) noexcept, void* owner) {
  done_ = done;
  owner_ = owner;
  auto asked = std::make_unique<Asked>();
  asked->query = std::move(query);
  asked->lane = lane;
  asked->run = &Asked::answered;
  asked->by = this;
  asked_ = asked.get();
  // Before it is asked: with no lane of its own the answer may come, and go, at once.
  if (lane != nullptr && deadline != kNever)
    patience_.arm(*lane, deadline, [](void* self) noexcept {
      auto& by = *static_cast<AskedUntil*>(self);
      by.leave();
      by.answer = fail(store_silent());
      by.done_(by.owner_);
    }, this);
  if (!store.ask(*asked)) {
    (void)asked.release();
    return false;
  }
  asked_ = nullptr;
  patience_.cancel();
  answer = std::move(asked->answer);
  return true;
}

void AskedUntil::leave() noexcept {
  if (asked_ != nullptr) std::exchange(asked_, nullptr)->by = nullptr;
}

}  // namespace sluice::store
