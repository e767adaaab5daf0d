// Client streams over loopback gRPC, both ends in this process: a bare callback reactor, and the same
// messages through the pipeline (numbers, gate, keyed order) into a handler that the bench chooses.
#pragma once
#include <grpcpp/create_channel.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include "bench/allocations.hpp"
#include "bench/benches.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc_stream.hpp"
#include "transport/grpc/whole_process.hpp"
#include "transport/grpc/service.hpp"

namespace sluice::bench {

using Buffer = grpc::ByteBuffer;

// A reply must be there, if of no bytes.
inline Buffer nothing() {
  const grpc::Slice slice("");
  return {&slice, 1};
}

// What gRPC does without us.
class Bare final : public grpc::ServerReadReactor<Buffer> {
 public:
  explicit Bare(std::atomic<std::uint64_t>& allocated) : allocated_(allocated) { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    const std::uint64_t before = allocations();
    if (!ok) return Finish(grpc::Status::OK);
    StartRead(&message_);
    allocated_.fetch_add(allocations() - before, std::memory_order_relaxed);
  }
  void OnDone() override { delete this; }

 private:
  std::atomic<std::uint64_t>& allocated_;
  Buffer message_;
};

struct Number {
  std::uint32_t key = 0;
  Instant received;
  Timer work;
  class Piped* stream = nullptr;
};

/// What the streams of a StreamRig do with their messages. The lane's, except where atomic.
struct Handling {
  std::uint32_t keys = 1;  ///< 0: one, that no other stream has
  bool timed = false;      ///< how long messages are in the pipeline is kept
  std::atomic<bool> stalled{false};
  Duration work{0};  ///< a message takes this long, on a timer
  std::atomic<std::uint64_t> handled{0};
  std::atomic<std::uint64_t> allocated{0};  ///< where messages come in and are worked on, gRPC's own included
  std::vector<double> waits_us;
  std::vector<std::function<void()>> held;
};

class Piped final : public transport::GrpcStream<Buffer, Number> {
 public:
  Piped(stream::Pipeline& pipeline, Lane& lane, grpc::CallbackServerContext& context, Handling& how)
      : GrpcStream(pipeline, lane, context), how_(how) {}
  void OnReadDone(bool ok) override {
    const std::uint64_t before = allocations();
    reading_ = true;
    GrpcStream::OnReadDone(ok);
    reading_ = false;
    how_.allocated.fetch_add(allocations() - before, std::memory_order_relaxed);
  }

 protected:
  bool accept(Item& item) override {
    count_on_lane();
    const std::uint32_t n = next_++;
    item.extra.key = how_.keys == 0 ? UINT32_MAX : n % how_.keys;
    if (how_.timed) item.extra.received = lane().clock().now();
    return true;
  }
  void order_by(const Item& item, std::string& out) override {
    out.append(reinterpret_cast<const char*>(&item.extra.key), sizeof item.extra.key);
  }
  void handle_message(Item& item) override {
    if (how_.stalled.load(std::memory_order_relaxed)) {
      how_.held.push_back([this, &item] { done(item); });
      return;
    }
    if (how_.work == Duration::zero()) return done(item);
    item.extra.stream = this;
    item.extra.work.arm(lane(), lane().turn_time() + how_.work, [](void* of) noexcept {
      auto& worked = *static_cast<Item*>(of);
      worked.extra.stream->done(worked);
    }, &item);
  }
  void conclude() override { finish(grpc::Status::OK); }

 private:
  void done(Item& item) {
    how_.handled.fetch_add(1, std::memory_order_relaxed);
    if (how_.timed)
      how_.waits_us.push_back(std::chrono::duration<double, std::micro>(lane().clock().now() - item.extra.received).count());
    settle(item, {});
    count_on_lane();
  }
  // What this thread allocated since the last message, where it is the lane's and not one of gRPC's.
  void count_on_lane() {
    if (reading_) return;
    const std::uint64_t now = allocations();
    if (seen_ != 0) how_.allocated.fetch_add(now - seen_, std::memory_order_relaxed);
    seen_ = now;
  }
  static inline thread_local bool reading_ = false;
  static inline thread_local std::uint64_t seen_ = 0;
  Handling& how_;
  std::uint32_t next_ = 0;
};

/// A call without gRPC behind it: hands the same message to a reactor again and again, in this thread.
class NoCall final : public grpc::ServerCallbackReader<Buffer> {
 public:
  /// Nanoseconds of wall time a message; `reactor` ends by itself. Negative: it did not take them all.
  double feed(grpc::ServerReadReactor<Buffer>* reactor, std::uint64_t count, const Buffer& message) {
    reactor_ = reactor;
    this->BindReactor(reactor);
    asked_for_.park_until([this] { return into_.load() != nullptr; });
    const Stopwatch watch;
    for (std::uint64_t i = 0; i < count; ++i) {
      Buffer* into = into_.exchange(nullptr, std::memory_order_acquire);
      // Out of credit: the lane is on its own thread, and behind.
      for (int tries = 0; into == nullptr && tries < 500; ++tries) {
        asked_for_.parker.park(milliseconds(10));
        into = into_.exchange(nullptr, std::memory_order_acquire);
      }
      if (into == nullptr) return -1;
      *into = message;
      reactor->OnReadDone(true);
    }
    const double took = watch.wall() * 1e9 / static_cast<double>(count);
    reactor->OnReadDone(false);
    asked_for_.park_until([this] { return finished_.load(); });
    reactor->OnDone();
    return took;
  }
  void Finish(grpc::Status) override {
    finished_ = true;
    asked_for_.parker.wake();
  }
  void SendInitialMetadata() override {}
  void Read(Buffer* into) override {
    into_.store(into, std::memory_order_release);
    if (!begun_.exchange(true, std::memory_order_relaxed)) asked_for_.parker.wake();
  }

 private:
  struct Until {
    Parker parker;
    template <class Condition>
    void park_until(Condition met) {
      while (!met()) parker.park(milliseconds(10));
    }
  };
  grpc::internal::ServerReactor* reactor() override { return reactor_; }
  void CallOnDone() override {}
  grpc::internal::ServerReactor* reactor_ = nullptr;
  std::atomic<Buffer*> into_{nullptr};
  std::atomic<bool> begun_{false}, finished_{false};
  Until asked_for_;
};

struct StreamRig {
  RealClock clock;
  RealRandom random;
  LaneThread lane{clock, "stream"};
  stream::Pipeline pipeline{options(), clock, random};
  Handling how, hot;  ///< of /Piped, of /Hot
  transport::RawService service;
  std::unique_ptr<grpc::Server> server;
  std::shared_ptr<grpc::Channel> channel;

  static stream::Options options() {
    stream::Options out;
    out.name = "bench";
    out.ordering.mode = stream::Order::keyed;
    return out;
  }
  StreamRig() {
    transport::prepare_grpc();
    lane.start();
    service.add_client_stream("/bench.Streams/Bare", [this](auto*, Buffer* response) {
      *response = nothing();
      return new Bare(how.allocated);
    });
    service.add_client_stream("/bench.Streams/Piped", [this](auto* context, Buffer* response) {
      *response = nothing();
      return (new Piped(pipeline, lane.lane(), *context, how))->begin();
    });
    hot.keys = 0;
    service.add_client_stream("/bench.Streams/Hot", [this](auto* context, Buffer* response) {
      *response = nothing();
      return (new Piped(pipeline, lane.lane(), *context, hot))->begin();
    });
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  }
  ~StreamRig() {
    server->Shutdown();
    server->Wait();
    lane.stop();
    lane.join();
  }
  /// What a message costs without gRPC, in ns: the reactor alone.
  double alone(bool piped, std::uint64_t count) {
    grpc::CallbackServerContext context;
    NoCall call;
    const grpc::Slice slice(std::string(100, 'm'));
    const Buffer message(&slice, 1);
    if (piped) return call.feed((new Piped(pipeline, lane.lane(), context, how))->begin(), count, message);
    return call.feed(new Bare(how.allocated), count, message);
  }
  /// False: it did not end well. `enough`: it is given up.
  bool push(const char* method, std::uint64_t count, const std::atomic<bool>* enough = nullptr) {
    grpc::ClientContext context;
    Buffer reply;
    const std::unique_ptr<grpc::ClientWriter<Buffer>> writer(grpc::internal::ClientWriterFactory<Buffer>::Create(
        channel.get(), grpc::internal::RpcMethod(method, grpc::internal::RpcMethod::CLIENT_STREAMING, channel), &context,
        &reply));
    const grpc::Slice slice(std::string(100, 'm'));
    const Buffer message(&slice, 1);
    for (std::uint64_t i = 0; i < count && (enough == nullptr || !*enough); ++i)
      if (!writer->Write(message, grpc::WriteOptions().set_buffer_hint())) break;
    if (enough != nullptr) context.TryCancel();  // gRPC holds tens of thousands that are on their way
    writer->WritesDone();
    return writer->Finish().ok();
  }
};

}  // namespace sluice::bench
