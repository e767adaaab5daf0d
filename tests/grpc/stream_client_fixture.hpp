// send_stream() against a real door, with messages that are counted.
#pragma once
#include "grpc/command_stream_fixture.hpp"
#include "sluice/transport/grpc_stream_client.hpp"

namespace sluice::transport {

class StreamClientTest : public GrpcTest {
 protected:
  struct Numbers final : StreamSource {
    explicit Numbers(std::uint64_t n) : total(n) {}
    Result<std::optional<StreamMessage>> at(std::uint64_t sequence) override {
      highest = std::max(highest, sequence);
      if (sequence > total) return std::nullopt;
      if (fails_at == sequence) return fail(FailureKind::invalid_argument, "bad_line", "line 7");
      StreamMessage message;
      message.name = sequence % decline_every == 0 ? "decline" : name;
      message.payload = "{\"n\":" + std::to_string(sequence) + "}";
      message.ordering_key = std::to_string(sequence % keys);
      return message;
    }
    std::uint64_t total, highest = 0, fails_at = 0, decline_every = 50, keys = 3;
    std::string name = "count";
  };
  StreamClientTest() {
    hooks.marks = store.get();
    add("count", rpc::KeyUse::required, [](rpc::Invocation& invocation) {
      store::Commit commit;
      commit.then.push_back(store::KvAdd{{"shop", "counts", invocation.command.payload}, 1});
      commit.then.push_back(store::KvAdd{{"shop", "counts", "all"}, 1});
      invocation.finish_with(std::move(commit), Reply::ok("{}"));
    });
    with.id = "numbers";
    with.channel.token = "ann-token";
    with.give_up_after = seconds(20);
  }
  std::int64_t counted() {
    auto rows = store::ask_and_wait(*store, store::GetRows{{{"shop", "counts", "all"}}});
    const auto& row = std::get<store::GetRows::Answer>(*rows).at(0);
    return row ? row->number : 0;
  }
  Result<StreamReport> send(StreamSource& source, std::uint16_t port) {
    with.channel.target = "127.0.0.1:" + std::to_string(port);
    return send_stream(with, source, clock, [](Duration) {});
  }
  StreamClientOptions with;
};

}  // namespace sluice::transport
