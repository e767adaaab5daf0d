// A client-streaming gRPC method as a stream of Sluice: for anybody's callback service, typed by its
// request message. The method makes a reactor, calls begin() and returns it:
//
//   grpc::ServerReadReactor<Item>* Upload(grpc::CallbackServerContext* context, Report* report) override {
//     return (new UploadStream(pipeline, lane, *context, *report))->begin();
//   }
//
// Other methods of the service are untouched; each method has the options of its Pipeline.
#pragma once
#include <grpc/support/time.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <mutex>
#include <variant>

#include "sluice/stream.hpp"

namespace sluice::transport {

/// A stream's failure as the status it ends with: the code of stream::grpc_code(), the failure's
/// text, and where a time is known, gRPC's retry pushback in `context`'s trailing metadata.
inline grpc::Status stream_status(const Failure& failure, grpc::CallbackServerContext& context) {
  if (const auto after = failure.retry_after())
    context.AddTrailingMetadata("grpc-retry-pushback-ms", std::to_string(after->count()));
  return {static_cast<grpc::StatusCode>(stream::grpc_code(failure)), failure.to_string()};
}

/// One stream. gRPC's hooks come on its threads and only hand over; all else is the lane's. No read
/// is posted without credit, so HTTP/2 flow control stops the client. It deletes itself, on the
/// lane, when gRPC and the stream are done with it. Lane and pipeline must outlive that.
/// `Extra`: what a message needs beside itself, kept and used again with its memory.
template <class Request, class Extra = std::monostate>
class GrpcStream : public grpc::ServerReadReactor<Request>, public stream::Session {
 public:
  struct Item : stream::Delivery {
    Request message;
    Extra extra;
    Item* behind = nullptr;  ///< kept by the reactor
    bool numbered = false;   ///< and this
  };

  GrpcStream(stream::Pipeline& pipeline, Lane& lane, grpc::CallbackServerContext& context)
      : Session(pipeline, lane), context_(context) {
    look_.self = this;
    look_.run = [](Job* job) noexcept { static_cast<Hook*>(job)->self->look(); };
  }

  /// Once, from the method. Refuses at once while the pipeline drains.
  grpc::ServerReadReactor<Request>* begin() {
    if (const Status opened = this->open(); !opened) {
      over_here_ = true;
      --refs_;
      this->Finish(stream_status(opened.error(), context_));
      return this;
    }
    lane().post([this] { prepare(); });
    return this;
  }

  // The message is worked on here if the lane sleeps, and the next is read after that: read before, it would come
  // on another thread, which costs more than it gains while a message is short work. Work that
  // takes its time suspends; and where the lane is busy with other things the next read does not wait for it.
  // OnDone() waits for this thread: the stream is there until it returns.
  void OnReadDone(bool ok) override {
    Item* next = nullptr;
    bool post = false;
    {
      const std::lock_guard lock(mutex_);
      Item* item = std::exchange(reading_, nullptr);
      if (ok) {
        item->size = size_of(item->message);
        item->behind = nullptr;
        item->occupy(this->pipeline().room());
        (inbox_tail_ != nullptr ? inbox_tail_->behind : inbox_) = item;
        inbox_tail_ = item;
        ++messages_;
        ++received_;
        bytes_held_ += item->size;
      } else {
        free_.push_back(item);
        closed_here_ = true;
      }
      next = next_to_read();
      post = !std::exchange(posted_, true);
    }
    if (post) lane().post_or_run(look_);
    read(next);
  }
  void OnCancel() override {
    // Asked here: once OnDone() has returned the context is gone, and the lane may be behind.
    const gpr_timespec at = context_.raw_deadline();
    {
      const std::lock_guard lock(mutex_);
      late_ = gpr_time_cmp(gpr_now(at.clock_type), at) >= 0;
      cancelled_ = true;
      if (std::exchange(posted_, true)) return;
    }
    lane().post_or_run(look_);
  }
  // The last look gives gRPC's hold back, so that no other is queued behind it.
  void OnDone() override {
    {
      const std::lock_guard lock(mutex_);
      left_ = true;
      if (std::exchange(posted_, true)) return;
    }
    lane().post_or_run(look_);
  }

 protected:
  /// Work on one message, on the lane; ends with settle(). As stream::Session::handle.
  virtual void handle_message(Item& item) = 0;
  /// The ordering key, appended; asked in keyed mode only.
  virtual void order_by(const Item&, std::string&) {}
  /// Bytes that count against the credit.
  virtual std::size_t size_of(const Request& message) {
    if constexpr (requires { message.ByteSizeLong(); })
      return message.ByteSizeLong();
    else
      return message.Length();  // raw bytes
  }
  /// On the lane, before the first read; ends by ready() now or later. For what must be looked up.
  virtual void prepare() { ready(); }
  /// False: not numbered, its memory is free again. On the lane, in the order of arrival.
  virtual bool accept(Item&) { return true; }
  /// The stream is over: fill the response and call finish(), now or later, once.
  virtual void conclude() = 0;

  /// Begins to read, unless the call is answered already.
  void ready() {
    if (finished_) return;
    Item* next = nullptr;
    {
      const std::lock_guard lock(mutex_);
      may_read_ = true;
      next = next_to_read();
    }
    read(next);
  }
  void finish(const grpc::Status& status) {
    {
      const std::lock_guard lock(mutex_);
      may_read_ = false;
    }
    finished_ = true;
    this->leave();
    this->Finish(status);
    let_go();
  }
  /// Answered already, by abandoned(): the call's context and response are gone.
  bool finished() const noexcept { return finished_; }
  grpc::CallbackServerContext& call() noexcept { return context_; }
  /// Keeps the stream until let_go(), for work of its own on the lane.
  void hold() noexcept { ++refs_; }
  void let_go() noexcept {
    if (--refs_ == 0) delete this;
  }

 private:
  struct Hook : Job {
    GrpcStream* self = nullptr;
  };
  // Under the mutex. Whoever gets one calls read(), without the mutex: gRPC takes its time there, and
  // the thread of the next message would wait. Null: a read is on its way already, or none may be.
  Item* next_to_read() {
    if (!may_read_ || reading_ != nullptr || closed_here_ || cancelled_) return nullptr;
    if (!this->pipeline().has_credit(messages_, bytes_held_, received_ - done_)) return nullptr;
    if (free_.empty()) {
      reading_ = &memory_.emplace_back();
    } else {
      reading_ = free_.back();
      free_.pop_back();
    }
    return reading_;
  }
  // May come after Finish(): the call is there until the read has its answer.
  void read(Item* item) {
    if (item != nullptr) this->StartRead(&item->message);
  }
  // On the lane.
  void look() noexcept {
    Item* first = nullptr;
    bool closed = false, cancelled = false, late = false, left = false, comes_again = false;
    {
      const std::lock_guard lock(mutex_);
      give_back_all();
      comes_again = reading_ != nullptr;
      first = std::exchange(inbox_, nullptr);
      inbox_tail_ = nullptr;
      closed = closed_here_;
      cancelled = cancelled_;
      late = late_;
      left = left_;
      posted_ = false;
    }
    hold();
    looking_ = true;
    while (first != nullptr) {
      Item* item = std::exchange(first, first->behind);
      if (!over_here_ && accept(*item))
        this->received(*item);
      else
        give_back(*item, false);
    }
    if (!over_here_) {
      if (cancelled) this->cancel(why_cancelled(late));
      if (!over_here_ && closed) this->half_close();
    }
    looking_ = false;
    // A read that was on its way then brings another look, which gives back what this one is done with.
    if (!comes_again) {
      Item* next = nullptr;
      {
        const std::lock_guard lock(mutex_);
        give_back_all();
        next = next_to_read();
      }
      read(next);
    }
    if (left) let_go();
    let_go();
  }
  static Failure why_cancelled(bool late) {
    return late ? Failure(FailureKind::timeout, "cancelled", "the stream's deadline passed")
                : Failure(FailureKind::cancelled, "cancelled", "the client is gone or gave up");
  }
  void give_back(Item& item, bool numbered) {
    item.numbered = numbered;
    if (looking_) {  // all of them at once, later
      item.vacate();
      item.behind = std::exchange(back_, &item);
      return;
    }
    Item* next = nullptr;
    {
      const std::lock_guard lock(mutex_);
      give_back_locked(item);
      next = next_to_read();
    }
    read(next);
  }
  void give_back_all() {
    while (back_ != nullptr) give_back_locked(*std::exchange(back_, back_->behind));
  }
  void give_back_locked(Item& item) {
    if (!item.numbered) --received_;
    item.vacate();
    free_.push_back(&item);
    --messages_;
    bytes_held_ -= item.size;
    done_ = this->summary().done - this->resumed_after();
  }
  void key_of(const stream::Delivery& delivery, std::string& out) final {
    order_by(static_cast<const Item&>(delivery), out);
  }
  void handle(stream::Delivery& delivery) final { handle_message(static_cast<Item&>(delivery)); }
  void released(stream::Delivery& delivery) noexcept final { give_back(static_cast<Item&>(delivery), true); }
  bool answered_when_over() const noexcept final { return false; }
  void ended() noexcept final {
    over_here_ = true;
    if (!finished_) return conclude();
    this->leave();
    let_go();
  }
  // Also while it waits for what conclude() began.
  void abandoned() noexcept final {
    if (std::exchange(finished_, true)) return;
    if (over_here_) this->leave();
    {
      const std::lock_guard lock(mutex_);
      may_read_ = false;
    }
    this->Finish({grpc::StatusCode::UNAVAILABLE, "the server is stopping"});
  }
  grpc::CallbackServerContext& context_;
  std::mutex mutex_;
  std::deque<Item> memory_;  // as many as were ever read and not finished at once
  std::vector<Item*> free_;
  Item* reading_ = nullptr;
  Item* inbox_ = nullptr;
  Item* inbox_tail_ = nullptr;
  std::size_t messages_ = 0, bytes_held_ = 0;
  std::uint64_t received_ = 0, done_ = 0;
  bool may_read_ = false, closed_here_ = false, cancelled_ = false, late_ = false;
  bool posted_ = false;  // look_ is, or is about to be
  bool left_ = false;    // gRPC is done with it
  // The lane's.
  bool over_here_ = false;
  bool finished_ = false;
  bool looking_ = false;
  Item* back_ = nullptr;  // done with while looking
  int refs_ = 2;  // gRPC's, given back by OnDone(), and the stream's
  Hook look_;
};

}  // namespace sluice::transport
