#include "sluice/stream/ordering.hpp"

namespace sluice::stream {
namespace {

/// "" would mean no order to the gate.
std::string turn_of(std::string key) { return '\n' + std::move(key); }

class TurnAwaiter {
 public:
  TurnAwaiter(admission::Gate& gate, std::string key) : gate_(gate) {
    pending_.owner = this;
    pending_.ordering_key = turn_of(std::move(key));
  }
  TurnAwaiter(const TurnAwaiter&) = delete;
  TurnAwaiter& operator=(const TurnAwaiter&) = delete;
  ~TurnAwaiter() {
    if (handle_) static_cast<void>(gate_.forget(pending_));
  }
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    TaskContext& context = *self.promise().context;
    pending_.lane = context.lane;
    pending_.scope = context.scope;
    pending_.deadline = context.deadline;
    pending_.run = [](Job* job) noexcept {
      static_cast<Pending*>(static_cast<admission::PendingAdmission*>(job))->owner->resume();
    };
    if (gate_.admit(pending_)) return false;
    handle_ = self;
    if (context.scope != nullptr)
      gone_.link(*context.scope, [](void* a) noexcept { static_cast<TurnAwaiter*>(a)->gone(); }, this);
    return true;
  }
  Result<Release> await_resume() {
    Result<Release> taken = pending_.take();
    if (taken) taken->release_permit();
    return taken;
  }

 private:
  struct Pending : admission::PendingAdmission {
    TurnAwaiter* owner = nullptr;
  };
  void resume() noexcept {
    gone_.unlink();
    std::exchange(handle_, {}).resume();
  }
  void gone() noexcept {
    if (!gate_.forget(pending_)) return;  // its answer is on the way
    pending_.answer = fail(pending_.scope->reason(), "cancelled", "the wait for a key's turn was given up");
    resume();
  }
  admission::Gate& gate_;
  Pending pending_;
  std::coroutine_handle<> handle_;
  CancelListener gone_;
};

admission::GateOptions turns_only(OrderingResolver::Options options) {
  admission::GateOptions out;
  out.name = std::move(options.name);
  out.capacity = SIZE_MAX;
  out.max_waiting = options.max_waiting;
  out.max_waiting_bytes = SIZE_MAX;
  return out;
}

}  // namespace

OrderingResolver::OrderingResolver(Options options) : gate_(turns_only(std::move(options))) {}

Task<Result<Release>> OrderingResolver::wait(std::string key) {
  TurnAwaiter waiting(gate_, std::move(key));
  Result<Release> turn = co_await waiting;
  co_return turn;
}

void OrderingResolver::close() noexcept { gate_.cancel(); }

}  // namespace sluice::stream
