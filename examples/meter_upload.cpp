// A client-streaming method of one's own service behind Sluice's pipeline: readings of one meter are
// stored in the order they were sent, of different meters side by side; a client that is too quick is
// stopped by flow control. The other method is plain gRPC and knows nothing of it.
#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <sluice/base/runtime.hpp>
#include <sluice/transport/grpc_stream.hpp>

#include "meter.grpc.pb.h"

using namespace sluice;
using namespace meter::v1;

/// The readings themselves. Thread-safe.
class Readings {
 public:
  Status store(const Reading& reading) {
    const std::lock_guard lock(mutex_);
    std::uint64_t& last = last_[reading.meter()];
    if (reading.value() < last)
      return fail(FailureKind::invalid_argument, "meter_runs_back",
                  reading.meter() + " was at " + std::to_string(last) + ", got " + std::to_string(reading.value()));
    last = reading.value();
    return {};
  }
  std::uint64_t last(const std::string& meter) {
    const std::lock_guard lock(mutex_);
    return last_[meter];
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::uint64_t> last_;
};

/// One call of Upload. It deletes itself when the call is over.
class UploadStream final : public transport::GrpcStream<Reading> {
 public:
  UploadStream(stream::Pipeline& pipeline, Lane& lane, grpc::CallbackServerContext& context, Readings& readings,
               Report& report)
      : GrpcStream(pipeline, lane, context), readings_(readings), report_(report) {}

 protected:
  void order_by(const Item& item, std::string& out) override { out += item.message.meter(); }
  void handle_message(Item& item) override { settle(item, readings_.store(item.message)); }
  void conclude() override {
    const stream::Summary& sum = summary();
    if (sum.ended_by) return finish(transport::stream_status(*sum.ended_by, call()));
    report_.set_accepted(sum.accepted);
    report_.set_stored(sum.succeeded);
    report_.set_failed(sum.failures());
    for (const auto& one : sum.first_failures)
      report_.add_failures("reading " + std::to_string(one.sequence) + ": " + std::string(one.failure.detail()));
    finish(grpc::Status::OK);
  }

 private:
  Readings& readings_;
  Report& report_;
};

class Service final : public Meters::CallbackService {
 public:
  Service(stream::Pipeline& pipeline, Lane& lane) : pipeline_(pipeline), lane_(lane) {}

  grpc::ServerReadReactor<Reading>* Upload(grpc::CallbackServerContext* context, Report* report) override {
    return (new UploadStream(pipeline_, lane_, *context, readings_, *report))->begin();
  }
  grpc::ServerUnaryReactor* Last(grpc::CallbackServerContext* context, const Meter* meter, Reading* reading) override {
    reading->set_meter(meter->name());
    reading->set_value(readings_.last(meter->name()));
    auto* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  stream::Pipeline& pipeline_;
  Lane& lane_;
  Readings readings_;
};

int main() {
  RealClock clock;
  RealRandom random;
  stream::Options options;  // bounded by itself: 256 messages and 4 MiB of a stream in flight
  options.name = "meters";
  options.ordering.mode = stream::Order::keyed;
  LaneThread lane(clock, "meters");
  lane.start();
  stream::Pipeline pipeline(options, clock, random);
  Service service(pipeline, lane.lane());
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();

  // Any gRPC client, in any language.
  const auto meters = Meters::NewStub(
      grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials()));
  Report report;
  {
    grpc::ClientContext call;
    const auto upload = meters->Upload(&call, &report);
    Reading reading;
    for (std::uint64_t i = 0; i < 1000; ++i) {
      reading.set_meter("meter-" + std::to_string(i % 10));
      reading.set_value(i == 502 ? 1 : i);
      if (!upload->Write(reading)) break;
    }
    upload->WritesDone();
    const grpc::Status status = upload->Finish();
    if (!status.ok()) std::printf("the stream ended: %s\n", status.error_message().c_str());
  }
  std::printf("accepted %llu, stored %llu, failed %llu\n", static_cast<unsigned long long>(report.accepted()),
              static_cast<unsigned long long>(report.stored()), static_cast<unsigned long long>(report.failed()));
  for (const auto& failure : report.failures()) std::printf("%s\n", failure.c_str());
  grpc::ClientContext call;
  Meter meter;
  meter.set_name("meter-2");
  Reading last;
  if (meters->Last(&call, meter, &last).ok())
    std::printf("%s is at %llu\n", last.meter().c_str(), static_cast<unsigned long long>(last.value()));

  pipeline.drain();  // new streams are refused, open ones finish
  server->Shutdown();
  server->Wait();
  lane.stop();
  lane.join();
}
