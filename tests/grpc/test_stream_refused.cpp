// What the client of command streams makes of a refusal: less at once, later, or under a higher epoch.
#include <deque>
#include <thread>

#include "grpc/stream_client_fixture.hpp"

namespace sluice::transport {
namespace {

using StreamRefusedTest = StreamClientTest;

// Refused at each window, and at each with a longer pause, it took seconds for what is done in one.
TEST_F(StreamRefusedTest, STREAM_16_a_server_that_refuses_at_once_is_sent_what_it_takes) {
  options.stream.backpressure.policy = admission::AtCapacity::hard_reject;
  options.stream.backpressure.capacity = 8;
  std::deque<Timer> timers;  // each message takes two milliseconds, so that they pile up
  add("later", rpc::KeyUse::required, [&](rpc::Invocation& invocation) {
    timers.emplace_back().arm(*invocation.lane, clock.now() + milliseconds(2), [](void* one) noexcept {
      store::Commit commit;
      commit.then.push_back(store::KvAdd{{"shop", "counts", "all"}, 1});
      static_cast<rpc::Invocation*>(one)->finish_with(std::move(commit), Reply::ok("{}"));
    }, &invocation);
  });
  start();
  Numbers source(1000);
  source.name = "later";
  source.keys = 1000;
  with.channel.target = "127.0.0.1:" + std::to_string(door->port());
  Duration waited = Duration::zero();
  const auto report = send_stream(with, source, clock, [&](Duration pause) { waited += pause; });
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete);
  EXPECT_EQ(counted(), 980);
  EXPECT_GE(report->resumed, 1u) << "nothing was refused";
  EXPECT_LE(report->resumed, 40u);
  EXPECT_LE(waited, seconds(4));
}

// Others have all of it.
TEST_F(StreamRefusedTest, STREAM_16_a_server_that_takes_nothing_is_left_alone_for_as_long_as_it_says) {
  options.stream.backpressure.policy = admission::AtCapacity::hard_reject;
  options.stream.backpressure.capacity = 1;
  options.stream.backpressure.retry_after = milliseconds(7'000);
  start();
  StreamClientOptions other = with;
  other.id = "other";
  other.channel.target = with.channel.target = "127.0.0.1:" + std::to_string(door->port());
  struct One final : StreamSource {
    Result<std::optional<StreamMessage>> at(std::uint64_t sequence) override {
      if (sequence > 1) return std::nullopt;
      StreamMessage message;
      message.name = "hold";
      message.payload = "{}";
      return message;
    }
  } one;
  std::thread holding([&] { (void)send_stream(other, one, clock, [](Duration) {}); });
  EXPECT_TRUE(wait_until([&] { return held_count() == 1; }));
  Numbers source(1);
  Duration waited = Duration::zero();
  const auto report = send_stream(with, source, clock, [&](Duration pause) {
    waited += pause;
    const std::lock_guard lock(mutex);
    for (auto* one : std::exchange(held, {})) lane.lane().post([one] { one->finish(rpc::Answer::of(Reply::ok("{}"))); });
  });
  holding.join();
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_GE(report->resumed, 1u);
  EXPECT_GE(waited, milliseconds(7'000));
  EXPECT_EQ(counted(), 1);
}

// As when it was sent from another machine before, whose clock is ahead.
TEST_F(StreamRefusedTest, STREAM_16_a_clock_that_is_behind_keeps_nobody_from_going_on) {
  start();
  const auto tomorrow = clock.wall().time_since_epoch() + std::chrono::hours(24);
  Upload ahead(channel, {{"x-sluice-stream", with.id}, {"x-sluice-stream-epoch", std::to_string(tomorrow.count())}});
  ahead.send("count", R"({"n":1})", "1", 1);
  ASSERT_TRUE(ahead.finish().ok());
  Numbers source(30);
  with.give_up_after = seconds(2);
  Duration waited = Duration::zero();
  with.channel.target = "127.0.0.1:" + std::to_string(door->port());
  const auto report = send_stream(with, source, clock, [&](Duration pause) { waited += pause; });
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete);
  EXPECT_EQ(report->done_before, 1u);
  EXPECT_EQ(report->resumed, 1u);
  EXPECT_LT(waited, seconds(1));
  EXPECT_EQ(counted(), 30);
}

}  // namespace
}  // namespace sluice::transport
