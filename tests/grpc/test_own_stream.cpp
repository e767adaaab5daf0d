// Anybody's callback service: client-streaming methods behind pipelines of their own, others untouched.
#include <grpcpp/create_channel.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/support/sync_stream.h>
#include <grpcpp/impl/client_unary_call.h>
#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/impl/service_type.h>
#include <gtest/gtest.h>

#include <thread>

#include "sluice/base/runtime.hpp"
#include "sluice/transport/grpc_stream.hpp"
#include "sluice/v1/commands.pb.h"

namespace sluice::transport {
namespace {

using Word = v1::ExecuteRequest;  // any message will do
using Text = v1::ExecuteReply;

/// Joins the words; "wrong" fails, "late" ends only when the test says so.
class Joined final : public GrpcStream<Word> {
 public:
  struct Held {
    std::atomic<int> late{0};
    std::vector<std::function<void()>> settle;  // the lane's
  };
  Joined(stream::Pipeline& pipeline, Lane& lane, grpc::CallbackServerContext& context, Text& text, Held& held)
      : GrpcStream(pipeline, lane, context), text_(text), held_(held) {}

 protected:
  void order_by(const Item& item, std::string& out) override { out += item.message.name().substr(0, 1); }
  void handle_message(Item& item) override {
    if (item.message.name() == "wrong") return settle(item, fail(FailureKind::invalid_argument, "wrong", "a wrong word"));
    joined_ += item.message.name() + " ";
    if (item.message.name() != "late") return settle(item, {});
    held_.settle.push_back([this, &item] { settle(item, {}); });
    ++held_.late;
  }
  void conclude() override {
    text_.set_body(joined_ + std::to_string(summary().succeeded) + "/" + std::to_string(summary().accepted));
    finish(summary().ended_by ? stream_status(*summary().ended_by, call()) : grpc::Status::OK);
  }

 private:
  Text& text_;
  Held& held_;
  std::string joined_;
};

class Words final : public grpc::Service {
 public:
  template <class Begin>
  void stream(const char* path, Begin begin) {
    method(path, grpc::internal::RpcMethod::CLIENT_STREAMING,
           new grpc::internal::CallbackClientStreamingHandler<Word, Text>(begin));
  }
  template <class Begin>
  void unary(const char* path, Begin begin) {
    method(path, grpc::internal::RpcMethod::NORMAL_RPC, new grpc::internal::CallbackUnaryHandler<Word, Text>(begin));
  }

 private:
  void method(const char* path, grpc::internal::RpcMethod::RpcType type, grpc::internal::MethodHandler* handler) {
    AddMethod(new grpc::internal::RpcServiceMethod(path, type, nullptr));
    MarkMethodCallback(methods_++, handler);
  }
  int methods_ = 0;
};

class OwnStream : public testing::Test {
 protected:
  static stream::Options options(const char* name, admission::AtCapacity policy, std::size_t capacity) {
    stream::Options out;
    out.name = name;
    out.ordering.mode = stream::Order::keyed;
    out.backpressure.policy = policy;
    out.backpressure.capacity = capacity;
    return out;
  }
  OwnStream() {
    lane.start();
    service.stream("/w.Words/Strict", [this](auto* context, Text* text) {
      return (new Joined(strict, lane.lane(), *context, *text, held))->begin();
    });
    service.stream("/w.Words/Patient", [this](auto* context, Text* text) {
      return (new Joined(patient, lane.lane(), *context, *text, held))->begin();
    });
    service.unary("/w.Words/Plain", [](grpc::CallbackServerContext* context, const Word* word, Text* text) {
      text->set_body("plain " + word->name());
      auto* reactor = context->DefaultReactor();
      reactor->Finish(grpc::Status::OK);
      return reactor;
    });
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());
  }
  ~OwnStream() override {
    server->Shutdown();
    server->Wait();
    lane.stop();
    lane.join();
  }
  struct Call {
    grpc::ClientContext context;
    Text text;
    std::unique_ptr<grpc::ClientWriter<Word>> writer;
    bool say(const std::string& name) {
      Word word;
      word.set_name(name);
      return writer->Write(word);
    }
    grpc::Status end() {
      writer->WritesDone();
      return writer->Finish();
    }
  };
  std::unique_ptr<Call> call(const char* path) {
    auto out = std::make_unique<Call>();
    out->writer.reset(grpc::internal::ClientWriterFactory<Word>::Create(
        channel.get(), grpc::internal::RpcMethod(path, grpc::internal::RpcMethod::CLIENT_STREAMING, channel),
        &out->context, &out->text));
    return out;
  }
  std::string plain() {
    grpc::ClientContext context;
    Word word;
    word.set_name("word");
    Text text;
    const auto status = grpc::internal::BlockingUnaryCall(
        channel.get(), grpc::internal::RpcMethod("/w.Words/Plain", grpc::internal::RpcMethod::NORMAL_RPC, channel),
        &context, word, &text);
    return status.ok() ? text.body() : status.error_message();
  }
  void release() {
    Parker done;
    lane.lane().post([&] {
      for (auto& settle : std::exchange(held.settle, {})) settle();
      done.wake();
    });
    done.park();
  }

  RealClock clock;
  RealRandom random;
  LaneThread lane{clock, "own"};
  Joined::Held held;
  stream::Pipeline strict{options("strict", admission::AtCapacity::hard_reject, 1), clock, random};
  stream::Pipeline patient{options("patient", admission::AtCapacity::queue, 1), clock, random};
  Words service;
  std::unique_ptr<grpc::Server> server;
  std::shared_ptr<grpc::Channel> channel;
};

TEST_F(OwnStream, STREAM_13_a_typed_method_has_the_pipeline_and_its_own_words) {
  const auto one = call("/w.Words/Patient");
  for (const char* word : {"a1", "wrong", "a2", "b1"}) EXPECT_TRUE(one->say(word));
  EXPECT_TRUE(one->end().ok());
  EXPECT_EQ(one->text.body(), "a1 a2 b1 3/4");
  EXPECT_EQ(plain(), "plain word");
}

TEST_F(OwnStream, STREAM_13_each_method_has_its_own_options_and_others_pass) {
  const auto busy = call("/w.Words/Strict");
  EXPECT_TRUE(busy->say("late"));
  const auto queued = call("/w.Words/Patient");
  EXPECT_TRUE(queued->say("late"));
  while (held.late != 2) std::this_thread::yield();  // one in each pipeline: they share no permits
  const auto refused = call("/w.Words/Strict");
  refused->say("more");
  EXPECT_EQ(refused->end().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto waits = call("/w.Words/Patient");
  EXPECT_TRUE(waits->say("more"));
  EXPECT_EQ(plain(), "plain word") << "while both pipelines are full";
  EXPECT_EQ(strict.stats().gate.refused, 1u);
  release();
  EXPECT_TRUE(busy->end().ok());
  EXPECT_TRUE(queued->end().ok());
  EXPECT_TRUE(waits->end().ok());
  EXPECT_EQ(waits->text.body(), "more 1/1");
}

TEST_F(OwnStream, STREAM_13_draining_one_method_leaves_the_others) {
  strict.drain();
  const auto refused = call("/w.Words/Strict");
  refused->say("late");
  EXPECT_EQ(refused->end().error_code(), grpc::StatusCode::UNAVAILABLE);
  const auto open = call("/w.Words/Patient");
  open->say("word");
  EXPECT_TRUE(open->end().ok());
  EXPECT_EQ(plain(), "plain word");
}

}  // namespace
}  // namespace sluice::transport
