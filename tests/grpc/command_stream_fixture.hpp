// Commands/ExecuteStream as a client meets it, and a command whose effects show their order.
#pragma once
#include <grpcpp/support/sync_stream.h>

#include "grpc/grpc_fixture.hpp"

namespace sluice::transport {

/// A client's stream.
class Upload {
 public:
  Upload(const std::shared_ptr<grpc::Channel>& channel, std::map<std::string, std::string> metadata = {},
         Duration within = seconds(60))
      : channel_(channel) {
    metadata.try_emplace("authorization", "Bearer ann-token");
    for (const auto& [key, value] : metadata) context.AddMetadata(key, value);
    context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                      gpr_time_from_nanos(std::chrono::nanoseconds(within).count(), GPR_TIMESPAN)));
    writer_.reset(grpc::internal::ClientWriterFactory<v1::ExecuteStreamRequest>::Create(
        channel.get(),
        grpc::internal::RpcMethod("/sluice.v1.Commands/ExecuteStream", grpc::internal::RpcMethod::CLIENT_STREAMING,
                                  channel),
        &context, &reply));
  }
  bool send(const std::string& name, const std::string& payload, const std::string& order = {}, std::uint64_t sequence = 0,
            const std::string& key = {}) {
    v1::ExecuteStreamRequest request;
    request.set_name(name);
    request.set_payload(payload);
    request.set_ordering_key(order);
    request.set_sequence(sequence);
    request.set_idempotency_key(key);
    return writer_->Write(request);
  }
  grpc::Status finish() {
    writer_->WritesDone();
    return writer_->Finish();
  }
  /// What the server ends it with while this side stays open.
  grpc::Status end() { return writer_->Finish(); }
  /// The mark of a stream that can be resumed; nothing when the stream ended first.
  std::optional<std::uint64_t> done() {
    writer_->WaitForInitialMetadata();
    const auto& got = context.GetServerInitialMetadata();
    const auto at = got.find("x-sluice-stream-done");
    if (at == got.end()) return std::nullopt;
    return std::stoull(std::string(at->second.data(), at->second.size()));
  }
  std::string trailing(const std::string& key) {
    const auto& got = context.GetServerTrailingMetadata();
    const auto at = got.find(key);
    return at == got.end() ? std::string() : std::string(at->second.data(), at->second.size());
  }

  grpc::ClientContext context;
  v1::ExecuteStreamReply reply;

 private:
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::ClientWriter<v1::ExecuteStreamRequest>> writer_;
};

class CommandStreamTest : public GrpcTest {
 protected:
  CommandStreamTest() {
    hooks.marks = store.get();
    hooks.random = &random;
    // Takes effect once and in order, or says that it did not: {"k":"a","n":7} after all below 7.
    add("note", rpc::KeyUse::optional, [this](rpc::Invocation& invocation) {
      const std::string& text = invocation.command.payload;
      const auto key = text.substr(6, text.find('"', 6) - 6);
      const auto number = std::stoll(text.substr(text.find("\"n\":") + 4));
      const store::KvKey row{"shop", "notes", key};
      store::Commit commit;
      commit.requires_.push_back({store::KvAtMost{row, number - 1}, "out_of_order"});
      commit.then.push_back(store::KvPut{row, "", number});
      commit.then.push_back(store::KvAdd{{"shop", "counts", key}, 1});
      ++runs;
      invocation.finish_with(std::move(commit), Reply::ok("{}"));
    });
  }
  static std::string note(const std::string& key, std::int64_t number) {
    return "{\"k\":\"" + key + "\",\"n\":" + std::to_string(number) + "}";
  }
  std::int64_t number(const std::string& collection, const std::string& key) {
    auto rows = store::ask_and_wait(*store, store::GetRows{{{"shop", collection, key}}});
    const auto& row = std::get<store::GetRows::Answer>(*rows).at(0);
    return row ? row->number : 0;
  }
};

}  // namespace sluice::transport
