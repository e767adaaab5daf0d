// A question to the store from a task that may be cut off: store::ask() must be awaited to its end, since the
// store answers into the waiting frame. This one answers nobody then.
#pragma once
#include <memory>

#include "sluice/base/task.hpp"
#include "sluice/store/store.hpp"

namespace sluice::voucher {

template <class Q>
class LooseAsk final : public Suspension {
 public:
  LooseAsk(store::Store& store, Q query) : store_(store), question_(std::make_unique<Question>()) {
    question_->query = std::move(query);
  }
  ~LooseAsk() override { leave(); }
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    if (!suspend(self)) return false;
    question_->lane = context().lane;
    question_->run = [](Job* job) noexcept {
      const std::unique_ptr<Question> asked(static_cast<Question*>(static_cast<store::PendingQuery*>(job)));
      if (asked->asker == nullptr) return;
      asked->asker->asked_ = nullptr;
      asked->asker->answer_ = std::move(asked->answer);
      asked->asker->finish();
    };
    question_->asker = this;
    asked_ = question_.release();
    if (!store_.ask(*asked_)) return true;
    question_.reset(std::exchange(asked_, nullptr));
    answer_ = std::move(question_->answer);
    return false;
  }
  Result<typename Q::Answer> await_resume() {
    if (cancel_kind() != FailureKind::none) return fail(cancel_kind(), {}, "cancelled while the store was asked");
    if (!answer_) return fail(std::move(answer_).error());
    return std::get<typename Q::Answer>(std::move(*answer_));
  }

 private:
  struct Question : store::PendingQuery {
    LooseAsk* asker = nullptr;  // null: it has left. Of the lane
  };
  void on_cancel() noexcept override { leave(); }
  void leave() noexcept {
    if (asked_ != nullptr) std::exchange(asked_, nullptr)->asker = nullptr;
  }
  store::Store& store_;
  std::unique_ptr<Question> question_;
  Question* asked_ = nullptr;  // the store's until it answers
  Result<store::Answer> answer_ = store::Answer{};
};

/// `auto asking = ask_loosely(store, query); auto rows = co_await asking;`
template <class Q>
Task<Result<typename Q::Answer>> ask_loosely(store::Store& store, Q query) {
  LooseAsk<Q> asking(store, std::move(query));
  auto answer = co_await asking;
  co_return answer;
}

}  // namespace sluice::voucher
