// The client of command streams against a real door, whole and cut.
#include <thread>

#include "grpc/stream_client_fixture.hpp"
#include "support/chaos_proxy.hpp"
#include "support/forwarding_store.hpp"

namespace sluice::transport {
namespace {

/// Says unknown_outcome to one Commit, which it applies.
class DoubtfulStore final : public testing_support::ForwardingStore {
 public:
  DoubtfulStore(store::Store& inner, int doubtful) : ForwardingStore(inner), doubtful_(doubtful) {}
  void submit(store::PendingCommit& pending) override {
    if (seen_++ != doubtful_) return inner_.submit(pending);
    (void)store::commit_and_wait(inner_, pending.commit);
    pending.outcome = fail(FailureKind::unknown_outcome, "", "the connection was lost during COMMIT");
    pending.lane->post(pending);
  }

 private:
  const int doubtful_;
  int seen_ = 0;
};

TEST_F(StreamClientTest, STREAM_16_sends_in_windows_and_knows_what_became_of_each) {
  start();
  with.window = 30;
  std::vector<std::uint64_t> told;
  with.progress = [&](std::uint64_t, std::uint64_t done) { told.push_back(done); };
  Numbers source(101);
  const auto report = send(source, door->port());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete);
  EXPECT_EQ(report->done, 101u);
  EXPECT_EQ(report->succeeded, 99u);
  EXPECT_EQ(report->failed.at("handler_error"), 2u);
  EXPECT_EQ(report->succeeded_at(50), false);
  EXPECT_EQ(report->succeeded_at(51), true);
  EXPECT_EQ(report->succeeded_at(102), std::nullopt);
  EXPECT_EQ(report->first_failures.at(1).failure.code(), "no_funds");
  EXPECT_EQ(counted(), 99);
  EXPECT_EQ(told.back(), 101u);
  // Again: everything is done already, and the report is the same.
  const auto same = send(source, door->port());
  ASSERT_TRUE(same);
  EXPECT_EQ(same->succeeded, 99u);
  EXPECT_EQ(counted(), 99);
}

TEST_F(StreamClientTest, STREAM_16_what_is_done_is_told_long_before_the_end) {
  start();
  std::vector<std::uint64_t> told;
  with.progress = [&](std::uint64_t, std::uint64_t done) {
    if (told.empty() || told.back() != done) told.push_back(done);
  };
  Numbers source(3000);
  const auto report = send(source, door->port());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete);
  ASSERT_GT(told.size(), 3u) << "one window of 10,000 could have had all of it";
  EXPECT_EQ(told.at(0), 0u) << "as soon as the server has said so";
  EXPECT_LE(told.at(1), 256u);
  EXPECT_EQ(told.back(), 3000u);
  // One that is stopped waits for its window alone.
  with.id = "stopped";
  Numbers more(3000);
  with.progress = nullptr;
  with.stop = [&] { return more.highest >= 256; };
  const auto stopped = send(more, door->port());
  ASSERT_TRUE(stopped) << stopped.error().to_string();
  EXPECT_EQ(stopped->done, 256u);
}

TEST_F(StreamClientTest, STREAM_16_every_failure_is_told_however_many_there_are) {
  start();
  with.window = 1000;
  Numbers source(2500);
  source.decline_every = 2;
  const auto report = send(source, door->port());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_EQ(report->failed.at("handler_error"), 1250u);
  ASSERT_EQ(report->first_failures.size(), 1250u);
  for (std::size_t i = 0; i < 1250; ++i) ASSERT_EQ(report->first_failures[i].sequence, 2 * (i + 1));
  EXPECT_EQ(report->first_failures.back().failure.code(), "no_funds");
  EXPECT_EQ(report->succeeded_at(2500), false);
  EXPECT_EQ(report->succeeded_at(2499), true);
  // Who comes later is told as many as the mark has; the rest is unknown, and not taken for good.
  const auto later = send(source, door->port());
  ASSERT_TRUE(later);
  EXPECT_EQ(later->first_failures.size(), 100u);
  EXPECT_EQ(later->succeeded_at(2499), std::nullopt);
}

TEST_F(StreamClientTest, STREAM_16_a_reply_is_asked_for_under_the_messages_key_and_nothing_runs) {
  start();
  Numbers source(100);
  ASSERT_TRUE(send(source, door->port()));
  ASSERT_EQ(counted(), 98);
  with.channel.target = "127.0.0.1:" + std::to_string(door->port());
  const auto replies = StreamReplies::open(with);
  ASSERT_TRUE(replies);
  Numbers again(200);
  const auto ask = [&](std::uint64_t sequence) { return (*replies)->of(sequence, **again.at(sequence)); };
  const auto done = ask(7);
  ASSERT_TRUE(done) << done.error().to_string();
  EXPECT_EQ(done->body, "{}");
  EXPECT_FALSE(done->failure);
  const auto refused = ask(50);
  ASSERT_TRUE(refused) << refused.error().to_string();
  ASSERT_TRUE(refused->failure);
  EXPECT_EQ(refused->failure->code(), "no_funds");
  for (int i = 0; i < 2; ++i) {  // asking leaves nothing behind
    const auto never = ask(101);
    ASSERT_FALSE(never);
    EXPECT_EQ(never.error().code(), "no_reply") << never.error().to_string();
  }
  EXPECT_EQ(counted(), 98) << "nothing ran";
  with.id = "numbers";
  Numbers rest(101);
  ASSERT_TRUE(send(rest, door->port()));
  EXPECT_EQ(counted(), 99) << "and it may run afterwards";
}

TEST_F(StreamClientTest, STREAM_16_stopped_and_come_again_it_goes_on_where_it_was) {
  start();
  Numbers source(200);
  with.stop = [&] { return source.highest >= 90; };
  const auto first = send(source, door->port());
  ASSERT_TRUE(first) << first.error().to_string();
  EXPECT_FALSE(first->complete);
  EXPECT_EQ(first->done, 90u);
  with.stop = nullptr;
  const auto second = send(source, door->port());
  ASSERT_TRUE(second) << second.error().to_string();
  EXPECT_TRUE(second->complete);
  EXPECT_EQ(second->succeeded, 196u);
  EXPECT_EQ(counted(), 196);
}

TEST_F(StreamClientTest, STREAM_16_it_comes_again_after_every_cut_and_nothing_is_lost_or_doubled) {
  start();
  test::ChaosProxy proxy(door->port());
  proxy.set({.reset_after = 9'000});
  Numbers source(2000);
  const auto report = send(source, proxy.port());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete);
  EXPECT_GT(report->resumed, 3u);
  EXPECT_EQ(report->succeeded, 1960u);
  EXPECT_EQ(counted(), 1960);
}

TEST_F(StreamClientTest, STREAM_16_a_cut_after_long_work_is_no_standstill) {
  add("slow", rpc::KeyUse::required, [this](rpc::Invocation& invocation) {
    const Instant until = clock.now() + milliseconds(5);
    while (clock.now() < until) {
    }
    store::Commit commit;
    commit.then.push_back(store::KvAdd{{"shop", "counts", "all"}, 1});
    invocation.finish_with(std::move(commit), Reply::ok("{}"));
  });
  struct Slow final : StreamSource {
    Result<std::optional<StreamMessage>> at(std::uint64_t sequence) override {
      if (sequence > 1000) return std::nullopt;
      StreamMessage message;
      message.name = "slow";
      message.payload = "{}";
      return message;
    }
  } source;
  start();
  // Less than a call's time, so that a call that is cut would look like a standstill; enough for a busy machine.
  with.give_up_after = milliseconds(2'000);
  with.call_deadline = milliseconds(2'400);  // of work of five seconds: cut twice
  with.window_time = seconds(100);
  const auto report = send(source, door->port());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete);
  EXPECT_GT(report->resumed, 0u);
  EXPECT_EQ(counted(), 1000);
}

TEST_F(StreamClientTest, STREAM_16_it_comes_again_when_the_store_does_not_know_what_became_of_a_mark) {
  for (const int doubtful : {0, 1}) {  // the one that takes the stream over, the last one
    DoubtfulStore marks(*store, doubtful);
    hooks.marks = &marks;
    if (door) door->stop();
    door = std::make_unique<GrpcDoor>(registry, clock, std::vector<Lane*>{&lane.lane()}, options, hooks);
    if (doubtful == 0) lane.start();
    ASSERT_TRUE(door->start());
    with.id = "numbers" + std::to_string(doubtful);
    Numbers source(40);
    const auto report = send(source, door->port());
    ASSERT_TRUE(report) << report.error().to_string();
    EXPECT_TRUE(report->complete);
    EXPECT_EQ(counted(), 40 * (doubtful + 1));
    door->stop();
  }
}

/// Takes Commits and does not answer, until it is told to.
class HangingStore final : public testing_support::ForwardingStore {
 public:
  using ForwardingStore::ForwardingStore;
  void submit(store::PendingCommit& pending) override {
    if (hangs) waiting = &pending;
    else inner_.submit(pending);
  }
  std::atomic<bool> hangs{false};
  std::atomic<store::PendingCommit*> waiting{nullptr};
};

// Nothing ends such a line: without a ping the client would wait for its whole window.
TEST_F(StreamClientTest, STREAM_16_a_line_that_is_dead_and_was_not_ended_is_found_and_the_stream_goes_on) {
  start();
  test::ChaosProxy proxy(door->port());
  with.window = 30;
  with.channel.keepalive = with.channel.keepalive_timeout = milliseconds(200);
  bool stranded = false;
  with.progress = [&](std::uint64_t sent, std::uint64_t) {
    if (sent >= 1 && !std::exchange(stranded, true)) proxy.strand();
  };
  Numbers source(101);
  const Instant began = clock.now();
  const auto report = send(source, proxy.port());
  ASSERT_TRUE(report) << report.error().to_string();
  EXPECT_TRUE(report->complete);
  EXPECT_GE(report->resumed, 1u);
  EXPECT_EQ(counted(), 99);
  EXPECT_LT(clock.now() - began, with.call_deadline / 4);
}

// Taken over, sent and half-closed: all that is missing is the mark.
TEST_F(StreamClientTest, STREAM_12_a_stream_that_waits_for_its_mark_is_not_drained_and_does_not_hold_up_the_stop) {
  HangingStore marks(*store);
  hooks.marks = &marks;
  start();
  with.call_deadline = seconds(20);
  with.give_up_after = milliseconds(1);
  Numbers source(40);
  with.progress = [&](std::uint64_t sent, std::uint64_t) { marks.hangs = marks.hangs || sent >= 1; };
  Result<StreamReport> report = fail(FailureKind::internal, "", "not sent");
  std::thread client([&] { report = send(source, door->port()); });
  EXPECT_TRUE(wait_until([&] { return counted() == 40 && marks.waiting.load() != nullptr; }));
  door->drain();
  EXPECT_FALSE(door->drained());
  EXPECT_EQ(door->stats().streams.streams, 1u);
  door->stop();  // came back only when the store did
  client.join();
  EXPECT_FALSE(report);
  auto* pending = marks.waiting.load();
  ASSERT_NE(pending, nullptr);
  pending->outcome = fail(FailureKind::unavailable, "", "closed");
  pending->lane->post(*pending);
}

TEST_F(StreamClientTest, STREAM_16_a_message_that_is_too_long_is_told_and_not_sent_for_ever) {
  struct Long final : StreamSource {
    Result<std::optional<StreamMessage>> at(std::uint64_t sequence) override {
      if (sequence > 3) return std::nullopt;
      StreamMessage message;
      message.name = "count";
      message.payload = sequence == 2 ? '"' + std::string(2 << 20, 'x') + '"' : "{}";
      return message;
    }
  } source;
  start();
  const Instant began = clock.now();
  const auto report = send(source, door->port());
  ASSERT_FALSE(report);
  EXPECT_EQ(report.error().kind(), FailureKind::too_large) << report.error().to_string();
  EXPECT_EQ(report.error().details().back(), std::pair(std::string(kTooLongMessage), std::string("2")));
  EXPECT_LT(clock.now() - began, with.give_up_after / 2);
}

TEST_F(StreamClientTest, STREAM_16_a_server_that_is_away_a_wrong_token_or_a_bad_source_are_told) {
  start();
  Numbers source(5);
  with.give_up_after = milliseconds(1);
  const auto away = send(source, 1);
  ASSERT_FALSE(away);
  EXPECT_EQ(away.error().code(), "gave_up");
  EXPECT_NE(away.error().detail().find("same id"), std::string_view::npos);
  with.channel.token = "wrong";
  const auto wrong = send(source, door->port());
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().kind(), FailureKind::unauthenticated);
  with.channel.token = "ann-token";
  source.fails_at = 3;
  const auto broken = send(source, door->port());
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code(), "bad_line");
  EXPECT_EQ(counted(), 2) << "what stood before it is done";
  with.id.clear();
  EXPECT_FALSE(send(source, door->port()));
}

}  // namespace
}  // namespace sluice::transport
