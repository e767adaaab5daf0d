// One call of a GrpcChannel on the wire, all of them, and waiting for one.
#pragma once
#include <grpcpp/generic/generic_stub.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "sluice/base/task.hpp"

namespace sluice::transport {

class InFlight;
class Answer;

// One call on the wire. gRPC's, the waiting task's and the channel's, whoever needs it longest. A
// unary call by way of the streaming interface, because that alone tells whether the request has
// left: on the wire both are the same.
class Wire final : public grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  enum class State : std::uint8_t { waiting, answered, abandoned };
  grpc::ClientContext context;
  grpc::ByteBuffer request, response;
  grpc::Status status;
  bool answered_with_message = false;
  std::atomic<bool> sent{false};  // the transport has the request
  std::atomic<State> state{State::waiting};
  Lane* lane = nullptr;     // touched by gRPC's threads only if somebody waits there
  Answer* waiter = nullptr;  // lane-only
  std::shared_ptr<InFlight> flights;
  std::shared_ptr<Wire> self;  // until OnDone()

  void begin(grpc::GenericStub& stub, const std::string& method) {
    stub.PrepareBidiStreamingCall(&context, method, {}, this);
    StartWriteLast(&request, {});
    StartRead(&response);
    StartCall();
  }
  void OnWriteDone(bool ok) override {
    if (ok) sent = true;
  }
  void OnReadDone(bool ok) override { answered_with_message = ok; }
  void OnDone(const grpc::Status& ended) override;
};
using WirePtr = std::shared_ptr<Wire>;

// The calls that run, so that destroying the channel can end them.
class InFlight {
 public:
  bool add(const WirePtr& wire, std::size_t limit) {
    const std::lock_guard lock(mutex_);
    if (wires_.size() >= limit) return false;
    wires_.insert(wire);
    return true;
  }
  void remove(const WirePtr& wire) {
    const std::lock_guard lock(mutex_);
    wires_.erase(wire);
    if (wires_.empty()) none_.notify_all();
  }
  void end_all() {
    std::unique_lock lock(mutex_);
    for (const auto& wire : wires_) wire->context.TryCancel();
    none_.wait(lock, [this] { return wires_.empty(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable none_;
  std::set<WirePtr> wires_;
};

// `FailureKind k = co_await Answer(wire, stub, method)`: none once the wire has its status.
class Answer final : public Suspension {
 public:
  Answer(WirePtr wire, grpc::GenericStub& stub, std::string method)
      : wire_(std::move(wire)), stub_(stub), method_(std::move(method)) {}
  ~Answer() override { abandon(); }
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) {
    if (!suspend(self)) return false;
    wire_->lane = context().lane;
    wire_->waiter = this;
    begun_ = true;
    wire_->self = wire_;
    wire_->begin(stub_, method_);
    return true;
  }
  FailureKind await_resume() const noexcept { return there_ ? FailureKind::none : cancel_kind(); }
  bool begun() const noexcept { return begun_; }
  void arrived() noexcept {
    wire_->waiter = nullptr;
    finish();
  }

 private:
  void on_cancel() noexcept override { abandon(); }
  void abandon() noexcept {
    if (!begun_ || wire_->waiter == nullptr) return;
    wire_->waiter = nullptr;
    auto expected = Wire::State::waiting;
    if (wire_->state.compare_exchange_strong(expected, Wire::State::abandoned)) return wire_->context.TryCancel();
    // It came in time and stands in line on the lane: how long that line is, is no fault of the callee.
    there_ = cancel_kind() == FailureKind::timeout;
  }
  WirePtr wire_;
  grpc::GenericStub& stub_;
  const std::string method_;
  bool begun_ = false;
  bool there_ = false;  // the answer, before a timeout was told
};

inline void Wire::OnDone(const grpc::Status& ended) {
  const std::shared_ptr<Wire> keep = std::move(self);
  status = ended;
  auto expected = State::waiting;
  if (state.compare_exchange_strong(expected, State::answered))
    lane->post([keep] {
      if (keep->waiter != nullptr) keep->waiter->arrived();
    });
  flights->remove(keep);
}

}  // namespace sluice::transport
