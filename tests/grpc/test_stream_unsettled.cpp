// What was told as unsettled and is over by now: a stream's client asks once more and tells what it became.
#include "grpc/command_stream_fixture.hpp"
#include "sluice/transport/grpc_stream_client.hpp"

namespace sluice::transport {
namespace {

class StreamUnsettledTest : public CommandStreamTest {
 protected:
  struct Late final : StreamSource {
    Result<std::optional<StreamMessage>> at(std::uint64_t sequence) override {
      if (sequence > 3) return std::nullopt;
      StreamMessage message;
      message.name = "late";
      message.payload = std::to_string(sequence);
      return message;
    }
  };
  StreamUnsettledTest() {
    // Its caller's patience ends before its transaction does, as in a node that stood still.
    add("late", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
      claims.push_back(std::move(invocation.claim()));
      invocation.finish(rpc::Answer::pending(invocation.exchange()));
    });
    with.id = "late";
    with.channel.token = "ann-token";
  }
  ~StreamUnsettledTest() override { claims.clear(); }
  Result<StreamReport> send() {
    with.channel.target = "127.0.0.1:" + std::to_string(door->port());
    return send_stream(with, source, clock, [](Duration) {});
  }
  void settle(std::size_t which, const Reply& reply) {
    const Bytes bytes = reply.encode();
    store::Commit commit;
    claims[which].complete_in(commit, bytes);
    ASSERT_TRUE(store::commit_and_wait(*store, std::move(commit))->applied);
    claims[which].completed(bytes);
  }
  std::vector<idempotency::Claim> claims;
  StreamClientOptions with;
  Late source;
};

TEST_F(StreamUnsettledTest, STREAM_16_what_has_ended_since_it_was_told_as_unsettled_is_told_as_what_it_became) {
  start();
  const auto first = send();
  ASSERT_TRUE(first) << first.error().to_string();
  ASSERT_EQ(first->unsettled, 3u);
  settle(0, Reply::ok("{}"));
  settle(2, Reply::from(Failure(FailureKind::rejected, "no_funds", "the account is empty")));
  auto again = send();
  ASSERT_TRUE(again);
  ASSERT_EQ(again->unsettled, 3u) << "the mark keeps what it was told";
  ASSERT_TRUE(ask_unsettled(with, source, *again));
  EXPECT_EQ(again->unsettled, 1u);
  EXPECT_EQ(again->succeeded, 1u);
  EXPECT_EQ(again->failed.at("handler_error"), 1u);
  ASSERT_EQ(again->first_failures.size(), 2u);
  EXPECT_EQ(again->first_failures[0].sequence, 2u);
  EXPECT_EQ(again->first_failures[0].what, "unsettled");
  EXPECT_EQ(again->first_failures[1].failure.code(), "no_funds");
  EXPECT_EQ(again->succeeded_at(1), true);
  EXPECT_EQ(again->succeeded_at(3), false);
  EXPECT_EQ(claims.size(), 3u) << "nothing ran again";
}

TEST_F(StreamUnsettledTest, STREAM_16_a_server_that_is_away_or_a_stop_leaves_it_as_it_was_told) {
  start();
  auto report = send();
  ASSERT_TRUE(report);
  settle(0, Reply::ok("{}"));
  with.stop = [] { return true; };
  ASSERT_TRUE(ask_unsettled(with, source, *report));
  EXPECT_EQ(report->unsettled, 3u);
  with.stop = nullptr;
  door->stop();
  ASSERT_TRUE(ask_unsettled(with, source, *report));
  EXPECT_EQ(report->unsettled, 3u);
  EXPECT_EQ(report->first_failures.size(), 3u);
}

}  // namespace
}  // namespace sluice::transport
