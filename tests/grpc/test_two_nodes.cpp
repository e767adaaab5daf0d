// One key's messages through two nodes on one store. What is promised: a stream is one order wherever it goes
// on, and whatever of it still works elsewhere; commands keep the order in which each node took them.
#include "grpc/command_stream_fixture.hpp"

namespace sluice::transport {
namespace {

/// Another node: it shares the store and nothing else.
struct Node {
  Node(RealClock& with_clock, store::Store& store, GrpcHooks hooks, std::uint16_t number, rpc::Handler handler)
      : clock(with_clock), keys(clock, &store), ids(clock, number), registry(store, keys, ids) {
    rpc::CommandSpec spec;
    spec.name = "note";
    spec.app = "shop";
    spec.idempotency = rpc::KeyUse::optional;
    spec.handler = std::move(handler);
    EXPECT_TRUE(registry.add(std::move(spec)));
    lane.start();
    door = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, GrpcOptions{}, std::move(hooks));
    EXPECT_TRUE(door->start());
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel = grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(door->port()), grpc::InsecureChannelCredentials(), arguments);
  }
  ~Node() {
    door->stop();
    lane.stop();
    lane.join();
  }
  RealClock& clock;
  LaneThread lane{clock, "node"};
  idempotency::Keys keys;
  IdSource ids;
  rpc::Registry registry;
  std::unique_ptr<GrpcDoor> door;
  std::shared_ptr<grpc::Channel> channel;
};

class TwoNodes : public CommandStreamTest {
 protected:
  /// {"k":"a","n":7}: takes effect after 6 of its row, or says that it may not. `row` names the row of a key.
  static rpc::Handler in_order(std::string prefix) {
    return [prefix = std::move(prefix)](rpc::Invocation& invocation) {
      const std::string& text = invocation.command.payload;
      const auto key = text.substr(6, text.find('"', 6) - 6);
      const auto number = std::stoll(text.substr(text.find("\"n\":") + 4));
      const store::KvKey row{"shop", "notes", prefix + key};
      store::Commit commit;
      commit.requires_.push_back({store::KvAtLeast{row, number - 1}, "gap"});
      commit.requires_.push_back({store::KvAtMost{row, number - 1}, "out_of_order"});
      commit.then.push_back(store::KvAdd{row, 1});
      commit.then.push_back(store::KvAdd{{"shop", "counts", key}, 1});
      invocation.finish_with(std::move(commit), Reply::ok("{}"));
    };
  }
  std::unique_ptr<Node> node(std::uint16_t number, std::string prefix = {}) {
    return std::make_unique<Node>(clock, *store, hooks, number, in_order(std::move(prefix)));
  }
};

TEST_F(TwoNodes, STREAM_15_NODE_3_a_stream_that_goes_on_at_another_node_keeps_its_keys_order_and_loses_and_doubles_nothing) {
  constexpr std::uint64_t kMessages = 400;
  const std::unique_ptr<Node> nodes[] = {node(2), node(3)};
  sim::SimRandom chance(7);
  std::vector<std::unique_ptr<Upload>> stale;  // connections that were neither closed nor cut
  std::uint64_t epoch = 0, moves = 0;
  const auto payload = [](std::uint64_t n) { return note(n % 2 == 0 ? "a" : "b", static_cast<std::int64_t>((n + 1) / 2)); };
  const auto key = [](std::uint64_t n) { return n % 2 == 0 ? "a" : "b"; };
  for (bool over = false; !over; ++moves) {
    ASSERT_LT(moves, 500u);
    auto up = std::make_unique<Upload>(nodes[moves % 2]->channel, std::map<std::string, std::string>{{"x-sluice-stream", "s"}, {"x-sluice-stream-epoch", std::to_string(++epoch)}});
    const auto done = up->done();
    if (!done) {  // the mark moved once more under the old epoch while it was taken over: come again
      ASSERT_EQ(up->end().error_code(), grpc::StatusCode::ABORTED);
      continue;
    }
    std::uint64_t next = *done + 1;
    const std::uint64_t until = std::min(kMessages, *done + 1 + chance.below(40));
    for (; next <= until; ++next)
      if (!up->send("note", payload(next), key(next), next)) break;
    switch (chance.below(3)) {
      case 0: {  // in good order
        const auto status = up->finish();
        ASSERT_TRUE(status.ok()) << status.error_message();
        EXPECT_TRUE(up->reply.failed().empty()) << "a message ran out of its order: " << up->reply.DebugString();
        over = up->reply.done() == kMessages;
        break;
      }
      case 1: up->context.TryCancel(); (void)up->end(); break;
      default: stale.push_back(std::move(up));  // works on, under an old epoch
    }
    for (auto& old : stale)
      if (chance.one_in(3) && next <= kMessages) (void)old->send("note", payload(next), key(next), next);
  }
  for (auto& old : stale) {
    old->context.TryCancel();
    (void)old->end();
  }
  EXPECT_GT(moves, 10u);
  for (const char* one : {"a", "b"}) {
    EXPECT_EQ(number("notes", one), static_cast<std::int64_t>(kMessages / 2));
    EXPECT_EQ(number("counts", one), static_cast<std::int64_t>(kMessages / 2)) << "once each";
  }
}

TEST_F(TwoNodes, G4_NODE_3_commands_of_one_key_at_two_nodes_keep_each_nodes_order_and_all_take_effect) {
  constexpr std::int64_t kEach = 200;
  const auto one = node(2, "one:"), two = node(3, "two:");
  Upload first(one->channel), second(two->channel);
  for (std::int64_t n = 1; n <= kEach; ++n) {
    ASSERT_TRUE(first.send("note", note("hot", n), "hot"));
    ASSERT_TRUE(second.send("note", note("hot", n), "hot"));
  }
  for (Upload* up : {&first, &second}) {
    const auto status = up->finish();
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(up->reply.succeeded(), static_cast<std::uint64_t>(kEach)) << up->reply.DebugString();
  }
  EXPECT_EQ(number("notes", "one:hot"), kEach);
  EXPECT_EQ(number("notes", "two:hot"), kEach);
  EXPECT_EQ(number("counts", "hot"), 2 * kEach) << "the row they share has every one of both";
}

}  // namespace
}  // namespace sluice::transport
