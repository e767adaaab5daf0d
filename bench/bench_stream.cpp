// Client streams over loopback gRPC: the same messages into a bare callback reactor and through the
// pipeline (numbers, gate, keyed order, a trivial handler), taken turn about. Both ends are in this
// process, so the figures are for both together.
#include <fmt/core.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include "bench/benches.hpp"
#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc_stream.hpp"
#include "transport/grpc/own_log.hpp"
#include "transport/grpc/service.hpp"

namespace sluice::bench {
namespace {

using Buffer = grpc::ByteBuffer;

// A reply must be there, if of no bytes.
Buffer nothing() {
  const grpc::Slice slice("");
  return {&slice, 1};
}

// What gRPC does without us.
class Bare final : public grpc::ServerReadReactor<Buffer> {
 public:
  Bare() { StartRead(&message_); }
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    StartRead(&message_);
  }
  void OnDone() override { delete this; }

 private:
  Buffer message_;
};

struct Number {
  std::uint32_t key = 0;
};

class Piped final : public transport::GrpcStream<Buffer, Number> {
 public:
  Piped(stream::Pipeline& pipeline, Lane& lane, grpc::CallbackServerContext& context, std::uint32_t keys,
        std::uint64_t& handled)
      : GrpcStream(pipeline, lane, context), keys_(keys), handled_(handled) {}

 protected:
  bool accept(Item& item) override {
    item.extra.key = next_++ % keys_;
    return true;
  }
  void order_by(const Item& item, std::string& out) override {
    out.append(reinterpret_cast<const char*>(&item.extra.key), sizeof item.extra.key);
  }
  void handle_message(Item& item) override {
    ++handled_;
    settle(item, {});
  }
  void conclude() override { finish(grpc::Status::OK); }

 private:
  const std::uint32_t keys_;
  std::uint32_t next_ = 0;
  std::uint64_t& handled_;
};

struct Rig {
  RealClock clock;
  RealRandom random;
  LaneThread lane{clock, "stream"};
  stream::Pipeline pipeline{options(), clock, random};
  std::uint32_t keys = 1;
  std::uint64_t handled = 0;
  transport::RawService service;
  std::unique_ptr<grpc::Server> server;
  std::shared_ptr<grpc::Channel> channel;

  static stream::Options options() {
    stream::Options out;
    out.name = "bench";
    out.ordering.mode = stream::Order::keyed;
    return out;
  }
  Rig() {
    transport::hush_grpc();
    lane.start();
    service.add_client_stream("/bench.Streams/Bare", [](auto*, Buffer* response) {
      *response = nothing();
      return new Bare;
    });
    service.add_client_stream("/bench.Streams/Piped", [this](auto* context, Buffer* response) {
      *response = nothing();
      return (new Piped(pipeline, lane.lane(), *context, keys, handled))->begin();
    });
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  }
  ~Rig() {
    server->Shutdown();
    server->Wait();
    lane.stop();
    lane.join();
  }
  /// False: it did not end well.
  bool push(const char* method, std::uint64_t count) {
    grpc::ClientContext context;
    Buffer reply;
    const std::unique_ptr<grpc::ClientWriter<Buffer>> writer(grpc::internal::ClientWriterFactory<Buffer>::Create(
        channel.get(), grpc::internal::RpcMethod(method, grpc::internal::RpcMethod::CLIENT_STREAMING, channel), &context,
        &reply));
    const grpc::Slice slice(std::string(100, 'm'));
    const Buffer message(&slice, 1);
    for (std::uint64_t i = 0; i < count; ++i)
      if (!writer->Write(message, grpc::WriteOptions().set_buffer_hint())) break;
    writer->WritesDone();
    return writer->Finish().ok();
  }
};

}  // namespace

void bench_stream(const Options& options, Report& report) {
  Rig rig;
  const auto count = static_cast<std::uint64_t>(std::max(20'000.0, options.seconds * 60'000));
  if (!rig.push("/bench.Streams/Bare", 1000)) return report.note("WRONG: the bare stream does not work");
  for (const std::uint32_t keys : {1U, 100U, 10'000U}) {
    rig.keys = keys;
    std::vector<double> bare, piped, bare_cpu, piped_cpu;
    for (int round = 0; round < options.rounds; ++round) {
      const Stopwatch one;
      rig.push("/bench.Streams/Bare", count);
      bare.push_back(static_cast<double>(count) / one.wall());
      bare_cpu.push_back(one.cpu() * 1e9 / static_cast<double>(count));
      const auto before = rig.handled;
      const Stopwatch other;
      rig.push("/bench.Streams/Piped", count);
      piped.push_back(static_cast<double>(count) / other.wall());
      piped_cpu.push_back(other.cpu() * 1e9 / static_cast<double>(count));
      if (rig.handled - before != count)
        report.note(fmt::format("WRONG: {} of {} messages were handled", rig.handled - before, count));
    }
    const std::string name = fmt::format("{} key{}", keys, keys == 1 ? "" : "s");
    report.add("bare gRPC stream, " + name, 1, "rate", "messages/s", bare);
    report.add("bare gRPC stream, " + name, 1, "cpu", "ns/message", bare_cpu);
    report.add("pipeline, " + name, 1, "rate", "messages/s", piped);
    report.add("pipeline, " + name, 1, "cpu", "ns/message", piped_cpu);
    report.note(fmt::format("{}: {:.0f} % of the bare stream's rate, {:.0f} ns of CPU per message beyond it", name,
                            100 * report.median("pipeline, " + name, 1, "rate") /
                                report.median("bare gRPC stream, " + name, 1, "rate"),
                            report.median("pipeline, " + name, 1, "cpu") -
                                report.median("bare gRPC stream, " + name, 1, "cpu")));
  }
}

}  // namespace sluice::bench
