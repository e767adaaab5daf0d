// A stream between gRPC's threads and its lane, without gRPC: two threads bring messages as the two that
// gRPC serves streams with do, the next while the one before may still be inside.
#include <grpcpp/server_context.h>
#include <gtest/gtest.h>

#include <thread>

#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc_stream.hpp"

namespace sluice::transport {
namespace {

struct Numbered {
  std::uint64_t number = 0;
  std::size_t ByteSizeLong() const { return 100; }
};

class FakeCall final : public grpc::ServerCallbackReader<Numbered> {
 public:
  void bind(grpc::ServerReadReactor<Numbered>* reactor) { this->BindReactor(reactor); }
  /// What was asked for, once.
  Numbered* asked() { return into_.exchange(nullptr, std::memory_order_acq_rel); }
  bool finished() const { return finished_; }
  void Finish(grpc::Status) override { finished_ = true; }
  void SendInitialMetadata() override {}
  void Read(Numbered* into) override {
    EXPECT_EQ(into_.exchange(into, std::memory_order_acq_rel), nullptr) << "one read at a time";
  }

 private:
  grpc::internal::ServerReactor* reactor() override { return nullptr; }
  void CallOnDone() override {}
  std::atomic<Numbered*> into_{nullptr};
  std::atomic<bool> finished_{false};
};

struct Seen {
  std::uint64_t keys = 1;
  std::atomic<std::uint64_t> handled{0}, out_of_order{0};
  std::atomic<bool> gone{false};
};

class Counted final : public GrpcStream<Numbered> {
 public:
  Counted(stream::Pipeline& pipeline, Lane& lane, grpc::CallbackServerContext& context, Seen& seen)
      : GrpcStream(pipeline, lane, context), seen_(seen), last_(seen.keys) {}
  ~Counted() override { seen_.gone = true; }

 protected:
  void order_by(const Item& item, std::string& out) override { out += std::to_string(item.message.number % seen_.keys); }
  void handle_message(Item& item) override {
    auto& last = last_[item.message.number % seen_.keys];
    if (item.message.number <= last) ++seen_.out_of_order;
    last = item.message.number;
    ++seen_.handled;
    settle(item, {});
  }
  void conclude() override { finish(grpc::Status::OK); }

 private:
  Seen& seen_;
  std::vector<std::uint64_t> last_;
};

TEST(HandOver, STREAM_1_and_11_two_threads_bring_messages_and_each_runs_once_in_its_keys_order) {
  constexpr std::uint64_t kMessages = 20'000;
  RealClock clock;
  RealRandom random;
  for (const std::uint64_t keys : {1, 5}) {
    LaneThread lane{clock, "stream"};
    lane.start();
    stream::Options options;
    options.name = "hand_over";
    options.ordering.mode = stream::Order::keyed;
    stream::Pipeline pipeline{options, clock, random};
    grpc::CallbackServerContext context;
    FakeCall call;
    Seen seen;
    seen.keys = keys;
    auto* reactor = (new Counted(pipeline, lane.lane(), context, seen))->begin();
    call.bind(reactor);
    std::atomic<std::uint64_t> brought{0};
    std::atomic<bool> closed{false};
    const auto bring = [&] {
      while (!closed) {
        Numbered* into = call.asked();
        if (into == nullptr) {
          std::this_thread::yield();
          continue;
        }
        into->number = ++brought;
        if (into->number > kMessages) closed = true;
        reactor->OnReadDone(into->number <= kMessages);
      }
    };
    std::thread one(bring), two(bring);
    one.join(), two.join();
    while (!call.finished()) std::this_thread::yield();
    EXPECT_FALSE(seen.gone) << "gRPC is not done with it";
    reactor->OnDone();
    while (!seen.gone) std::this_thread::yield();
    EXPECT_EQ(seen.handled, kMessages);
    EXPECT_EQ(seen.out_of_order, 0u);
    lane.stop();
    lane.join();
  }
}

}  // namespace
}  // namespace sluice::transport
